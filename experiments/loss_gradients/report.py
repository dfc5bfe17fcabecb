"""What is said about expected loss gradients: tables, numbers beside the paper's, verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.inference.diagnostics import describe_mixing, has_mixed
from bnn_adv.report.table import Table
from bnn_adv.theory.expected_norm import bound_square
from bnn_adv.theory.gradient_decay import MONTE_CARLO
from experiments.launch.mixed import describe_chains
from experiments.launch.tables import Claim, Verdict

POSTERIOR, PRIOR, SHUFFLED = "posterior", "prior", "shuffled labels"
PUBLISHED_LOSS = "posterior, published loss"
CONDITIONS = (POSTERIOR, PRIOR, SHUFFLED, PUBLISHED_LOSS)
"""What gradients are taken of; keys of ``record["conditions"]``."""

Record = dict[str, Any]
"""An item: ``title``, ``note``, ``diagnostics``, ``falling_share`` and ``conditions``, each of
these a ``summarise``."""


def summary(records: Sequence[Record]) -> str:
    """Return what was found, a sentence an item."""
    sentences = []
    for record in records:
        ours = record["conditions"][POSTERIOR]
        first, last = ours["median_linf"][0], ours["median_linf"][-1]
        sentences.append(
            f"{record['title']}: the median l_inf norm of the mean gradient goes from "
            f"{_number(first)} at S = {ours['counts'][0]} to {_number(last)} at "
            f"S = {ours['counts'][-1]}, {100 * ours['zero_draws'][0]:.0f} % of single gradients "
            "are exactly zero; the norm of the expectation, of a single gradient's root mean "
            f"square norm: {_expectation(record, POSTERIOR)}{_mixed(record)}."
        )
    return " ".join(sentences)


def norms_table(records: Sequence[Record]) -> Table:
    """Return the median norm by number of draws, and the exponent of its fall."""
    counts = records[0]["conditions"][POSTERIOR]["counts"]
    rows = tuple(
        (
            record["title"],
            name,
            *(float(norm) for norm in found["median_linf"]),
            _interval(found["exponent_linf"]),
            _interval(found["exponent_l2"]),
        )
        for record in records
        for name, found in record["conditions"].items()
    )
    header = ("item", "gradients of", *(f"S = {count}" for count in counts))
    return Table(
        "Norm of the expected loss gradient against S",
        (*header, "exponent, median l_inf", "exponent, rms l_2"),
        rows,
        "Median over test images of the l_inf norm of the mean of S gradients (geometric mean over "
        "random orders of the draws), and the exponent a of its fall as S^a with a 95 % bootstrap "
        "interval over images and orders. A mean of S independent gradients of zero mean has "
        f"a = {MONTE_CARLO}, trained or not, and the expectation of a posterior's falls no faster: "
        "the mean square of the norm is |mu|^2 + tr(Sigma) / S. The exponent says how far the norm "
        "is from its floor |mu|, and not whether that is zero. rms l_2: the same for the root mean "
        "square of the l_2 norm, for which that law is exact. prior: networks with weights from "
        "N(0, 1) that saw no data. shuffled labels: the posterior, each image with another's "
        "label. published loss: the cross-entropy that applies softmax a second time. n/a: the "
        "norm is zero at too many S.",
    )


def cancellation_table(records: Sequence[Record]) -> Table:
    """Return shares of zeros and how gradients cancel at the largest number of draws."""
    rows = tuple(
        (
            record["title"],
            name,
            _interval([100 * value for value in found["zero_draws"]]),
            100 * found["zero_means"][0],
            100 * found["zero_means"][-1],
            _interval(found["ratio"]),
            float(found["chance"][0]),
            _expectation(record, name),
        )
        for record in records
        for name, found in record["conditions"].items()
    )
    first, last = (records[0]["conditions"][POSTERIOR]["counts"][i] for i in (0, -1))
    return Table(
        "Zeros and cancellation",
        (
            "item",
            "gradients of",
            "single gradients exactly 0 (%)",
            f"images with mean 0 at S = {first} (%)",
            f"at S = {last} (%)",
            "cancellation ratio",
            "by chance",
            "norm of the expectation (%)",
        ),
        rows,
        "exactly 0: in float32, in every pixel; such a gradient says that softmax is saturated, "
        f"not that the posterior is robust. Cancellation ratio ||mean g|| / mean ||g|| over {last} "
        "draws: 1 where all draws' gradients are equal, 0 where they cancel. by chance: the ratio "
        "that orthogonal gradients of these norms have. Both: means over images where a gradient "
        "is not zero, 95 % bootstrap intervals over images. norm of the expectation: |mu|, without "
        "the Monte Carlo part that the norm of a mean has, in per cent of a single gradient's root "
        "mean square norm at the same image (root mean square over images); 95 % interval over "
        "draws, from products of the means of groups of them. widest interval: the run kept no "
        "such means, and the interval is the widest that so many independent draws can have.",
    )


def claims(records: Sequence[Record]) -> tuple[Claim, ...]:
    """Return norms at the smallest and largest number of draws and shares of zeros."""
    result = []
    for record in records:
        item = f"Figs 2, 3 ({record['title']})"
        ours, published = (record["conditions"][name] for name in (POSTERIOR, PUBLISHED_LOSS))
        result += [
            Claim(
                item,
                f"median l_inf norm of the expected gradient, S = {ours['counts'][place]}",
                None,
                published["median_linf"][place],
                ours["median_linf"][place],
                None,
                unit="",
                note=record["note"],
            )
            for place in (0, -1)
        ]
        result.append(
            Claim(
                item,
                "single gradients that are exactly zero",
                None,
                100 * published["zero_draws"][0],
                100 * ours["zero_draws"][0],
                None,
                note=record["note"],
            )
        )
    return tuple(result)


def verdicts(records: Sequence[Record]) -> tuple[Verdict, ...]:
    """Return for every item whether the expectation is zero, and whether its images are typical.

    Every item is another posterior and a claim of its own: intervals are not adjusted for others.
    """
    return tuple(
        verdict for record in records for verdict in (_told_from_zero(record), _are_typical(record))
    )


def _told_from_zero(record: Record) -> Verdict:
    """Return whether the expectation differs from zero; that it is zero no data can show."""
    ours = record["conditions"][POSTERIOR]
    square = _square(record, POSTERIOR)
    is_told = square is not None and square[1] is not None and square[1] > 0
    return Verdict(
        "The expectation of the loss gradient over the posterior is zero (the paper's theorem, in "
        "its limit)",
        f"{record['title']}: norm of the expectation, of a single gradient's root mean square "
        f"norm: {_expectation(record, POSTERIOR)}{_mixed(record)}; untrained prior: "
        f"{_expectation(record, PRIOR)}. Cancellation ratio "
        f"{_interval(ours['ratio']) or 'undefined'}, by chance {_number(ours['chance'][0])}; "
        f"{100 * ours['zero_draws'][0]:.1f} % of single gradients are exactly zero.",
        False if is_told else None,
    )


def _expectation(record: Record, condition: str) -> str:
    """Return the relative norm of the expectation in words, or why it is not judged."""
    square = _square(record, condition)
    if square is None:
        return describe_mixing(record["diagnostics"])
    value, low, high = (math.nan if number is None else number for number in square)
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not judged (no interval over draws)"
    num_draws = record["conditions"][condition]["counts"][-1]
    widest = f", the widest interval of {num_draws} independent draws"
    widest = "" if _is_measured(record, condition) else widest
    if high <= 0:
        return f"not told from zero{widest}"
    upper = _number(100 * math.sqrt(high))
    if low <= 0:
        return f"not told from zero (below {upper} %{widest})"
    centre, lower = (_number(100 * math.sqrt(number)) for number in (value, low))
    return f"{centre} [{lower}, {upper}] %{widest}"


def _has_chains(record: Record) -> bool:
    return "num_chains" in record["diagnostics"]


def _mixed(record: Record) -> str:
    """Return that chains have mixed, with numbers; nothing where that is not so."""
    if not (_has_chains(record) and has_mixed(record["diagnostics"])):
        return ""
    return f" (chains: {describe_chains(record['diagnostics'])})"


def _square(record: Record, condition: str) -> Sequence[float | None] | None:
    """Return |mu|^2 / E|g|^2 with its interval over draws; None where chains cannot say."""
    found, diagnostics = record["conditions"][condition], record["diagnostics"]
    if condition != PRIOR and _has_chains(record) and has_mixed(diagnostics) is not True:
        return None
    if _is_measured(record, condition):
        square: Sequence[float | None] = found["square"]
        return square
    if found.get("common") is None or found["common"][0] is None:
        return (None, None, None)
    # Records of runs before products of groups were kept. Chains are not judged from them: draws
    # of one chain have products that do not vanish.
    if condition != PRIOR and _has_chains(record):
        return (None, None, None)
    return bound_square(found["common"][0], found["counts"][-1])


def _is_measured(record: Record, condition: str) -> bool:
    return record["conditions"][condition].get("square") is not None


def _are_typical(record: Record) -> Verdict:
    share, counts = record["falling_share"], record["conditions"][POSTERIOR]["counts"]
    num = record["conditions"][POSTERIOR]["num_inputs"]
    low, high = wilson_interval(share, num)
    # The rule is one of draws, which are there whether or not their chains have mixed.
    whose = ""
    if _has_chains(record):
        whose = _mixed(record) or ", of draws of chains not shown to have mixed"
    return Verdict(
        "The images of Figs 2, 3, chosen because their norm never rises with S, are typical (more "
        "than half of all)",
        f"{record['title']}: {100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of {num} test "
        f"images have a norm that is not zero at S = {counts[0]} and does not rise up to "
        f"S = {counts[-1]}{whose}.",
        True if low > 0.5 else False if high < 0.5 else None,
    )


def _interval(estimate: Sequence[float | None]) -> str | None:
    value, low, high = (math.nan if number is None else number for number in estimate)
    if not math.isfinite(value):
        return None
    if not (math.isfinite(low) and math.isfinite(high)):
        return _number(value)
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float) -> str:
    return f"{value:.3g}"
