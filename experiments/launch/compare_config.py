"""Settings of ``experiments.compare``: what is trained, attacked, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import registry
from bnn_adv.compute.settings import PRECISIONS, SettingError, Settings, seed, setting
from bnn_adv.data import DATASETS
from bnn_adv.evaluation.suites import SUITES, get_suite
from bnn_adv.inference import METHODS
from bnn_adv.networks import NETWORKS
from experiments.launch.config import (
    Values,
    choose_preset,
    define_flags,
    list_names,
    make,
    peek,
    to_json,
)
from experiments.launch.methods import (
    ROWS,
    Row,
    define_method_flags,
    define_network_flags,
    list_settings,
    make_rows,
)
from experiments.launch.presets import PRESETS


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
    """Settings that say on which data, and how, posteriors are trained."""

    dataset: str = setting(
        "digits", f"Data set: {', '.join(DATASETS)}; or package.module of your own."
    )
    data_dir: str = setting(
        "",
        "Folder with a TFDS-prepared set or the IDX files; empty looks in the usual places.",
        is_path=True,
    )
    num_train: int = setting(
        0, "Training examples (a random subset by seed); 0 takes all.", least=0
    )
    num_test: int = setting(
        0, "Test examples that are attacked (the first ones); 0 takes all.", least=0
    )
    seed: int = seed()
    network: str = setting(
        "mlp",
        f"Network: {', '.join(NETWORKS)}; or package.module of your own, or a Flax module as "
        "package.module:Name.",
    )
    checkpoint_every: float = setting(
        60.0, "Seconds between checkpoints of training and of attacks; 0 writes none.", least=0
    )
    precision: str = setting(
        "highest",
        "Matrix products of predictions and attacks: highest is float32; the others are faster "
        "where the device has them, and wrong in the third digit.",
        choices=PRECISIONS,
    )
    draws_on_disk: bool = setting(
        False,
        "Leave draws on disk and stream them to the device, for posteriors beyond its memory.",
    )
    fresh: bool = setting(True, "Also keep fresh draws of methods that can draw anew.")


@dataclasses.dataclass(frozen=True)
class CompareConfig(DataConfig):
    """Settings of ``experiments.compare`` but for those of methods and networks."""

    methods: tuple[str, ...] = setting(
        tuple(ROWS),
        f"Methods to train, of {', '.join({**ROWS, **METHODS})}; or package.module of your own.",
        is_distinct=True,
        least_length=1,
    )
    epsilon: float = setting(0.2, "Radius of the attack, in units of inputs in [0, 1].", least=0)
    norm: str = setting("linf", "Norm of the attack.", choices=tuple(THREATS))
    suites: tuple[str, ...] = setting(
        ("published", "corrected", "strong"),
        f"Suites of attacks to run, of {', '.join(SUITES)}; or package.module:Name.",
        is_distinct=True,
        least_length=1,
    )
    batch_size: int = setting(128, "Images attacked at once.", least=1)
    sample_chunk: int = setting(
        0, "Posterior draws at once; 0 chooses from the network's size.", least=0
    )


class Comparison(NamedTuple):
    """What ``experiments.compare`` is to do.

    config: Settings of the whole.
    rows: The methods with their settings.
    """

    config: CompareConfig
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Return every setting by name of flag."""
        record = to_json(self.config)
        for row in self.rows:
            record |= row.to_json()
        return record


def make_comparison(values: Values) -> Comparison:
    """Return the settings that values by name of flag describe.

    Raises:
      ValueError: A setting is out of range; the message names its flag, its value and what is
        allowed.
    """
    config: CompareConfig = make(CompareConfig, values)
    for name in config.suites:
        get_suite(name)
    rows = make_rows(values, config.methods, config.network)
    check_chunk(config.sample_chunk, rows)
    return Comparison(config, rows)


def check_chunk(sample_chunk: int, rows: Sequence[Row]) -> None:
    """Raise where no method has as many draws as are to be taken at once."""
    draws = {row.name: getattr(row.config, "num_draws", None) for row in rows}
    if all(count is not None and sample_chunk > count for count in draws.values()):
        listed = ", ".join(f"{name}: {count}" for name, count in draws.items())
        problem = f"is larger than the number of draws of every method ({listed})."
        raise ValueError(str(SettingError(f"--sample_chunk={sample_chunk}", problem)))


def check_preset(values: Values) -> None:
    """Raise unless every name of a preset is a setting.

    Raises:
      ValueError: The message lists those that are not.
    """
    known = {*list_names(CompareConfig), *list_settings(tuple(ROWS), tuple(NETWORKS))}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"Unknown settings: {', '.join(unknown)}.")


def define_compare_flags(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags of a comparison, of the methods and networks that a command line names.

    Raises:
      ValueError: It names what does not exist.
    """
    preset = choose_preset(PRESETS, peek(argv, "preset") or "")

    def asked(name: str, default: Any) -> Any:
        given = peek(argv, name)
        return preset.get(name, default) if given is None else given

    methods = asked("methods", tuple(ROWS))
    methods = [name for name in methods.split(",") if name] if isinstance(methods, str) else methods
    network = asked("network", "")
    define_flags(CompareConfig, flag_values=flag_values)
    networks = dict.fromkeys([*NETWORKS, *filter(None, [network])])
    define_network_flags(tuple(networks), flag_values=flag_values)
    own = {name: asked(f"{registry.short_name(name)}.network", "") for name in methods}
    define_method_flags(tuple(dict.fromkeys(methods)), own, flag_values)
