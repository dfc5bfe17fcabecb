"""Find measurements among the rows of ``measure``, and what speaks against believing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.inference.diagnostics import describe_mixing, has_mixed
from experiments.bayesian_gain.architectures import describe
from experiments.bayesian_gain.trainings import TRAININGS

ENERGY_VARIANCE = 5e-4
"""Variance of the energy error per parameter above which steps without a Metropolis test are too
long; what BlackJAX's tuner aims at."""
Row = dict[str, Any]
"""A posterior that was attacked, of one repetition, as JSON values."""


class Shown(NamedTuple):
    """A method as tables and figures show it.

    label: What it is called.
    training: What was trained.
    draws: Draws that predict.
    """

    label: str
    training: str
    draws: int


class Setting(NamedTuple):
    """All rows of one data set and network.

    dataset: Name of the data set.
    network: Name of the network.
    hidden: Units of its hidden dense layer.
    rows: Its rows.
    """

    dataset: str
    network: str
    hidden: int
    rows: list[Row]

    @property
    def words(self) -> str:
        """Data set and network, in words."""
        names = {"mnist": "MNIST", "fashion_mnist": "Fashion MNIST"}
        return f"{names.get(self.dataset, self.dataset)}, {describe(self.network, self.hidden)}"

    def find(self, training: str, draws: int, *, kind: str = "known") -> list[Row]:
        """Return the rows of one posterior, repetition after repetition."""
        found = [
            row
            for row in self.rows
            if (row["training"], row["draws"], row["kind"]) == (training, draws, kind)
        ]
        return sorted(found, key=lambda row: int(row["repeat"]))

    def list_draws(self, training: str, *, kind: str = "known") -> list[int]:
        """Return the numbers of draws of a training that were attacked, ascending."""
        own = (r for r in self.rows if r["training"] == training and r["kind"] == kind)
        return sorted({row["draws"] for row in own})


def list_settings(rows: Sequence[Row]) -> list[Setting]:
    """Return data sets and networks in the order of the rows."""
    names = dict.fromkeys(_name(row) for row in rows)
    return [Setting(*name, [row for row in rows if _name(row) == name]) for name in names]


def _name(row: Row) -> tuple[str, str, int]:
    return row["dataset"], row["network"], row["hidden"]


def list_shown(config: Any) -> list[Shown]:
    """Return the methods that are attacked at every radius."""
    counts = {"sgd": (1, config.members, config.num_draws), "map": (1, config.members)}
    single = {"sgd": "one network", "map": "MAP"}
    return [
        Shown(label(name, draws, single), name, draws)
        for name in config.methods
        for draws in dict.fromkeys(counts.get(name, (config.num_draws,)))
    ]


def label(training: str, draws: int, single: dict[str, str]) -> str:
    """Return what a method of so many draws is called."""
    if training in single:
        if draws == 1:
            return single[training]
        return f"{'' if training == 'sgd' else 'MAP '}ensemble of {draws}"
    return TRAININGS[training].words


def right(rows: Sequence[Row], epsilon: float | None) -> np.ndarray:
    """Return which images are right, [R, N]: within a radius, or clean ones for None.

    Of fresh draws how often each is right, in [0, 1].

    Raises:
      ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("No row was measured of what is asked for.")
    found = []
    for row in rows:
        if row["kind"] == "fresh":
            found.append(row["clean_right" if epsilon is None else "right"])
        else:
            least = -1 if epsilon is None else row["epsilons"].index(epsilon)
            found.append([count > least for count in row["withstood"]])
    return np.asarray(found, np.float64)


def at_radius(rows: Sequence[Row], epsilon: float) -> list[Row]:
    """Return the rows that were measured within a radius."""
    return [row for row in rows if epsilon in row["epsilons"]]


def list_signs(rows: Sequence[Row]) -> dict[str, int]:
    """Return how often each sign of masking was raised, over radii and repetitions."""
    names = [
        check["name"]
        for row in rows
        for signs in row.get("signs", ())
        for check in signs["checks"]
        if check["raised"]
    ]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def count_looks(rows: Sequence[Row]) -> int:
    """Return how often signs of masking were looked for, over radii and repetitions."""
    return sum(len(row.get("signs", ())) for row in rows)


def describe_signs(rows: Sequence[Row]) -> str | None:
    """Return the signs that were raised, in words; None where nobody looked."""
    looks = count_looks(rows)
    if not looks:
        return None
    found = [f"{name} ({count} of {looks})" for name, count in list_signs(rows).items()]
    return ", ".join(found) or "none"


def describe_chains(rows: Sequence[Row]) -> str | None:
    """Return whether chains have mixed, by repetition; None for methods without chains."""
    if not rows or not TRAININGS[rows[0]["training"]].has_chains:
        return None
    text = "; ".join(dict.fromkeys(describe_mixing(row["diagnostics"]) for row in rows))
    if rows[0]["training"] == "mclmc" and (variance := _largest_variance(rows)) is not None:
        text += f", energy errors of variance {variance:.1e} a parameter"
    return text


def list_doubts(setting: Setting, shown: Sequence[Shown]) -> list[str]:
    """Return why a claim about methods is not judged; nothing where it is.

    Chains that are not shown to have mixed say nothing of the posterior, nor do those without a
    Metropolis test whose energy errors are large; attacks that show a sign
    of masking may have been blind. Where a number of draws was not looked at itself, the signs are
    those of all the others of its training that were.

    Args:
      setting: Data set and network.
      shown: What the claim is about.
    """
    found = []
    for one in dict.fromkeys(shown):
        rows = setting.find(one.training, one.draws)
        if TRAININGS[one.training].has_chains and not all(
            has_mixed(row["diagnostics"]) for row in rows
        ):
            found.append(f"{one.label}: {describe_chains(rows)}")
        if problem := _describe_steps(one.training, rows):
            found.append(f"{one.label}: {problem}")
        if not count_looks(rows):
            rows = [row for row in setting.rows if row["training"] == one.training]
        if not count_looks(rows):
            found.append(f"{one.label}: signs of masking were not looked for")
        elif signs := list_signs(rows):
            found.append(f"{one.label}: signs of masking raised ({', '.join(signs)})")
    return found


def _describe_steps(training: str, rows: Sequence[Row]) -> str | None:
    """Return what forbids to believe chains without a Metropolis test; None of other methods."""
    if training != "mclmc":
        return None
    undone = sum(row["diagnostics"].get("num_divergent") or 0 for row in rows)
    if undone:
        # BlackJAX counts the energy error of an undone step as zero.
        return f"{undone} steps were undone, as numbers were not finite"
    variance = _largest_variance(rows)
    if variance is None:
        return "energy errors were not recorded"
    if variance > ENERGY_VARIANCE:
        return f"steps are too long (variance of energy errors {variance:.1e} a parameter)"
    return None


def _largest_variance(rows: Sequence[Row]) -> float | None:
    """Return the largest variance of energy errors per parameter; None where one is unknown."""
    found = [row["diagnostics"].get("energy_error_variance") for row in rows]
    return None if None in found else max(found, default=None)
