"""Settings of ``experiments.certify``: whose posterior, how bounds are made, what attacks it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags

from bnn_adv.certification.settings import METHODS, RULES
from bnn_adv.compute.settings import setting
from bnn_adv.evaluation.suites import SUITES
from bnn_adv.networks import NETWORKS
from experiments.launch.attack_config import PosteriorConfig, Target, make_target
from experiments.launch.config import Values, define_flags, make, peek, to_json
from experiments.launch.methods import define_network_flags, network_prefix

NO_SUITE = "none"


@dataclasses.dataclass(frozen=True)
class CertifyConfig(PosteriorConfig):
    """Settings of ``experiments.certify`` but for those of the network."""

    method: str = setting(
        "crown",
        "How bounds are made: ibp is fast and loose; crown-ibp and crown are tighter; alpha-crown "
        "is the tightest, num_rounds times about one and a half as dear as crown.",
        choices=METHODS,
    )
    rule: str = setting(
        "predictive",
        "What must be right: predictive, the draws' common prediction; every_draw, each by itself.",
        choices=RULES,
    )
    arithmetic: str = setting(
        "float32",
        "Of what it is certified: float32, the network as it is computed; real, the function that "
        "its weights define.",
        choices=("float32", "real"),
    )
    num_rounds: int = setting(8, "Times that alpha-crown chooses lines anew.", least=1)
    num_halvings: int = setting(
        8,
        "Steps of the bisection for every image's largest certified radius, each as dear as the "
        "certificate; 0 leaves it out.",
        least=0,
    )
    most_rows: int = setting(
        1024, "Units of a layer up to which it has linear bounds; larger ones: intervals.", least=0
    )
    referee: bool = setting(
        True,
        "Whether a second implementation, in NumPy, must confirm the certificate. It knows dense "
        "and convolutional networks; wide convolutions take it long.",
    )
    suite: str = setting(
        "fast",
        "Attacks whose result stands beside the certificate: "
        f"{', '.join(SUITES)}, or package.module:Name of your own; {NO_SUITE} leaves them out.",
    )
    num_curve: int = setting(
        200,
        "Images, drawn by seed, whose smallest radius the attacks look for; 0 leaves it out.",
        least=0,
    )
    batch_size: int = setting(64, "Images certified, or attacked, at once.", least=1)


class CertifyTarget(NamedTuple):
    """Whose posterior is certified, and how.

    config: Every setting, with what the posterior's run knows filled in.
    attack: The same posterior, as ``experiments.attack`` would open and attack it.
    """

    config: CertifyConfig
    attack: Target

    def to_json(self) -> dict[str, Any]:
        """Return every setting by name of flag."""
        prefix = network_prefix("", self.config.network)
        # Without attacks there is nothing for these to change.
        left_out = ("suite", "num_curve") if self.config.suite == NO_SUITE else ()
        own = {k: v for k, v in to_json(self.config).items() if k not in left_out}
        return {**own, **to_json(self.attack.network, prefix=prefix)}


def define_certify_flags(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Define the flags of certificates and of networks that a command line may name.

    Raises:
      ValueError: It names a network that does not exist.
    """
    define_flags(CertifyConfig, flag_values=flag_values)
    named = dict.fromkeys([*NETWORKS, *filter(None, [peek(argv, "network")])])
    define_network_flags(tuple(named), flag_values=flag_values)


def make_certify_target(values: Values) -> CertifyTarget:
    """Return the settings that values by name of flag describe, and what the run knows.

    Raises:
      ValueError: A setting is out of range, neither given nor known, or not that of the run.
      FileNotFoundError: There is no such run or file.
    """
    config: CertifyConfig = make(CertifyConfig, values)
    suite = {"suite": SUITES["fast"].name if config.suite == NO_SUITE else config.suite}
    target = make_target({**values, **suite, "num_probe": 0})
    known = ("model", "network", "dataset", "num_test", "norm", "epsilon")
    config = dataclasses.replace(config, **{name: getattr(target.config, name) for name in known})
    return CertifyTarget(config, target)
