"""Settings of ``experiments.attack``: whose posterior, which attacks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import files
from bnn_adv.compute.disk import DiskDraws
from bnn_adv.data import DATASETS, Dataset
from bnn_adv.evaluation.suites import PROTOCOLS, get_protocol
from bnn_adv.networks import ACTIVATIONS, build_network, get_apply_fn, init_params
from bnn_adv.posteriors.decision import DECISION_RULES
from bnn_adv.posteriors.posterior import Posterior, hash_draws, load_posterior, shard_posterior
from experiments.launch.config import setting

_KEPT = ("dataset", "architecture", "hidden", "activation", "norm", "epsilon", "num_test")
_OF_HMC = ("architecture", "hidden", "activation")


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """Hold every flag of the experiment; see ``python -m experiments.attack --help``."""

    posterior: str = setting(
        "", "Run directory of experiments.compare, or an .npz file of stacked draws."
    )
    model: str = setting("", "Of a run directory: deterministic, ensemble, vi or hmc.")
    dataset: str = setting("", f"Data set: {', '.join(DATASETS)}; empty: the run's.")
    data_dir: str = setting(
        "", "Folder with a TFDS-prepared set or the IDX files; empty looks in the usual places."
    )
    num_test: int = setting(0, "Test examples that are attacked (the first ones); 0: the run's.")
    architecture: str = setting("", "Network: fc, fc2 .. fc5 or conv; empty: the run's.")
    hidden: int = setting(0, "Units a hidden layer, or channels; 0: the run's.")
    activation: str = setting("", f"Activation: {', '.join(ACTIVATIONS)}; empty: the run's.")
    decision_rule: str = setting(
        "",
        f"How the draws make a prediction: {', '.join(DECISION_RULES)}; empty: as the run says, "
        "mean_probabilities where it says nothing.",
    )
    suite: str = setting("strong", f"Attacks to run: {', '.join(PROTOCOLS)}.")
    norm: str = setting("", f"Norm of the attack: {', '.join(THREATS)}; empty: the run's.")
    epsilon: float = setting(-1.0, "Radius, in units of inputs in [0, 1]; negative: the run's.")
    seed: int = setting(0, "Seed from which every result follows.")
    num_probe: int = setting(
        100,
        "Images, drawn by seed, on which every attack is run and signs of masking are looked for.",
    )
    num_curve: int = setting(
        200, "Images, drawn by seed, whose smallest radius is looked for; 0 leaves it out."
    )
    batch_size: int = setting(128, "Images attacked at once.")
    sample_chunk: int = setting(0, "Posterior draws at once; 0 chooses from the network's size.")
    precision: str = setting(
        "highest",
        "Matrix products of predictions and attacks: highest is float32; the others are faster "
        "where the device has them, and wrong in the third digit.",
        choices=("highest", "tensorfloat32", "bfloat16"),
    )
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.")


def validate(config: AttackConfig) -> None:
    """Raise before any work starts if a setting is out of range.

    Raises:
      ValueError: The message names the flag, its value and what is allowed.
    """
    if not config.posterior:
        raise ValueError("--posterior is missing: give a run directory or an .npz file of draws.")
    get_protocol(config.suite)
    for flag, value, known in (
        ("dataset", config.dataset, DATASETS),
        ("norm", config.norm, THREATS),
        ("activation", config.activation, ACTIVATIONS),
        ("decision_rule", config.decision_rule, DECISION_RULES),
    ):
        if value and value not in known:
            raise ValueError(f"Unknown --{flag}: {value}. Known: {', '.join(known)}.")
    for name, least in (("num_test", 0), ("hidden", 0), ("num_probe", 0), ("num_curve", 0)):
        if getattr(config, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(config, name)}.")
    if config.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {config.batch_size}.")


def describe_posterior(config: AttackConfig) -> AttackConfig:
    """Return the config with what the posterior's run knows filled in.

    Raises:
      ValueError: Something is neither given nor known.
      FileNotFoundError: There is no such run or file.
    """
    path = Path(config.posterior).expanduser()
    if path.suffix == ".npz":
        known: dict[str, Any] = {"dataset": "", "norm": "linf", "num_test": 0}
    else:
        known = _read_run(path, config.model)
    chosen: dict[str, Any] = {
        name: known.get(name) for name in _KEPT if _is_missing(getattr(config, name))
    }
    missing = [f"--{name}" for name, value in chosen.items() if value is None or value == ""]
    if missing:
        raise ValueError(
            f"{path} does not say what its draws belong to: give {', '.join(missing)}."
        )
    return dataclasses.replace(config, **chosen)


def read_posterior(
    config: AttackConfig, dataset: Dataset, mesh: Mesh | None
) -> tuple[Posterior, dict[str, Any]]:
    """Return the draws, checked against the network, and the diagnostics of their run.

    Args:
      config: From ``describe_posterior``.
      dataset: What the network is for.
      mesh: Devices to split the draws over.

    Raises:
      ValueError: The draws do not fit the network, or are not those of their run.
      FileNotFoundError: There are no draws.
    """
    network = build_network(
        config.architecture,
        hidden=config.hidden,
        num_classes=dataset.num_classes,
        activation=config.activation,
    )
    shape = dataset.x_test.shape[1:]
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), network, shape))
    apply_fn, path = get_apply_fn(network), Path(config.posterior).expanduser()
    diagnostics: dict[str, Any] = {}
    if path.suffix != ".npz":
        folder = path / "posterior"
        diagnostics = files.read_json(folder / f"{config.model}.json")
        if (folder / config.model).is_dir():
            draws = DiskDraws(folder / config.model, expected)
            posterior = Posterior(apply_fn, draws, **_options(config, diagnostics))
            _check_trained(posterior, config, diagnostics)
            return posterior, diagnostics
        path = folder / f"{config.model}.npz"
    posterior = load_posterior(path, apply_fn, expected)
    _check_trained(posterior, config, diagnostics)
    posterior = dataclasses.replace(posterior, **_options(config, diagnostics))
    return shard_posterior(posterior, mesh), diagnostics


def _check_trained(posterior: Posterior, config: AttackConfig, diagnostics: dict[str, Any]) -> None:
    """Raise where a run's draws are not those that its training has recorded."""
    trained = diagnostics.get("draws_hash", {}).get(config.model)
    if trained is not None and trained != (found := hash_draws(posterior)):
        raise ValueError(
            f"The draws of {config.model} in {config.posterior} were replaced: its training wrote "
            f"draws of the hash {trained}, they have {found}. Put them back, or give the file "
            "that replaced them as --posterior=FILE.npz."
        )


def _options(config: AttackConfig, diagnostics: dict[str, Any]) -> dict[str, Any]:
    recorded = diagnostics.get("decision_rule", DECISION_RULES[0])
    return {"precision": config.precision, "decision_rule": config.decision_rule or recorded}


def _read_run(path: Path, model: str) -> dict[str, Any]:
    stored = path / "config.json"
    if not stored.exists():
        raise FileNotFoundError(
            f"{path} is neither an .npz file nor a run directory of experiments.compare."
        )
    known = files.read_json(stored)
    models = sorted(record.stem for record in (path / "posterior").glob("*.json"))
    if model not in models:
        given = f"--model={model}" if model else "--model, which is missing,"
        raise ValueError(f"{given} must be one of the models trained in {path}: {models}.")
    if model == "hmc":
        known |= {name: known[f"hmc_{name}"] for name in _OF_HMC if known[f"hmc_{name}"]}
    return known


def _is_missing(value: Any) -> bool:
    return (
        value == ""
        or (isinstance(value, int) and value == 0)
        or (isinstance(value, float) and value < 0)
    )
