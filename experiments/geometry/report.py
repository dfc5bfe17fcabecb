"""What the experiment on the theory says: tables, verdicts, and captions of its figures."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.report.table import Table
from bnn_adv.theory.averages import share_interval
from experiments.geometry import figures
from experiments.geometry.verdicts import (
    Rows,
    geometric,
    judge_convergence,
    judge_dimension,
    judge_means,
    judge_mirror,
    part_norms,
)
from experiments.launch.tables import Plot, Study


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
            *(row["loss"].replace("_", " "), geometric(np.asarray(row["test_loss"])[:, -1])),
            *(
                geometric(part_norms(row, kind, part)[:, -1])
                if np.any(part_norms(row, kind, part))
                else 0.0
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
            str(share_interval([r[name]["square"] for r in chosen])) if name in chosen[0] else None
            for name in ("score_tangent", "score_within", "score_across", "loss_within")
        ]
        accuracy = 100 * float(np.mean([r["accuracy"] for r in chosen]))
        cells.append((*key, accuracy, *_mixing(chosen), *shares))
    return Table(
        "What is left of gradients in the mean over a posterior",
        (
            *("manifold", "method", "width", "points", "accuracy (%)"),
            *("largest R-hat", "smallest ESS", "mixed"),
            *("tangent", "normal, within", "normal, across", "loss: normal, within"),
        ),
        tuple(cells),
        "|E g| / E|g| with 95 % intervals over repetitions (other data, points and chains): 0 if "
        "draws cancel, 1 if they agree. Roots of unbiased squares, with their sign: below zero "
        "where products of independent draws are negative, as chance makes them where nothing is "
        "left. Of the gradient of the log-odds, in the last column of the loss. Within: normal "
        "directions in the plane of the curve; across: those perpendicular to the plane. Mixed: "
        "repetitions whose chains have mixed, by R-hat and effective sample size (ESS).",
    )


def _mixing(rows: Rows) -> tuple[float | None, float | None, str | None]:
    """Return the worst R-hat and effective sample size of chains, and how many have mixed."""
    found = [row["diagnostics"] for row in rows if row["method"] == "hmc"]
    if not found:
        return None, None, None
    rhats = [d[name] for d in found for name in ("max_rhat", "log_density_rhat") if name in d]
    sizes = [d[name] for d in found for name in ("min_ess", "log_density_ess") if name in d]
    mixed = sum(has_mixed(diagnostics) is True for diagnostics in found)
    return max(rhats, default=None), min(sizes, default=None), f"{mixed} of {len(found)}"


_SUMMARY = (
    "The lemmas on gradients along and across a data manifold, tested on manifolds whose tangent "
    "spaces are known, and what follows from them for the mean over a posterior. Lemma 4 says that "
    "for every network there is another with the opposite normal gradient; whether the two have "
    "equal posterior mass, so that they cancel in a mean, is a question of its own. Across a "
    "subspace that holds the data it has an exact answer: reflecting the first layer's weights "
    "keeps likelihood and Gaussian prior, and the mean is zero, trained or not. Inside the "
    "subspace no such symmetry exists, and the last verdicts say what was measured, at their sizes "
    "and prior: the paper's limits of infinite width and data lie beyond them."
)
_CONVERGENCE = (
    "Loss and norms of the loss gradient's parts on the noise-free half moons, one hidden layer, "
    "squared loss: against width (most data), against data (widest network) and against steps "
    "(both). Lines: geometric means over seeds; bands: all seeds. If section 9 holds at these "
    "sizes, everything falls to the right."
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
    "that leaves the dashed line and turns flat comes to its expectation's norm; no curve can stay "
    "below the dashed line in expectation. Bands: all repetitions."
)
_SWEEP = (
    "Share of the normal gradient of the log-odds that is left in the mean, embedded half moons, "
    "against width and data. Solid and filled: normal directions in the plane of the moons; dashed "
    "and hollow: directions across it. 0: all cancels; 1: all draws agree; below 0: products of "
    "independent draws are negative, by chance. Bands: all repetitions."
)
