"""What the methods on equal terms say: a table, and mixed HMC against each of the others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from bnn_adv.evaluation.metrics import paired_difference
from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.report.table import Table
from experiments.launch.mixed import describe_all, describe_chains
from experiments.launch.tables import Verdict
from experiments.robustness_accuracy.correlation import SIGN_LEVEL
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
from experiments.robustness_accuracy.multiplicity import holm

NAMES = METHOD_NAMES | {"hmc": "HMC of long trajectories"}
"""For readers; HMC of the grids has another length."""

CAPTION = (
    "The same network on the same images by every method: softmax robustness under the published "
    "PGD by the published metric, under the corrected PGD on probabilities, and accuracy under the "
    "strong suite. A dot is a repetition."
)


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
    for (dataset, method, hidden), own in _groups(rows).items():
        chains = describe_group(own) if method == "hmc" else None
        seconds = [row["diagnostics"].get("training_seconds") for row in own]
        lines.append(
            (
                *(dataset, NAMES[method], hidden, len(own)),
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
    header: tuple[str, ...] = ("data", "method", "hidden", "networks", "accuracy (%)")
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
        f"{NAMES[method]} on {dataset} {100 * statistics.median(map(strong_accuracy, own)):.1f} %"
        + (f" (chains: {describe_group(own)})" if method == "hmc" else "")
        for (dataset, method, _), own in _groups(rows).items()
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
        holds = value > 0 if p_value <= SIGN_LEVEL else None
        verdicts.append(Verdict(claim, measured, holds))
    return verdicts


def _pairs(rows: Sequence[Row]) -> list[_Pair]:
    groups, found = _groups(rows), []
    for (dataset, method, hidden), own in groups.items():
        sampled = groups.get((dataset, "hmc", hidden))
        if method == "hmc" or sampled is None:
            continue
        claim = (
            f"{dataset}, {hidden} units: the posterior by HMC keeps more accuracy under the strong "
            f"suite than {NAMES[method]} on the same network and images"
        )
        chains = describe_group(sampled)
        if not all(has_mixed(row["diagnostics"]) for row in sampled):
            found.append(_Pair(claim, chains))
            continue
        ours, theirs = (
            np.mean([row["standing"] for row in each], axis=0) for each in (sampled, own)
        )
        differ = int(np.sum(ours != theirs))
        p_value = binomtest(int(np.sum(ours > theirs)), differ).pvalue if differ else 1.0
        words = (
            f"{100 * ours.mean():.1f} % of {len(sampled)} against {100 * theirs.mean():.1f} % of "
            f"{len(own)} (means over repetitions), {len(ours)} images; chains: {chains}"
        )
        found.append(_Pair(claim, words, paired_difference(theirs, ours), float(p_value)))
    return found


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str, int], list[Row]]:
    """Return rows by data set, method and width."""
    found: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        key = (row["dataset"], row["method"], row["settings"]["hidden"])
        found.setdefault(key, []).append(row)
    return found


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"
