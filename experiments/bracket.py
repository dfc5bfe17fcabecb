"""Attack a posterior that ships with the package, and print what is left beside what is proved.

  python -m experiments.bracket
  python -m experiments.bracket --entry=digits_ensemble --suite=strong

No data set to download and nothing to train: an entry holds its draws, test inputs and their
certificate, which an independent implementation confirms as it is read. See ``bnn_adv.zoo``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

import bnn_adv
from bnn_adv.compute.settings import Settings, seed, setting
from bnn_adv.evaluation.suites import SUITES
from experiments.launch import runtime
from experiments.launch.config import define_flags, make, read_flags
from experiments.launch.entry import start
from experiments.launch.runtime import CacheConfig

FLAGS = flags.FLAGS

_SUITES = tuple(name for name, suite in SUITES.items() if suite.worst_case)


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.bracket``."""

    entry: str = setting("digits_interval", "Posterior.", choices=tuple(bnn_adv.zoo.names()))
    suite: str = setting("fast", "Attacks.", choices=_SUITES)
    seed: int = seed("Seed of the attacks.")


def define_all_flags(argv: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> None:
    """Define the flags that a command line may use."""
    define_flags(Config, flag_values=flag_values)
    define_flags(CacheConfig, flag_values=flag_values)


def main(flag_values: flags.FlagValues = FLAGS) -> Any:
    """Print the bracket that the flags ask for, and return it."""
    given = read_flags(flag_values)
    runtime.cache_programs(make(CacheConfig, given))
    return print_bracket(make(Config, given))


def print_bracket(config: Config) -> Any:
    """Attack an entry, print what it is and its bracket, and return that.

    Raises:
      ZooError: The entry is damaged.
      ContradictionError: An input is certified and broken.
    """
    entry = bnn_adv.zoo.load(config.entry)
    evaluation = bnn_adv.evaluate(
        entry.posterior,
        entry.x,
        entry.y,
        threat=entry.threat,
        suite=config.suite,
        rng_key=jax.random.key(config.seed),
        settings=bnn_adv.EvaluationSettings(num_probe=0, num_curve=0),
        progress=None,
    )
    found = bnn_adv.bracket(evaluation, entry.certificate)
    print(f"{entry.citation}\n\n{len(entry.y)} test inputs that ship with it:\n\n{found}")
    return found


if __name__ == "__main__":
    start(define_all_flags, main, __doc__)
