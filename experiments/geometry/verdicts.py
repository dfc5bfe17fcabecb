"""What was found of the theory: lemmas and their consequence, each held against measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.theory.averages import share_interval
from bnn_adv.theory.trend import Interval, follow, log_slope, t_interval
from experiments.launch.mixed import describe_all
from experiments.launch.tables import Verdict

_CANCELS = 0.1
"""A share of the gradient below this counts as cancelled, above it as left."""

_STAYS = 0.1
"""A norm that follows the loss with a power below this does not vanish with it."""

_LATE = 3
"""Looks at the end of training over which powers are measured: the lemmas speak of its end."""

Rows = Sequence[Mapping[str, Any]]


def judge_convergence(rows: Rows) -> list[Verdict]:
    """Return what was found of section 9: does loss fall with width, data and steps?

    Each is followed with the other two at their largest, over all seeds.
    """
    widths, sizes = (sorted({row[name] for row in rows}) for name in ("width", "num_data"))
    at = {(row["width"], row["num_data"]): np.asarray(row["test_loss"]) for row in rows}
    cases = (
        ("width", "hidden units", widths, [at[width, sizes[-1]][:, -1] for width in widths]),
        ("data", "points", sizes, [at[widths[-1], size][:, -1] for size in sizes]),
        ("training", "steps", rows[0]["steps"], at[widths[-1], sizes[-1]].T),
    )
    verdicts = []
    for name, unit, levels, losses in cases:
        if len(levels) > 1:
            trend = follow(np.asarray(losses))
            verdicts.append(
                Verdict(
                    "Section 9: the loss on the manifold falls towards zero with every step of "
                    f"{name}",
                    f"{', '.join(map(str, levels))} {unit}: held-out loss {trend}",
                    trend.falls,
                )
            )
    return verdicts


def judge_dimension(rows: Rows) -> list[Verdict]:
    """Return what was found of Lemma 3 and Corollary 2.

    A part that vanishes with the loss follows it with a positive power: the slope of its logarithm
    against the loss's over the last three looks, one a seed and support.
    """
    squared = [row for row in rows if row["loss"] == "squared"]
    full = [row for row in squared if row["has_full_dimension"]]
    lower = [row for row in squared if not row["has_full_dimension"]]
    every_lower = [row for row in rows if not row["has_full_dimension"]]
    cases = (
        (
            full,
            "score",
            "whole",
            "Lemma 3: on a support of full dimension the gradient at interior points vanishes "
            "with the loss",
            True,
        ),
        (
            lower,
            "score",
            "tangent",
            "Corollary 2: on a support of lower dimension the tangent part vanishes with the loss",
            True,
        ),
        (
            lower,
            "score",
            "normal",
            "Corollary 2: and the normal part of the function's gradient does not",
            False,
        ),
        (
            every_lower,
            "loss",
            "normal",
            "Corollary 2, to the letter: the normal part of the loss gradient does not vanish "
            "with the loss (it must, for zero is the least loss)",
            False,
        ),
    )
    verdicts = []
    for chosen, kind, part, claim, vanishes in cases:
        if not chosen:
            continue
        slopes = t_interval([slope for row in chosen for slope in _slopes(row, kind, part)])
        ends = [geometric(part_norms(row, kind, part)[:, -1]) for row in chosen]
        falls = _sign(slopes, _STAYS)
        verdicts.append(
            Verdict(
                claim,
                f"norm goes as loss^{slopes}; at the end {min(ends):.2g} to {max(ends):.2g} over "
                f"{len(chosen)} supports",
                falls if vanishes or falls is None else not falls,
            )
        )
    if full and lower:
        inside, outside = (
            t_interval([value for row in chosen for value in row["fall"]])
            for chosen in (full, lower)
        )
        verdicts.append(
            Verdict(
                "Lemma 3: attacks inside a ball that lies in the support change less than the same "
                "attacks where the support has lower dimension",
                f"median fall of f_y: {inside} on full, {outside} on lower dimension",
                True if inside.high < outside.low else False if inside.low > outside.high else None,
            )
        )
    return verdicts


def judge_mirror(rows: Rows) -> Verdict:
    """Return how often Lemma 4's weights were found."""
    success = np.concatenate([row["success"] for row in rows])
    low, high = wilson_interval(float(success.mean()), len(success))
    worst = max(max(row["max_difference"]) for row in rows)
    odds = np.median(np.concatenate([row["max_log_odds"] for row in rows]))
    error = np.median(np.concatenate([row["relative_error"] for row in rows]))
    return Verdict(
        "Lemma 4: other weights have the same function on the manifold and the opposite normal "
        "gradient at a given point (found in more than half of the trials)",
        f"constructed for {success.sum()} of {len(success)} networks and points "
        f"({100 * low:.0f} to {100 * high:.0f} %): change of a probability below 1e-2, cosine "
        f"below -0.95; largest change {worst:.1g}; medians: change of log-odds {odds:.1g}, "
        f"|v' + v| / |v| {error:.1g}",
        # A search that fails is no evidence that there is nothing to be found.
        True if low > 0.5 else None,
    )


def judge_means(rows: Rows) -> list[Verdict]:
    """Return whether normal gradients cancel in the mean over each kind of posterior.

    Of chains only settings count at which those of every repetition have mixed.
    """
    verdicts = []
    for method in ("hmc", "vi", "ensemble"):
        for part, where in (
            ("within", "in the subspace that holds the manifold"),
            ("across", "across that subspace"),
        ):
            name = f"score_{part}"
            own = [r for r in rows if r["method"] == method and name in r]
            if own:
                prior = [r for r in rows if r["method"] == "prior" and name in r]
                verdicts.append(_judge_mean(own, prior, part, f"{method}, directions {where}"))
    return verdicts


def _judge_mean(own: Rows, prior: Rows, part: str, what: str) -> Verdict:
    kept = keep_mixed(own)
    chosen = [r for r in kept if r["manifold"] != "moons-axes"]
    axes = [r for r in kept if r["manifold"] == "moons-axes" and part == "across"]
    claim = (
        "Consequence of Lemma 4: normal gradients cancel in the mean, to less than "
        f"{100 * _CANCELS:.0f} % ({what})"
    )
    left_out = _left_out(own, kept)
    if not chosen:
        return Verdict(claim, f"unmixed: not judged ({left_out})", None)
    score, loss = (_over_seeds(chosen, f"{kind}_{part}") for kind in ("score", "loss"))
    left = _sign(score, _CANCELS)
    measured = f"share of the log-odds' gradient left over: {_words(score)}, of the loss's: {loss}"
    if axes:
        measured += f"; in a plane of two axes: {_words(_over_seeds(axes, f'score_{part}'))}"
    if prior:
        control = _over_seeds(prior, f"score_{part}")
        measured += f"; of the prior, which saw no data: {_words(control)}"
    measured += f"; one hidden layer of {_range(chosen, 'width')} units"
    measured += f", {_range(chosen, 'num_data')} points"
    # Ensembles are trained without a prior.
    measured += "" if chosen[0]["method"] == "ensemble" else ", prior N(0, 1)"
    if chosen[0]["method"] == "hmc":
        measured += f"; chains: {describe_all([row['diagnostics'] for row in kept])}"
    return Verdict(
        claim,
        measured + (f"; {left_out}" if left_out else ""),
        None if left is None else not left,
    )


def keep_mixed(rows: Rows) -> list[Mapping[str, Any]]:
    """Return rows of settings at which every repetition's chains have mixed, or there are none."""
    unmixed = {_setting(row) for row in rows if not _can_be_judged(row)}
    return [row for row in rows if _setting(row) not in unmixed]


def _left_out(own: Rows, kept: Rows) -> str:
    """Return how many settings are left out because of their chains, empty for none."""
    every, judged = ({_setting(row) for row in rows} for rows in (own, kept))
    if len(judged) == len(every):
        return ""
    posteriors = sum(not _can_be_judged(row) for row in own)
    return (
        f"{len(every) - len(judged)} of {len(every)} settings left out: the chains of {posteriors} "
        f"of {len(own)} posteriors have not mixed"
    )


def _can_be_judged(row: Mapping[str, Any]) -> bool:
    return row["method"] != "hmc" or has_mixed(row["diagnostics"]) is True


def _setting(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("manifold", "method", "width", "num_data"))


def _range(rows: Rows, name: str) -> str:
    values = sorted({row[name] for row in rows})
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _words(share: Interval) -> str:
    return f"{share}{', not told from zero' if share.low <= 0 <= share.high else ''}"


def _over_seeds(rows: Rows, name: str) -> Interval:
    """Return the share with its interval over repetitions, which are independent.

    A repetition's square is the mean over manifolds and sizes.
    """
    seeds = sorted({row["seed"] for row in rows})
    return share_interval(
        [np.mean([r[name]["square"] for r in rows if r["seed"] == seed]) for seed in seeds]
    )


def part_norms(row: Mapping[str, Any], kind: str, part: str) -> np.ndarray:
    """Return norms of a part of the gradient of score or loss, [seeds, looks]."""
    tangent, normal = (np.asarray(row[f"{kind}_{name}"]) for name in ("tangent", "normal"))
    return {"tangent": tangent, "normal": normal, "whole": np.hypot(tangent, normal)}[part]


def _slopes(row: Mapping[str, Any], kind: str, part: str) -> list[float]:
    norms = np.maximum(part_norms(row, kind, part), 1e-30)[:, -_LATE:]
    losses = np.asarray(row["test_loss"])[:, -_LATE:]
    return [log_slope(x, y) for x, y in zip(losses, norms, strict=True)]


def _sign(interval: Interval, threshold: float) -> bool | None:
    """Return whether a whole interval lies above (True) or below (False) a threshold."""
    if interval.low > threshold:
        return True
    return False if interval.high < threshold else None


def geometric(values: Any) -> float:
    """Return the geometric mean of non-negative numbers."""
    return float(np.exp(np.log(np.maximum(values, 1e-30)).mean()))
