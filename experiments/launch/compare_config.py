"""Settings of ``experiments.compare``: what is trained, attacked, and how."""

from __future__ import annotations

import dataclasses
import math

from bnn_adv.attacks.threat import THREATS
from bnn_adv.data import DATASETS
from bnn_adv.evaluation.suites import PROTOCOLS, get_protocol
from bnn_adv.networks import ACTIVATIONS, build_network
from bnn_adv.posteriors.decision import DECISION_RULES, DecisionRule, check_rule
from experiments.launch.config import setting

MODELS = ("deterministic", "ensemble", "vi", "hmc")
"""Rows of the table; a model's place here decides its random key."""


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Hold every flag of the experiment; see ``python -m experiments.compare --help``."""

    dataset: str = setting("digits", f"Data set: {', '.join(DATASETS)}.")
    data_dir: str = setting(
        "", "Folder with a TFDS-prepared set or the IDX files; empty looks in the usual places."
    )
    num_train: int = setting(0, "Training examples (a random subset by seed); 0 takes all.")
    num_test: int = setting(0, "Test examples that are attacked (the first ones); 0 takes all.")
    seed: int = setting(0, "Seed from which every result follows.")
    models: tuple[str, ...] = setting(MODELS, f"Models to train, of {', '.join(MODELS)}.")
    architecture: str = setting("fc", "Network: fc, fc2 .. fc5 (hidden layers) or conv.")
    hidden: int = setting(128, "Units a hidden layer, or channels of the second convolution.")
    activation: str = setting("relu", f"Activation: {', '.join(ACTIVATIONS)}.")
    convolution: str = setting(
        "auto",
        "Convolutions as patches and matrix product, or native; auto chooses by backend.",
        choices=("auto", "patches", "native"),
    )
    epsilon: float = setting(0.2, "Radius of the attack, in units of inputs in [0, 1].")
    norm: str = setting("linf", f"Norm of the attack: {', '.join(THREATS)}.")
    protocol: tuple[str, ...] = setting(
        ("published", "corrected", "strong"),
        f"Attack protocols to run, of {', '.join(PROTOCOLS)}.",
    )
    fresh: bool = setting(True, "Also let fresh draws of VI predict the adversarial images.")
    sgd_epochs: int = setting(30, "Epochs of the deterministic network and of every member.")
    sgd_learning_rate: float = setting(0.005, "Adam's step size of SGD networks.")
    sgd_minibatch_size: int = setting(64, "Examples a gradient step of SGD networks.")
    ensemble_size: int = setting(10, "Members of the deep ensemble.")
    ensemble_decision_rule: str = setting(
        "mean_logits",
        "How the ensemble predicts, and what attacks on it differentiate: by the mean of its "
        "members' logits, as the published code, or of their probabilities.",
        choices=DECISION_RULES,
    )
    member_chunk: int = setting(0, "Members trained at once; 0 chooses from the backend.")
    vi_epochs: int = setting(200, "Epochs of variational inference.")
    vi_learning_rate: float = setting(0.01, "Adam's step size of variational inference.")
    vi_minibatch_size: int = setting(128, "Examples a gradient step of variational inference.")
    vi_guide: str = setting("mean_field", "Gaussian guide.", choices=("mean_field", "low_rank"))
    vi_rank: int = setting(10, "Rank of the low-rank guide.")
    vi_kl_weight: str = setting(
        "auto",
        "Weight of the KL term: corrected (minibatch likelihood scaled by N/B), published (full KL "
        "on every minibatch), auto: published where --protocol=published alone.",
        choices=("auto", "corrected", "published"),
    )
    vi_init: str = setting(
        "auto",
        "Start of the guide: corrected (the network's initialisation, small scales), published "
        "(means N(0,1), scales softplus N(0,1)), auto as above.",
        choices=("auto", "corrected", "published"),
    )
    vi_num_samples: int = setting(50, "Posterior draws of VI that are attacked and predict.")
    hmc_architecture: str = setting("", "Network of the HMC row; empty as --architecture.")
    hmc_hidden: int = setting(0, "Units of the HMC row; 0 as --hidden.")
    hmc_activation: str = setting("", "Activation of the HMC row; empty as --activation.")
    hmc_algorithm: str = setting("hmc", "Sampler.", choices=("hmc", "nuts"))
    hmc_num_samples: int = setting(100, "Draws kept of each chain; all are attacked.")
    hmc_num_warmup: int = setting(200, "Adapting transitions before the first kept draw.")
    hmc_thinning: int = setting(1, "Keep every so many-th transition.")
    hmc_num_chains: int = setting(2, "Chains, side by side.")
    hmc_step_size: float = setting(0.005, "First leapfrog step size (the only one if not adapted).")
    hmc_num_integration_steps: int = setting(60, "Leapfrog steps a transition.")
    hmc_adapt: str = setting(
        "step_size",
        "Adapt step size and mass matrix, the step size, or nothing.",
        choices=("window", "step_size", "none"),
    )
    hmc_init: str = setting(
        "prior",
        "Start of the chains: draws of the prior, or of the network's initialiser.",
        choices=("prior", "network"),
    )
    prior_scale: float = setting(1.0, "Standard deviation of the Gaussian prior.")
    prior_kind: str = setting(
        "isotropic",
        "Prior of kernels; fan_in divides by sqrt(fan in).",
        choices=("isotropic", "fan_in"),
    )
    temperature: float = setting(1.0, "Posterior temperature T; p(w|D)^(1/T).")
    batch_size: int = setting(128, "Images attacked at once.")
    checkpoint_every: float = setting(
        60.0, "Seconds between checkpoints of training and of attacks; 0 writes none."
    )
    precision: str = setting(
        "highest",
        "Matrix products of sampling, predictions and attacks: highest is float32; the others are "
        "faster where the device has them, and wrong in the third digit.",
        choices=("highest", "tensorfloat32", "bfloat16"),
    )
    draws_on_disk: bool = setting(
        False,
        "Leave draws on disk and stream them to the device, for posteriors beyond its memory.",
    )
    sample_chunk: int = setting(0, "Posterior draws at once; 0 chooses from the network's size.")

    @property
    def published_vi(self) -> bool:
        """Whether ``auto`` means published for VI's switches."""
        return self.protocol == ("published",)


def validate(config: EvaluateConfig) -> None:
    """Raise before any work starts if a setting is out of range.

    Raises:
      ValueError: The message names the flag, its value and what is allowed.
    """
    _known("dataset", (config.dataset,), tuple(DATASETS))
    _known("models", config.models, MODELS)
    _known("norm", (config.norm,), tuple(THREATS))
    for name in config.protocol:
        get_protocol(name)
    if not config.epsilon >= 0:
        raise ValueError(f"--epsilon must be at least 0, got {config.epsilon}.")
    if not math.isfinite(config.epsilon):
        raise ValueError(f"--epsilon must be finite, got {config.epsilon}.")
    # JAX's keys keep 32 bits of a seed: 2^32 + 1 would be the run of 1.
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"--seed must lie between 0 and 2**32 - 1, got {config.seed}.")
    if not config.checkpoint_every >= 0:
        raise ValueError(f"--checkpoint_every must be at least 0, got {config.checkpoint_every}.")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        least = 0 if field.name in _MAY_BE_ZERO else 1
        if field.type == "int" and field.name != "seed" and value < least:
            raise ValueError(f"--{field.name} must be at least {least}, got {value}.")
    for name in (
        "sgd_learning_rate",
        "vi_learning_rate",
        "hmc_step_size",
        "prior_scale",
        "temperature",
    ):
        if not getattr(config, name) > 0:
            raise ValueError(f"--{name} must be positive, got {getattr(config, name)}.")
    for architecture, activation in (
        (config.architecture, config.activation),
        (
            config.hmc_architecture or config.architecture,
            config.hmc_activation or config.activation,
        ),
    ):
        build_network(architecture, hidden=1, num_classes=2, activation=activation)
    check_rule(config.ensemble_decision_rule)
    draws = {name: num_draws(config, name) for name in config.models}
    if config.sample_chunk > max(draws.values()):
        raise ValueError(
            f"--sample_chunk={config.sample_chunk} is larger than the number of draws of every "
            f"model ({', '.join(f'{name}: {count}' for name, count in draws.items())})."
        )


def num_draws(config: EvaluateConfig, model: str) -> int:
    """Return how many draws a model's posterior has."""
    return {
        "deterministic": 1,
        "ensemble": config.ensemble_size,
        "vi": config.vi_num_samples,
        "hmc": config.hmc_num_samples * config.hmc_num_chains,
    }[model]


def decision_rule(config: EvaluateConfig, model: str) -> DecisionRule:
    """Return how a row's draws make a prediction; a deterministic network's output are logits."""
    if model == "ensemble":
        return config.ensemble_decision_rule  # type: ignore[return-value]
    return "mean_logits" if model == "deterministic" else "mean_probabilities"


_MAY_BE_ZERO = {
    "num_train",
    "num_test",
    "hmc_hidden",
    "hmc_num_warmup",
    "member_chunk",
    "sample_chunk",
}


def _known(flag: str, given: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    unknown = [name for name in given if name not in allowed]
    if unknown or not given:
        raise ValueError(
            f"Unknown --{flag}: {', '.join(unknown) or 'nothing given'}. "
            f"Known: {', '.join(allowed)}."
        )
