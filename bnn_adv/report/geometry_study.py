"""What the experiment on the theory says: tables, verdicts, and captions of its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnn_adv.geometry.averages import Interval, log_slope, t_interval
from bnn_adv.metrics import wilson_interval
from bnn_adv.report import geometry as figures
from bnn_adv.report.study import Plot, Study, Table, Verdict

_CANCELS = 0.1
"""A share of the gradient below this counts as cancelled, above it as left."""

_STAYS = 0.1
"""A norm that follows the loss with a power below this does not vanish with it."""

_LATE = 3
"""Looks at the end of training over which powers are measured: the lemmas speak of its end."""

Rows = Sequence[Mapping[str, Any]]


def build_study(data: dict[str, Any]) -> Study:
    """Return the study of what ``experiments.geometry`` measured.

    Args:
      data: ``convergence``, ``dimension`` and ``posteriors`` (rows), ``mirror`` (``rows`` and
        ``field``), as JSON values.
    """
    squared = [row for row in data["dimension"] if row["loss"] == "squared"]
    verdicts = (
        *judge_convergence(data["convergence"]),
        *judge_dimension(data["dimension"]),
        judge_mirror(data["mirror"]["rows"]),
        *judge_means(data["posteriors"]),
    )
    base = data["posteriors"][0]
    same = [
        row
        for row in data["posteriors"]
        if (row["width"], row["num_data"]) == (base["width"], base["num_data"])
    ]
    swept = [row for row in data["posteriors"] if row["manifold"] == "moons-embedded"]
    plots = [
        Plot("convergence", figures.convergence_figure(data["convergence"]), _CONVERGENCE),
        Plot("dimension", figures.dimension_figure(squared), _DIMENSION),
        Plot("mirror", figures.mirror_figure(data["mirror"]["rows"]), _MIRROR),
    ]
    field = figures.field_figure(data["mirror"]["field"])
    if field is not None:
        plots.append(Plot("field", field, _FIELD))
    plots.append(Plot("means", figures.means_figure(same, _panels(same)), _MEANS))
    if len({(row["width"], row["num_data"]) for row in swept}) > 1:
        plots.append(Plot("sweep", figures.sweep_figure(swept), _SWEEP))
    return Study(
        title="The theory of the supplement, measured",
        summary=_SUMMARY,
        tables=(
            _dimension_table(data["dimension"]),
            _mirror_table(data["mirror"]["rows"]),
            _means_table(data["posteriors"]),
        ),
        plots=tuple(plots),
        verdicts=verdicts,
        data=data,
    )


def judge_convergence(rows: Rows) -> list[Verdict]:
    """Return what was found of section 9: does loss fall with width, data and steps?"""
    widths, sizes = ({row[name] for row in rows} for name in ("width", "num_data"))
    at = {(row["width"], row["num_data"]): np.asarray(row["test_loss"]) for row in rows}
    most = at[max(widths), max(sizes)]
    steps = rows[0]["steps"]
    pairs = [("more steps", most[:, 0], f"{steps[0]} to {steps[-1]} steps")]
    if len(sizes) > 1:
        start = at[max(widths), min(sizes)][:, -1]
        pairs.insert(0, ("more data", start, f"{min(sizes)} to {max(sizes)} points"))
    if len(widths) > 1:
        start = at[min(widths), max(sizes)][:, -1]
        pairs.insert(0, ("wider networks", start, f"{min(widths)} to {max(widths)} hidden units"))
    verdicts = []
    for name, start, change in pairs:
        ratio = t_interval(np.log10(start / most[:, -1]))
        verdicts.append(
            Verdict(
                f"Section 9: {name} bring the loss on the manifold to zero",
                f"{change}: held-out loss falls from {_geometric(start):.2g} to "
                f"{_geometric(most[:, -1]):.2g}, by 10^{ratio}",
                _sign(ratio, 0.0),
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
        ends = [_geometric(_part(row, kind, part)[:, -1]) for row in chosen]
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
        "gradient at a given point",
        f"constructed for {success.sum()} of {len(success)} networks and points "
        f"({100 * low:.0f} to {100 * high:.0f} %): change of a probability below 1e-2, cosine "
        f"below -0.95; largest change {worst:.1g}; medians: change of log-odds {odds:.1g}, "
        f"|v' + v| / |v| {error:.1g}",
        bool(success.mean() > 0.9) if low > 0.5 or success.mean() < 0.9 else None,
    )


def judge_means(rows: Rows) -> list[Verdict]:
    """Return whether normal gradients cancel in the mean over each kind of posterior."""
    verdicts = []
    for method in ("hmc", "vi", "ensemble"):
        for part, where in (
            ("within", "in the subspace that holds the manifold"),
            ("across", "across that subspace"),
        ):
            name = f"score_{part}"
            own = [r for r in rows if r["method"] == method and name in r]
            chosen = [r for r in own if r["manifold"] != "moons-axes"]
            axes = [r for r in own if r["manifold"] == "moons-axes" and part == "across"]
            if not chosen:
                continue
            share = t_interval(_per_seed(chosen, name))
            loss = t_interval(_per_seed(chosen, f"loss_{part}"))
            prior = [r for r in rows if r["method"] == "prior" and name in r]
            control = t_interval(_per_seed(prior, name)) if prior else None
            left = _sign(share, _CANCELS)
            aligned = t_interval(_per_seed(axes, name)) if axes else None
            verdicts.append(
                Verdict(
                    f"Consequence of Lemma 4: normal gradients cancel in the mean ({method}, "
                    f"directions {where})",
                    f"share of the log-odds' gradient left over: {share}, of the loss's: {loss}"
                    + (f"; in a plane of two axes: {aligned}" if aligned else "")
                    + (f"; of the prior, which saw no data: {control}" if control else ""),
                    None if left is None else not left,
                )
            )
    return verdicts


def _per_seed(rows: Rows, name: str) -> list[float]:
    """Return the mean over manifolds and sizes for every repetition: these are independent."""
    seeds = sorted({row["seed"] for row in rows})
    return [float(np.mean([r[name]["share"] for r in rows if r["seed"] == s])) for s in seeds]


def _part(row: Mapping[str, Any], kind: str, part: str) -> np.ndarray:
    tangent, normal = (np.asarray(row[f"{kind}_{name}"]) for name in ("tangent", "normal"))
    return {"tangent": tangent, "normal": normal, "whole": np.hypot(tangent, normal)}[part]


def _slopes(row: Mapping[str, Any], kind: str, part: str) -> list[float]:
    norms = np.maximum(_part(row, kind, part), 1e-30)[:, -_LATE:]
    losses = np.asarray(row["test_loss"])[:, -_LATE:]
    return [log_slope(x, y) for x, y in zip(losses, norms, strict=True)]


def _sign(interval: Interval, threshold: float) -> bool | None:
    """Return whether a whole interval lies above (True) or below (False) a threshold."""
    if interval.low > threshold:
        return True
    return False if interval.high < threshold else None


def _geometric(values: Any) -> float:
    return float(np.exp(np.log(np.maximum(values, 1e-30)).mean()))


def _panels(rows: Rows) -> list[tuple[str, str, str]]:
    wanted = [
        ("moons in the plane", "moons", "within"),
        ("moons embedded,\nin their plane", "moons-embedded", "within"),
        ("moons embedded,\nacross the plane", "moons-embedded", "across"),
    ]
    present = {row["manifold"] for row in rows}
    return [panel for panel in wanted if panel[1] in present]


def _dimension_table(rows: Rows) -> Table:
    header = (
        *("support", "d", "full dimension", "loss trained", "held-out loss"),
        *("score, tangent", "score, normal", "loss, tangent", "loss, normal"),
        *("fall in the ball", "broken (%)"),
    )
    cells = [
        (
            *(row["support"], row["dim"], "yes" if row["has_full_dimension"] else "no"),
            *(row["loss"].replace("_", " "), _geometric(np.asarray(row["test_loss"])[:, -1])),
            *(
                _geometric(_part(row, kind, part)[:, -1]) if np.any(_part(row, kind, part)) else 0.0
                for kind in ("score", "loss")
                for part in ("tangent", "normal")
            ),
            *(float(np.mean(row["fall"])), 100 * float(np.mean(row["broken"]))),
        )
        for row in rows
    ]
    return Table(
        "Gradients at the end of training (Lemma 3, Corollary 2)",
        header,
        tuple(cells),
        "Medians over points, geometric means over seeds. Score: f_y for the squared loss, the "
        "log-odds of the label for cross-entropy. On a tube, tangent and normal are those of the "
        "curve inside. Fall: how far the score can be lowered in a ball of the tube's radius; "
        "broken: points whose class changes there.",
    )


def _mirror_table(rows: Rows) -> Table:
    cells = []
    for row in rows:
        success = row["success"]
        medians = [
            float(np.median(row[name]))
            for name in ("cosine", "relative_error", "max_difference", "max_log_odds")
        ]
        changes = [float(np.median(row[name])) for name in ("weight_change", "log_prior_change")]
        share = 100 * float(np.mean(success))
        cells.append((row["manifold"], row["dim"], len(success), share, *medians, *changes))
    return Table(
        "Weights constructed by the recipe of Lemma 4",
        (
            *("manifold", "d", "constructions", "successes (%)", "cosine", "|v' + v| / |v|"),
            *("max change of p", "max change of log-odds", "|w' - w| / |w|", "log prior ratio"),
        ),
        tuple(cells),
        "Medians over networks and points. Success: on held-out points of the manifold no "
        "probability changes by 1e-2, and the cosine of the two normal gradients is below -0.95. "
        "The last column is log p(w') - log p(w) under N(0, 1), in nats: below zero, w' has less "
        "posterior mass than w, and the two need not cancel in a mean.",
    )


def _means_table(rows: Rows) -> Table:
    keys = list(
        dict.fromkeys((r["manifold"], r["method"], r["width"], r["num_data"]) for r in rows)
    )
    cells = []
    for key in keys:
        chosen = [r for r in rows if (r["manifold"], r["method"], r["width"], r["num_data"]) == key]
        shares = [
            str(t_interval([r[name]["share"] for r in chosen])) if name in chosen[0] else None
            for name in ("score_tangent", "score_within", "score_across", "loss_within")
        ]
        rhats = [r["max_rhat"] for r in chosen if r.get("max_rhat") is not None]
        accuracy = 100 * float(np.mean([r["accuracy"] for r in chosen]))
        cells.append((*key, accuracy, max(rhats) if rhats else None, *shares))
    return Table(
        "What is left of gradients in the mean over a posterior",
        (
            *("manifold", "method", "width", "points", "accuracy (%)", "largest R-hat"),
            *("tangent", "normal, within", "normal, across", "loss: normal, within"),
        ),
        tuple(cells),
        "|E g| / E|g| with 95 % intervals over repetitions (other data, points and chains): 0 if "
        "draws cancel, 1 if they agree. Of the gradient of the log-odds, in the last column of the "
        "loss. Within: normal directions in the plane of the curve; across: those perpendicular "
        "to the plane.",
    )


_SUMMARY = (
    "The lemmas on gradients along and across a data manifold, tested on manifolds whose tangent "
    "spaces are known, and what follows from them for the mean over a posterior. Lemma 4 says that "
    "for every network there is another with the opposite normal gradient; whether the two have "
    "equal posterior mass, so that they cancel in a mean, is a question of its own. Across a "
    "subspace that holds the data it has an exact answer: reflecting the first layer's weights "
    "keeps likelihood and Gaussian prior, and the mean is zero, trained or not. Inside the "
    "subspace no such symmetry exists, and the last verdicts say what was measured."
)
_CONVERGENCE = (
    "Loss and norms of the loss gradient's parts on the noise-free half moons, one hidden layer, "
    "squared loss: against width (most data), against data (widest network) and against steps "
    "(both). Lines: geometric means over seeds; bands: all seeds. If section 9 holds, everything "
    "falls to the right."
)
_DIMENSION = (
    "Norms of the tangent and the normal part of gradients against the held-out loss, during "
    "training with the squared loss; training goes from right to left. Top: gradient of the "
    "function f_y. On supports of full dimension both parts fall with the loss; on those of lower "
    "dimension only the tangent part does. Bottom: gradient of the loss, both parts of which fall "
    "everywhere, because zero is the least value of the loss."
)
_MIRROR = (
    "Every dot is a network and a point for which weights of Lemma 4 were constructed; left is "
    "better. Left: largest change of a probability on held-out points of the manifold, with the "
    "limit of success (dashed). Middle: the same for the log-odds, which saturation cannot hide. "
    "Right: distance of the new normal gradient from minus the old one. Green: success."
)
_FIELD = (
    "A network on the half moons. Left: tangent and normal part of the gradient of the label's "
    "log-odds at points of the manifold. Right: the normal part under the trained weights w and "
    "under constructed weights w', which give the same function on the manifold and the opposite "
    "normal gradient at the circled point."
)
_MEANS = (
    "Norm of the mean normal gradient over S draws, relative to the mean norm of a draw's: top "
    "the gradient of the log-odds, bottom of the loss. Dashed: S^(-1/2), which gradients without "
    "a common direction follow. Grey: networks drawn from the prior, which saw no data. A curve "
    "that leaves the dashed line and turns flat has a mean that does not vanish. Bands: all "
    "repetitions."
)
_SWEEP = (
    "Share of the normal gradient of the log-odds that is left in the mean, embedded half moons, "
    "against width and data. Solid and filled: normal directions in the plane of the moons; dashed "
    "and hollow: directions across it. 0: all cancels; 1: all draws agree. Bands: all repetitions."
)
