"""What is said about expected loss gradients: tables, numbers beside the paper's, verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bnn_adv.gradient_decay import MONTE_CARLO
from bnn_adv.inference.diagnostics import RHAT_LIMIT, has_mixed
from bnn_adv.report.study import Claim, Table, Verdict

POSTERIOR, PRIOR, SHUFFLED = "posterior", "prior", "shuffled labels"
PUBLISHED_LOSS = "posterior, published loss"
CONDITIONS = (POSTERIOR, PRIOR, SHUFFLED, PUBLISHED_LOSS)
"""What gradients are taken of; keys of ``record["conditions"]``."""

_SLACK = 0.1
"""An interval that reaches further than this below a bound, and above it, decides nothing."""

_NEARLY_ZERO = 0.05
"""A common part, of the largest that there can be, above which nothing is called zero."""

Record = dict[str, Any]
"""An item: ``title``, ``note``, ``diagnostics``, ``falling_share`` and ``conditions``, each of
these a ``summarise``."""


def summary(records: Sequence[Record]) -> str:
    """Return what was found, a sentence an item."""
    sentences = []
    for record in records:
        ours = record["conditions"][POSTERIOR]
        first, last = ours["median_linf"][0], ours["median_linf"][-1]
        chains = " (chains that have not mixed)" if _mixing(record) else ""
        sentences.append(
            f"{record['title']}{chains}: the median l_inf norm of the expected gradient goes from "
            f"{_number(first)} at S = {ours['counts'][0]} to {_number(last)} at "
            f"S = {ours['counts'][-1]} (exponent "
            f"{_interval(ours['exponent_linf']) or 'undefined'}; untrained prior "
            f"{_interval(record['conditions'][PRIOR]['exponent_linf']) or 'undefined'}), and "
            f"{100 * ours['zero_draws'][0]:.0f} % of single gradients are exactly zero."
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
        f"a = {MONTE_CARLO}, trained or not. rms l_2: the same for the root mean square of the l_2 "
        "norm, for which that law is exact. prior: networks with weights from N(0, 1) that saw no "
        "data. shuffled labels: the posterior, each image with another's label. published loss: "
        "the cross-entropy that applies softmax a second time. n/a: the norm is zero at too many "
        "S.",
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
            _interval(found["common"]),
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
            "common part",
        ),
        rows,
        "exactly 0: in float32, in every pixel; such a gradient says that softmax is saturated, "
        f"not that the posterior is robust. Cancellation ratio ||mean g|| / mean ||g|| over {last} "
        "draws: 1 where all draws' gradients are equal, 0 where they cancel. by chance: the ratio "
        "that orthogonal gradients of these norms have. common part: the unbiased share of the "
        "mean square of a gradient that all draws have in common; 0 if the expectation is zero. "
        "Means over images where a gradient is not zero, 95 % bootstrap intervals over images.",
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
    """Return for every item whether gradients fall faster than chance, and whether they cancel."""
    return tuple(
        verdict
        for record in records
        for verdict in (_faster(record), _cancels(record), _images(record))
    )


def _faster(record: Record) -> Verdict:
    ours, prior = (record["conditions"][name]["exponent_linf"] for name in (POSTERIOR, PRIOR))
    zero = record["conditions"][POSTERIOR]["zero_draws"][0]
    measured = (
        f"{record['title']}: median l_inf norm ~ S^a with a = {_interval(ours) or 'undefined'}; "
        f"untrained prior {_interval(prior) or 'undefined'}; mean of independent gradients "
        f"{MONTE_CARLO}. {100 * zero:.1f} % of single gradients are exactly zero." + _mixing(record)
    )
    # Draws of chains that have not mixed resemble each other more than the posterior's do.
    defined = all(math.isfinite(value) for value in (*ours, *prior)) and not _mixing(record)
    holds = _is_below(ours, min(MONTE_CARLO, prior[1])) if defined else None
    return Verdict(
        "Expected loss gradients vanish as S grows (Figs 2, 3): faster than a Monte-Carlo mean of "
        "an untrained network's gradients does",
        measured,
        holds,
    )


def _is_below(estimate: Sequence[float], bound: float) -> bool | None:
    """Return whether an interval lies below a bound; None where it is too wide to say."""
    if estimate[2] < bound:
        return True
    return False if estimate[1] > bound - _SLACK else None


def _cancels(record: Record) -> Verdict:
    found, prior = (record["conditions"][name] for name in (POSTERIOR, PRIOR))
    # Of S independent gradients of zero mean the common part has a standard deviation of
    # sqrt(2) / S at most, also where all images move together: two of them.
    num_draws = found["counts"][-1]
    bound = 2 * math.sqrt(2) / num_draws
    # What gradients of these norms share if all of them point the same way. Where few draws have
    # a gradient at all it is small, and a small common part says nothing.
    most = 1 / (num_draws * found["chance"][0] ** 2)
    low, high = found["common"][1:]
    # With few draws chance explains a large common part as well: that shows nothing.
    says_zero = high <= bound <= _NEARLY_ZERO * most
    holds = False if low > bound else True if says_zero else None
    return Verdict(
        "The expectation of the loss gradient over the posterior is zero (the paper's theorem, in "
        "its limit)",
        f"{record['title']}: the draws share {_interval(found['common']) or 'an undefined part'} "
        f"of the mean square of a gradient (up to {_number(bound)} may be chance; "
        f"{_number(most)} if all pointed the same way; untrained prior "
        f"{_interval(prior['common']) or 'undefined'}); cancellation "
        f"ratio {_interval(found['ratio']) or 'undefined'}, by chance "
        f"{_number(found['chance'][0])}." + _mixing(record),
        None if _mixing(record) else holds,
    )


def _mixing(record: Record) -> str:
    """Return what unmixed chains cannot say, empty where they have mixed or there are none."""
    if has_mixed(record["diagnostics"]) is not False:
        return ""
    rhats = (record["diagnostics"][name] for name in ("median_rhat", "log_density_rhat"))
    predictions, density = map(_number, rhats)
    return (
        f" The chains have not mixed (R-hat {predictions} of predictions, {density} of the log "
        f"density, limit {RHAT_LIMIT}): this holds for these draws, and is open for the posterior."
    )


def _images(record: Record) -> Verdict:
    share, counts = record["falling_share"], record["conditions"][POSTERIOR]["counts"]
    return Verdict(
        "The images of Figs 2, 3, chosen because their norm never rises with S, are typical",
        f"{record['title']}: {100 * share:.0f} % of the test images have a norm that is not zero "
        f"at S = {counts[0]} and does not rise up to S = {counts[-1]}.",
        share > 0.5,
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
