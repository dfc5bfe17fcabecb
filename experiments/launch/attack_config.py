"""Settings of ``experiments.attack``: whose posterior, which attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.attacks import ATTACKS
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import files
from bnn_adv.compute.canonical import digest
from bnn_adv.compute.disk import DiskDraws
from bnn_adv.compute.settings import PRECISIONS, Settings, seed, setting
from bnn_adv.data import DATASETS, OOD_SETS, Dataset, load_dataset
from bnn_adv.evaluation.suites import SUITES, Suite, get_suite
from bnn_adv.networks import NETWORKS, find_network, get_apply_fn, init_params
from bnn_adv.posteriors.decision import DECISION_RULES
from bnn_adv.posteriors.posterior import Posterior, hash_draws, load_posterior, shard_posterior
from experiments.launch.config import Values, define_flags, list_names, make, peek, to_json
from experiments.launch.methods import define_network_flags, network_prefix
from experiments.launch.one_attack import DEFAULT_OBJECTIVE, define_own_flags, make_suite


@dataclasses.dataclass(frozen=True)
class PosteriorConfig(Settings):
    """Whose posterior is looked at, on which data, within which radius."""

    posterior: str = setting(
        "",
        "Run directory of experiments.train or experiments.compare, or an .npz file of stacked "
        "draws.",
        is_path=True,
    )
    model: str = setting("", "Of a run directory with several posteriors: the row, as vi.")
    dataset: str = setting("", f"Data set: {', '.join(DATASETS)}; empty: the run's.")
    data_dir: str = setting(
        "",
        "Folder with a TFDS-prepared set or the IDX files; empty looks in the usual places.",
        is_path=True,
    )
    num_test: int = setting(
        0, "Test examples that are looked at (the first ones); 0: the run's.", least=0
    )
    network: str = setting(
        "",
        f"Network of an .npz file: {', '.join(NETWORKS)}, or package.module[:Name]; empty: the "
        "run's.",
    )
    decision_rule: str = setting(
        "",
        f"How the draws make a prediction: {', '.join(DECISION_RULES)}; empty: as the run says, "
        "mean_probabilities where it says nothing.",
        choices=("", *DECISION_RULES),
    )
    norm: str = setting(
        "", "Norm; empty: the run's, linf where it says nothing.", choices=("", *THREATS)
    )
    epsilon: float | None = setting(
        None, "Radius, in units of inputs in [0, 1]; not given: the run's.", least=0
    )
    seed: int = seed()
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)


@dataclasses.dataclass(frozen=True)
class AttackConfig(PosteriorConfig):
    """Settings of ``experiments.attack`` but for those of the network."""

    suite: str = setting(
        "strong", f"Attacks to run: {', '.join(SUITES)}, or package.module:Name of your own."
    )
    attack: str = setting(
        "",
        f"One attack in place of a suite, with its settings at --NAME.field: {', '.join(ATTACKS)}, "
        "or package.module of your own.",
    )
    objective: str = setting(
        "",
        f"What --attack maximises: {', '.join(OBJECTIVES)}, or package.module:NAME of your own; "
        f"empty: {DEFAULT_OBJECTIVE}.",
    )
    num_probe: int = setting(
        100,
        "Images, drawn by seed, on which every attack is run and signs of masking are looked for.",
        least=0,
    )
    num_curve: int = setting(
        200, "Images, drawn by seed, whose smallest radius is looked for; 0 leaves it out.", least=0
    )
    shift: tuple[str, ...] = setting(
        (),
        "Inputs out of distribution that uncertainty is to tell, clean and attacked: "
        f"{', '.join(OOD_SETS)}, or another data set of the same shape, from --data_dir.",
        is_distinct=True,
    )
    num_shift: int = setting(
        200, "Of --shift: images of each kind, in and out of distribution, drawn by seed.", least=1
    )
    batch_size: int = setting(128, "Images attacked at once.", least=1)
    sample_chunk: int = setting(
        0, "Posterior draws at once; 0 chooses from the network's size.", least=0
    )
    precision: str = setting(
        "highest",
        "Matrix products of predictions and attacks: highest is float32; the others are faster "
        "where the device has them, and wrong in the third digit.",
        choices=PRECISIONS,
    )


class Target(NamedTuple):
    """Whose posterior is attacked, and how.

    config: Every setting, with what the posterior's run knows filled in.
    network: Settings of the network.
    suite: The attacks.
    attack: Settings of ``config.attack`` by name of flag.
    """

    config: AttackConfig
    network: Any
    suite: Suite
    attack: dict[str, Any]

    def build(self, num_classes: int) -> nn.Module:
        """Return the network."""
        network: nn.Module = find_network(self.config.network).build(self.network, num_classes)
        return network

    def to_json(self) -> dict[str, Any]:
        """Return every setting by name of flag."""
        prefix = network_prefix("", self.config.network)
        # A suite and one attack exclude each other.
        left_out = {"suite"} if self.config.attack else {"attack", "objective"}
        left_out |= set() if self.config.shift else {"shift", "num_shift"}
        own = {k: v for k, v in to_json(self.config).items() if k not in left_out}
        return {**own, **self.attack, **to_json(self.network, prefix=prefix)}


def define_attack_flags(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags of attacks and networks that a command line may name.

    Raises:
      ValueError: It names an attack or a network that does not exist.
    """
    define_flags(AttackConfig, flag_values=flag_values)
    define_own_flags(argv, flag_values)
    named = dict.fromkeys([*NETWORKS, *filter(None, [peek(argv, "network")])])
    define_network_flags(tuple(named), flag_values=flag_values)


def make_target(values: Values) -> Target:
    """Return the settings that values by name of flag describe, and what the run knows.

    Raises:
      ValueError: A setting is out of range, neither given nor known, or not that of the run.
      FileNotFoundError: There is no such run or file.
    """
    config: AttackConfig = make(AttackConfig, values)
    if not config.posterior:
        raise ValueError("--posterior is missing: give a run directory or an .npz file of draws.")
    suite, own_settings = _choose_suite(config, values)
    path = Path(config.posterior)
    if path.suffix == ".npz":
        return _of_file(config, suite, own_settings, values)
    model, known = _read_run(path, config.model)
    own = known.get(f"{model}.network", "")
    name = own or known["network"]
    prefix = network_prefix(model if own else "", name)
    network = make(find_network(name).Config, known, prefix=prefix)
    _check_network(config, values, name, network)
    chosen = {
        "model": model,
        "network": name,
        "dataset": config.dataset or known["dataset"],
        "num_test": config.num_test or known["num_test"],
        "norm": config.norm or known.get("norm", "linf"),
        "epsilon": known.get("epsilon") if config.epsilon is None else config.epsilon,
    }
    if chosen["epsilon"] is None:
        raise ValueError(f"{path} knows no radius: give --epsilon.")
    return Target(dataclasses.replace(config, **chosen), network, suite, own_settings)


def _choose_suite(config: AttackConfig, values: Values) -> tuple[Suite, dict[str, Any]]:
    """Return the attacks to run, and the settings of one that takes a suite's place."""
    if config.attack and "suite" in values:
        raise ValueError(
            f"--attack={config.attack} takes the place of a suite: leave out "
            f"--suite={config.suite}, or --attack."
        )
    if config.objective and not config.attack:
        raise ValueError(
            f"--objective={config.objective} needs --attack: suites say what they maximise."
        )
    if config.attack:
        return make_suite(config.attack, config.objective, values)
    return get_suite(config.suite), {}


def _of_file(
    config: AttackConfig, suite: Suite, own_settings: dict[str, Any], values: Values
) -> Target:
    missing = [f"--{name}" for name in ("dataset", "network") if not getattr(config, name)] + (
        ["--epsilon"] if config.epsilon is None else []
    )
    if missing:
        raise ValueError(
            f"{config.posterior} does not say what its draws belong to: give "
            f"{', '.join(missing)}, and the network's own flags."
        )
    prefix = network_prefix("", config.network)
    network = make(find_network(config.network).Config, values, prefix=prefix)
    config = dataclasses.replace(config, norm=config.norm or "linf")
    return Target(config, network, suite, own_settings)


def _check_network(config: AttackConfig, values: Values, name: str, network: Any) -> None:
    """Raise where flags describe another network than the one that was trained."""
    if config.network and config.network != name:
        raise ValueError(
            f"--network={config.network}: the posterior in {config.posterior} was trained with "
            f"--network={name}. Leave the flag out."
        )
    prefix = network_prefix("", name)
    trained = to_json(network, prefix=prefix)
    names = [
        n
        for other in NETWORKS
        for n in list_names(find_network(other).Config, prefix=network_prefix("", other))
    ]
    for flag in dict.fromkeys([*names, *trained]):
        if flag in values and values[flag] != trained.get(flag):
            there = f"{flag}={trained[flag]}" if flag in trained else f"network={name}"
            raise ValueError(
                f"--{flag}={values[flag]}: the posterior in {config.posterior} was trained with "
                f"--{there}. Leave the flag out."
            )


class Opened(NamedTuple):
    """What an entry point works on.

    posterior: The draws, checked against the network.
    diagnostics: Of their run; empty of a file.
    dataset: The data.
    hashes: Of draws and test data: what was replaced since is another run's.
    """

    posterior: Posterior
    diagnostics: dict[str, Any]
    dataset: Dataset
    hashes: dict[str, str]


def open_target(target: Target, mesh: Mesh | None) -> Opened:
    """Load data and draws, see ``read_posterior``."""
    config = target.config
    dataset = load_dataset(
        config.dataset,
        config.data_dir or None,
        num_test=config.num_test or None,
        seed=config.seed,
    )
    posterior, diagnostics = read_posterior(target, dataset, mesh)
    hashes = {
        "draws_hash": hash_draws(posterior),
        "data_hash": digest((dataset.x_test, dataset.y_test)),
    }
    return Opened(posterior, diagnostics, dataset, hashes)


def read_posterior(
    target: Target, dataset: Dataset, mesh: Mesh | None
) -> tuple[Posterior, dict[str, Any]]:
    """Return the draws, checked against the network, and the diagnostics of their run.

    Args:
      target: From ``make_target``.
      dataset: What the network is for.
      mesh: Devices to split the draws over.

    Raises:
      ValueError: The draws do not fit the network, or are not those of their run.
      FileNotFoundError: There are no draws.
    """
    config, network = target.config, target.build(dataset.num_classes)
    shape = dataset.x_test.shape[1:]
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), network, shape))
    apply_fn, path = get_apply_fn(network), Path(config.posterior)
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


def _read_run(path: Path, model: str) -> tuple[str, dict[str, Any]]:
    """Return which row is meant, and every setting of its run."""
    stored = path / "config.json"
    if not stored.exists():
        raise FileNotFoundError(
            f"{path} is neither an .npz file nor a run directory of experiments.train or "
            "experiments.compare."
        )
    known = files.read_json(stored)
    models = sorted(record.stem for record in (path / "posterior").glob("*.json"))
    if not model and len(models) == 1:
        model = models[0]
    if model not in models:
        given = f"--model={model}" if model else "--model, which is missing,"
        raise ValueError(f"{given} must be one of the models trained in {path}: {models}.")
    if "network" not in known:
        raise ValueError(
            f"{path} was written by an earlier version of bnn_adv: give its draws as "
            f"--posterior={path}/posterior/{model}.npz with --network and the network's flags."
        )
    return model, known
