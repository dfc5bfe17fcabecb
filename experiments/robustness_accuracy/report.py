"""What the clouds say, as a study: tables, correlations and Table 1's rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.report.table import Table
from experiments.launch.mixed import describe_chains
from experiments.launch.tables import Claim, Plot, Study
from experiments.robustness_accuracy.correlation import Correlation
from experiments.robustness_accuracy.figures import (
    PUBLISHED_FLOOR,
    Row,
    cloud_figure,
    corrected_accuracy,
    corrected_metric,
    published_accuracy,
    published_metric,
    size_figure,
    strong_accuracy,
    strong_metric,
)
from experiments.robustness_accuracy.matched_report import (
    CAPTION,
    PASSES_CAPTION,
    is_matched,
    judge_matched,
    matched_sentence,
    matched_table,
)
from experiments.robustness_accuracy.passes_figure import passes_figure
from experiments.robustness_accuracy.verdicts import (
    correlate,
    count_mixed,
    has_chains,
    list_groups,
    list_verdicts,
)

_MOST_ROWS = 200
_ITEM = "Table 1, Fig. 4"
_MEASURES: dict[str, Callable[[Row], float]] = {
    "published metric": published_metric,
    "corrected metric": corrected_metric,
    "accuracy, corrected PGD": corrected_accuracy,
    "accuracy, strong": strong_accuracy,
}
_CLOUD = (
    "Each dot is a network of the grids, each star one of Table 1's. Left: softmax robustness "
    "under the published PGD by the published metric; it cannot fall below the dashed line "
    f"({PUBLISHED_FLOOR}), so that 0.9 is nearer to the bottom than to the top. Middle: under the "
    "corrected PGD, on probabilities: 1 where nothing changes, 0 where every prediction turns "
    "over with full confidence. Right: accuracy under the strong suite; on the dashed line an "
    "attack would cost nothing. Radius {epsilon:g} in the l_inf norm."
)
_SIZE = (
    "The same networks and measures against the number of their weights. The paper's figure shows "
    "robustness growing with the capacity of Bayesian networks; a column of dots is one shape."
)


def build_study(
    rows: Sequence[Row], *, epsilon: float, suite: str, least_accuracy: float, seed: int
) -> Study:
    """Return what the networks say.

    Args:
      rows: One record a network, with status ``"done"``, ``"failed"`` or ``"not run"``.
      epsilon: Radius of the ball.
      suite: Name of the strong suite.
      least_accuracy: Of the networks for which correlations are also given, in [0, 1].
      seed: Of the permutation tests.
    """
    finished = [row for row in rows if row["status"] == "done"]
    done = [row for row in finished if not is_matched(row)]
    matched = [row for row in finished if is_matched(row)]
    missing = [row for row in rows if row["status"] != "done"]
    summary = (
        f"{len(finished)} of {len(rows)} networks are finished "
        f"({sum(row['status'] == 'failed' for row in rows)} failed, "
        f"{sum(row['status'] == 'not run' for row in rows)} not run). l_inf radius {epsilon:g}; "
        f"strong is the suite {suite!r}."
    )
    tables, plots = [], []
    if done:
        found = list(_correlate_all(done, least_accuracy, seed))
        summary += f" {_sentence(done)}{count_mixed(done)}"
        plots = [
            Plot("clouds", cloud_figure(done), _CLOUD.format(epsilon=epsilon)),
            Plot("sizes", size_figure(done), _SIZE),
        ]
        tables = [_medians_table(done), _correlations_table(found), _networks_table(done)]
    if matched:
        summary += matched_sentence(matched)
        by_passes = passes_figure(matched)
        several = "" if by_passes is None else " Those of all numbers of passes are among them."
        plots.append(Plot("clouds_matched", cloud_figure(matched), CAPTION + several))
        if by_passes is not None:
            plots.append(Plot("passes", by_passes, PASSES_CAPTION))
        tables.append(matched_table(matched))
    if missing:
        tables.append(_missing_table(missing))
    return Study(
        "Robustness against accuracy",
        summary,
        tuple(tables),
        tuple(plots),
        tuple(_claims(done, epsilon, suite)),
        (*list_verdicts(done, least_accuracy, seed), *judge_matched(matched)),
        {"epsilon": epsilon, "suite": suite, "networks": list(rows)},
    )


def _correlate_all(
    rows: Sequence[Row], least: float, seed: int
) -> Iterator[tuple[str, str, str, list[Correlation | None]]]:
    for dataset, method, own in list_groups(rows):
        for which, chosen in (
            ("all", own),
            (f"accuracy >= {100 * least:g} %", [r for r in own if r["accuracy"] >= least]),
        ):
            found = [correlate(chosen, measure, seed) for measure in _MEASURES.values()]
            yield dataset, method, f"{which} ({len(chosen)})", found


def _correlations_table(
    found: Sequence[tuple[str, str, str, list[Correlation | None]]],
) -> Table:
    rows = tuple(
        (dataset, method, which, *(None if c is None else str(c) for c in correlations))
        for dataset, method, which, correlations in found
    )
    return Table(
        "Rank correlation with accuracy",
        ("data", "method", "networks", *_MEASURES),
        rows,
        "Spearman's rho between a network's clean accuracy and its robustness, over networks, with "
        "a 95 % interval and the p-value of a permutation test, not adjusted for the number of "
        "cells (verdicts are); n/a: fewer than four networks, or no variance. HMC's rows are about "
        "the draws as they are, whether or not chains have mixed. A network that "
        "predicts nothing has nothing to lose: by softmax robustness it is perfect. Correlations "
        "over all networks mix this with what the figure is about; those over accurate networks "
        "do not. Networks of one shape resemble each other: intervals and p-values, which take "
        "networks as independent, are too small.",
    )


def _medians_table(rows: Sequence[Row]) -> Table:
    def middle(own: Sequence[Row], measure: Callable[[Row], float]) -> float:
        return statistics.median(measure(row) for row in own)

    lines = tuple(
        (
            dataset,
            method,
            len(own),
            100 * middle(own, lambda row: row["accuracy"]),
            middle(own, published_metric),
            middle(own, corrected_metric),
            middle(own, strong_metric),
            *(
                100 * middle(own, measure)
                for measure in (published_accuracy, corrected_accuracy, strong_accuracy)
            ),
            100 * middle(own, lambda row: row["protocols"]["published"]["zero_gradient_share"]),
        )
        for dataset, method, own in list_groups(rows)
    )
    header: tuple[str, ...] = ("data", "method", "networks", "accuracy (%)")
    header += ("published metric", "corrected metric")
    header += ("strong metric", "published PGD (%)", "corrected PGD (%)", "strong (%)")
    header += ("zero gradients, published (%)",)
    return Table(
        "Medians over networks",
        header,
        lines,
        "Metrics: softmax robustness under the suite of that name, strong on probabilities. "
        "strong: the worst case of every image, over the suite and the other two. Accuracies under "
        "attack: share of all test images. zero gradients: images at which the published "
        "objective's gradient is exactly zero.",
    )


def _networks_table(rows: Sequence[Row]) -> Table:
    shown = rows if len(rows) <= _MOST_ROWS else [row for row in rows if row["starred"]]
    lines = tuple(
        (
            row["dataset"],
            row["name"] + (" *" if row["starred"] else ""),
            100 * row["accuracy"],
            published_metric(row),
            corrected_metric(row),
            *(
                100 * measure(row)
                for measure in (published_accuracy, corrected_accuracy, strong_accuracy)
            ),
            describe_chains(row["diagnostics"]) if has_chains(row) else None,
            row["diagnostics"].get("training_seconds"),
        )
        for row in shown
    )
    header: tuple[str, ...] = ("data", "network", "accuracy (%)")
    header += ("published metric", "corrected metric")
    header += ("published PGD (%)", "corrected PGD (%)", "strong (%)")
    header += ("chains", "training (s)")
    caption = (
        "Names: method, table of the supplement, architecture, width (h), activation; draws (s), "
        "step (eps) and leapfrog steps (l) of HMC; minibatch (b), epochs (e) and rate (lr). * is "
        "the starred network. chains: whether HMC's have mixed. A group of SGD networks that "
        "trained side by side shares its seconds."
    )
    if len(shown) < len(rows):
        caption += f" Only starred networks; all {len(rows)} are in results.json."
    return Table("Networks", header, lines, caption)


def _missing_table(rows: Sequence[Row]) -> Table:
    counts: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        key = (row["dataset"], row["method"], row["status"], row["reason"])
        counts.setdefault(key, []).append(row["name"])
    lines = tuple((*key, len(names), ", ".join(names[:4])) for key, names in counts.items())
    return Table(
        "Networks without numbers",
        ("data", "method", "status", "reason", "networks", "for example"),
        lines,
    )


def _sentence(rows: Sequence[Row]) -> str:
    parts = []
    for dataset, method, own in list_groups(rows):
        strong = 100 * statistics.median(map(strong_accuracy, own))
        metric = statistics.median(map(published_metric, own))
        parts.append(f"{method} on {dataset} {metric:.3f} and {strong:.1f} %")
    return (
        "Median softmax robustness by the published metric, and adversarial accuracy under the "
        f"strong suite: {'; '.join(parts)}."
    )


def _claims(rows: Sequence[Row], epsilon: float, suite: str) -> Iterator[Claim]:
    for row in rows:
        if not row["starred"]:
            continue
        low, high = wilson_interval(strong_accuracy(row), row["num_test"])
        settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items())
        note = (
            f"{settings}; eps {epsilon:g}, {row['num_test']} images, clean "
            f"{100 * row['accuracy']:.1f} %, strong ({suite}) "
            f"[{100 * low:.1f}, {100 * high:.1f}]. The supplement stars this network and "
            "does not print its numbers."
        )
        if has_chains(row):
            note += f" Chains: {describe_chains(row['diagnostics'])}."
        what = f"{row['method'].upper()}, {row['dataset']}"
        yield Claim(
            _ITEM,
            f"{what}: accuracy under PGD",
            None,
            100 * published_accuracy(row),
            100 * corrected_accuracy(row),
            100 * strong_accuracy(row),
            note=note,
        )
        yield Claim(
            _ITEM,
            f"{what}: softmax robustness",
            None,
            published_metric(row),
            corrected_metric(row),
            strong_metric(row),
            unit="",
            note=f"published: by its own metric, at least {PUBLISHED_FLOOR}.",
        )
