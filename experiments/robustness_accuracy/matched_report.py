"""What the methods on equal terms say: a table, and mixed HMC against each of the others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bnn_adv.evaluation.metrics import paired_difference
from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.report.table import Table
from experiments.launch.mixed import describe_all, describe_chains
from experiments.launch.significance import LEVEL, holm, sign_test
from experiments.launch.tables import Verdict
from experiments.robustness_accuracy.figures import NAMES as METHOD_NAMES
from experiments.robustness_accuracy.figures import (
    Row,
    corrected_accuracy,
    corrected_metric,
    published_accuracy,
    published_metric,
    strong_accuracy,
)
from experiments.robustness_accuracy.matched import SOURCE

NAMES = METHOD_NAMES | {"hmc": "HMC of long trajectories"}
"""For readers; HMC of the grids has another length."""

CAPTION = (
    "The same network on the same images by every method: softmax robustness under the published "
    "PGD by the published metric, under the corrected PGD on probabilities, and accuracy under the "
    "strong suite. A dot is a repetition."
)
PASSES_CAPTION = (
    "The same network on the same images, against the number of passes over them for which it was "
    "trained: accuracy under the strong suite (filled, solid) and of clean images (hollow, "
    "dotted). A mark is a repetition, a line their mean. Level lines: methods that have no such "
    "number, their means; bands: 95 % intervals over images under the strong suite."
)


class Group(NamedTuple):
    """Networks that differ in their random keys alone.

    dataset: Name of the data set.
    method: One of ``matched.METHODS``.
    hidden: Units of the hidden layer.
    passes: Passes over the data; None where all networks have as many, or the method has none.
    """

    dataset: str
    method: str
    hidden: int
    passes: int | None

    @property
    def words(self) -> str:
        """What readers call it, without data set and width."""
        name = NAMES[self.method]
        return name if self.passes is None else f"{name} of {self.passes} passes"


class _Pair(NamedTuple):
    """Accuracy under the strong suite of mixed HMC and of another method on the same images.

    claim: What is asked.
    words: What was measured.
    change: HMC's minus the other's, with its interval over images; None where not judged.
    p_value: Of the sign test over images.
    """

    claim: str
    words: str
    change: tuple[float, float, float] | None = None
    p_value: float = 1.0


def is_matched(row: Row) -> bool:
    """Return whether a row is one of the methods on equal terms."""
    return bool(row["source"] == SOURCE)


def matched_table(rows: Sequence[Row]) -> Table:
    """Return medians over the repetitions of every method, and whether chains have mixed."""
    lines = []
    groups = list_groups(rows)
    several = any(group.passes for group in groups)
    for group, own in groups.items():
        chains = describe_group(own) if group.method == "hmc" else None
        seconds = [row["diagnostics"].get("training_seconds") for row in own]
        lines.append(
            (
                *(group.dataset, NAMES[group.method], group.hidden),
                *([group.passes] if several else []),
                len(own),
                100 * statistics.median(row["accuracy"] for row in own),
                *(statistics.median(map(m, own)) for m in (published_metric, corrected_metric)),
                *(
                    100 * statistics.median(map(measure, own))
                    for measure in (published_accuracy, corrected_accuracy, strong_accuracy)
                ),
                _range([100 * strong_accuracy(row) for row in own]),
                chains,
                None if None in seconds else statistics.median(seconds),
            )
        )
    header: tuple[str, ...] = ("data", "method", "hidden", *(["passes"] if several else []))
    header += ("networks", "accuracy (%)")
    header += ("published metric", "corrected metric", "published PGD (%)", "corrected PGD (%)")
    header += ("strong (%)", "least to most", "chains", "training (s)")
    return Table(
        "Methods on equal terms",
        header,
        tuple(lines),
        "One network on the same images by every method, medians over repetitions that differ in "
        "their random keys. strong: the worst case of every image, over the suite and the other "
        "two; least to most: over repetitions. SGD's repetitions train side by side and "
        "share their seconds.",
    )


def describe_group(rows: Sequence[Row]) -> str:
    """Return whether all chains of a group have mixed, with numbers, or what one of them lacks."""
    found = [row["diagnostics"] for row in rows]
    failed = [diagnostics for diagnostics in found if has_mixed(diagnostics) is not True]
    return describe_chains(failed[0]) if failed else describe_all(found)


def matched_sentence(rows: Sequence[Row]) -> str:
    """Return the accuracies under the strong suite as a sentence."""
    parts = [
        f"{group.words} on {group.dataset} "
        f"{100 * statistics.median(map(strong_accuracy, own)):.1f} %"
        + (f" (chains: {describe_group(own)})" if group.method == "hmc" else "")
        for group, own in list_groups(rows).items()
    ]
    return f" On equal terms, under the strong suite: {'; '.join(parts)}."


def judge_matched(rows: Sequence[Row]) -> list[Verdict]:
    """Return whether mixed HMC keeps more under the strong suite than each other method.

    Every comparison is a sign test over the images on which the two differ, adjusted for all of
    them (Holm), and speaks of the networks at hand: repetitions are too few for an interval.
    """
    pairs = list(_pairs(rows))
    adjusted = iter(holm([pair.p_value for pair in pairs if pair.change is not None]))
    tests = sum(pair.change is not None for pair in pairs)
    verdicts = []
    for claim, words, change, _ in pairs:
        if change is None:
            verdicts.append(Verdict(claim, words, None))
            continue
        p_value = next(adjusted)
        value, low, high = (100 * number for number in change)
        measured = (
            f"{words}: {value:+.1f} [{low:+.1f}, {high:+.1f}] points over images, p = {p_value:.2g}"
            f" adjusted for {tests} tests"
        )
        holds = value > 0 if p_value <= LEVEL else None
        verdicts.append(Verdict(claim, measured, holds))
    return verdicts


def _pairs(rows: Sequence[Row]) -> list[_Pair]:
    groups, found = list_groups(rows), []
    for group, own in groups.items():
        sampled = groups.get(group._replace(method="hmc", passes=None))
        if group.method == "hmc" or sampled is None:
            continue
        claim = (
            f"{group.dataset}, {group.hidden} units: the posterior by HMC keeps more accuracy "
            f"under the strong suite than {group.words} on the same network and images"
        )
        chains = describe_group(sampled)
        if not all(has_mixed(row["diagnostics"]) for row in sampled):
            found.append(_Pair(claim, chains))
            continue
        ours, theirs = (
            np.mean([row["standing"] for row in each], axis=0) for each in (sampled, own)
        )
        words = (
            f"{100 * ours.mean():.1f} % of {len(sampled)} against {100 * theirs.mean():.1f} % of "
            f"{len(own)} (means over repetitions), {len(ours)} images; chains: {chains}"
        )
        found.append(_Pair(claim, words, paired_difference(theirs, ours), sign_test(ours, theirs)))
    return found


def list_groups(rows: Sequence[Row]) -> dict[Group, list[Row]]:
    """Return the repetitions of every method, by what they share."""
    found: dict[Group, list[Row]] = {}
    for row in rows:
        settings = row["settings"]
        passes = settings.get("num_epochs")
        group = Group(row["dataset"], row["method"], settings["hidden"], passes)
        found.setdefault(group, []).append(row)
    return found


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"
