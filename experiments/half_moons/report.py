"""What the half moons say, as a study: tables, claims and verdicts from measured networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.inference.mixing import ESS_LEAST, RHAT_LIMIT
from bnn_adv.report.table import Table
from bnn_adv.theory.trend import follow
from experiments.half_moons.figures import (
    NORMS,
    Attacked,
    Network,
    components_figure,
    decay_figure,
    headline,
    truth_figure,
)
from experiments.half_moons.tables import (
    KINDS,
    gradients_table,
    group_attacks,
    mean_percent,
    networks_table,
    truth_table,
)
from experiments.launch.mixed import describe_all
from experiments.launch.tables import Claim, Plot, Study, Verdict

_ITEM = "Fig. 1 (half moons)"
_PUBLISHED = "published"
_SUITES = ("published", "corrected", "strong")
_COMPONENTS = (
    "Both components of the expected loss gradient at the test points, against the width (left, "
    "all numbers of training points together) and against the number of training points (right, "
    "all widths). Blue: mean over all draws of the posterior, as in the paper's figure. Orange: "
    "the gradient of one draw. Grey: mean over as many untrained networks, drawn from the prior "
    "N(0, 1). Black bars: plus and minus the median magnitude. The axis is linear about zero and "
    "logarithmic beyond. Where orange is as small as blue, it is not averaging that makes "
    "gradients small."
)
_DECAY = (
    "Size of the mean gradient over S draws: root mean square over test points of its l_2 norm, "
    "one line a width (geometric mean over networks). Left: posterior; right: untrained networks "
    "of the same shape. Dotted: S^(-1/2), the fall of a mean of independent gradients of zero "
    "mean, whatever their distribution. Where a line stays level draws agree on the direction, as "
    "those of a chain that has not mixed do too."
)
_TRUTH = (
    "Accuracy against the radius of an attack in the {norm} norm. Line: share of test points "
    "without a misclassified point of the grid within the radius, the truth up to a cell's size. "
    "Symbols: share that each suite's attack leaves standing (PGD, or the worst case of the "
    "strong suite). A symbol above the line is an attack that did not find what is there."
)


def build_study(networks: Sequence[Network], *, least_accuracy: float) -> Study:
    """Return what the grid of networks says.

    Args:
      networks: All cells of the grid, those left out included.
      least_accuracy: Held-out accuracy in [0, 1] from which a network is kept.
    """
    kept = [network for network in networks if network.gradients is not None]
    summary = (
        f"{len(kept)} of {len(networks)} networks reach {100 * least_accuracy:g} % and are kept; "
        f"{_count_by_kind(kept)} (every R-hat at most {RHAT_LIMIT}, effective sample size at least "
        f"{ESS_LEAST:.0f})."
    )
    tables: list[Table] = [networks_table(networks)]
    plots: list[Plot] = []
    groups = _by_kind(kept)
    asked = [network for network in networks if network.kind == _PUBLISHED]
    claims = [_share_claim(asked, groups.get(_PUBLISHED, []), least_accuracy)] if asked else []
    verdicts = [_mixing_verdict(own, kind) for kind, own in (groups or {_PUBLISHED: []}).items()]
    if kept:
        summary += " " + " ".join(_truth_sentence(own, _suffix(k)) for k, own in groups.items())
        tables.append(gradients_table(kept))
        for kind, own in groups.items():
            tables.append(truth_table(own, _suffix(kind)))
            plots += _plots(own, kind)
            claims += _gradient_claims(own, _suffix(kind)) + _accuracy_claims(own, _suffix(kind))
        verdicts += [
            *judge_trends(kept),
            *(_attack_verdict(kept, suite) for suite in _SUITES),
        ]
    return Study(
        "Half moons: gradients towards the large limit, and the true robustness",
        summary,
        tuple(tables),
        tuple(plots),
        tuple(claims),
        tuple(verdicts),
        {"networks": [_record(network) for network in networks]},
    )


def _by_kind(networks: Sequence[Network]) -> dict[str, list[Network]]:
    """Return networks by the settings of their HMC, the published first."""
    groups = {kind: [n for n in networks if n.kind == kind] for kind in KINDS}
    return {kind: own for kind, own in groups.items() if own}


def _suffix(kind: str) -> str:
    return "" if kind == _PUBLISHED else f", {KINDS[kind]}"


def _plots(own: Sequence[Network], kind: str) -> list[Plot]:
    """Return the figures of networks whose HMC is of one kind; grids differ between kinds."""
    end = "" if kind == _PUBLISHED else f"_{kind}"
    whose = f" HMC: {KINDS[kind]}; {_count_mixed(own)}."
    return [
        Plot(f"components{end}", components_figure(own), _COMPONENTS + whose),
        Plot(f"decay{end}", decay_figure(own), _DECAY + whose),
        *(
            Plot(
                f"truth_{norm}{end}",
                truth_figure(own, norm),
                _TRUTH.format(norm=NORMS[norm]) + whose,
            )
            for norm in own[0].distances
        ),
    ]


def _share_claim(
    networks: Sequence[Network], kept: Sequence[Network], least_accuracy: float
) -> Claim:
    low, high = wilson_interval(len(kept) / len(networks), len(networks))
    return Claim(
        _ITEM,
        f"networks of at least {100 * least_accuracy:g} % accuracy",
        None,
        None,
        100 * len(kept) / len(networks),
        None,
        note=f"{len(kept)} of {len(networks)}, 95 % interval {100 * low:.0f} to {100 * high:.0f} %;"
        " full-data HMC",
    )


def _gradient_claims(kept: Sequence[Network], suffix: str) -> list[Claim]:
    claims = []
    for width in sorted({min(n.hidden for n in kept), max(n.hidden for n in kept)}):
        own = [n.gradients for n in kept if n.hidden == width and n.gradients is not None]
        middle = {
            kind: float(np.median(np.abs([getattr(g, kind) for g in own])))
            for kind in ("posterior", "single", "prior")
        }
        claims.append(
            Claim(
                _ITEM,
                f"median |component|, {width} hidden units{suffix}",
                None,
                None,
                middle["posterior"],
                None,
                unit="",
                note=f"one draw {middle['single']:.3g}, untrained {middle['prior']:.3g}",
            )
        )
    return claims


def _accuracy_claims(kept: Sequence[Network], suffix: str) -> list[Claim]:
    shown: dict[tuple[str, float], dict[str, list[Attacked]]] = {}
    for (norm, epsilon, suite, _), rows in group_attacks(kept).items():
        for row in headline(rows):
            shown.setdefault((norm, epsilon), {}).setdefault(suite, []).append(row)
    claims = []
    for (norm, epsilon), found in shown.items():
        left = {
            name: mean_percent(row.comparison.accuracy for row in rows)
            for name, rows in found.items()
        }
        truth = mean_percent(r.comparison.truth for r in next(iter(found.values())))
        claims.append(
            Claim(
                _ITEM,
                f"adversarial accuracy, {norm} {epsilon:g}{suffix}",
                None,
                left.get("published"),
                left.get("corrected"),
                left.get("strong"),
                note=f"true: {truth:.1f} % by grid search; mean over networks",
            )
        )
    return claims


def _count_mixed(kept: Sequence[Network]) -> str:
    judged = [has_mixed(network.diagnostics) for network in kept]
    unknown = f", {judged.count(None)} are not judged" if None in judged else ""
    return f"the chains of {judged.count(True)} of {len(kept)} networks have mixed{unknown}"


def _count_by_kind(kept: Sequence[Network]) -> str:
    if not kept:
        return _count_mixed(kept)
    counts = ((kind, _count_mixed(own)) for kind, own in _by_kind(kept).items())
    return "; ".join(
        f"{KINDS[kind]}: {count}" if _suffix(kind) else count for kind, count in counts
    )


def _mixing_verdict(kept: Sequence[Network], kind: str) -> Verdict:
    judged = [has_mixed(network.diagnostics) for network in kept]
    whose = "the published chain lengths" if kind == _PUBLISHED else KINDS[kind]
    worst = ""
    if judged and all(judged):
        worst = f"; {describe_all([network.diagnostics for network in kept])}"
    return Verdict(
        f"The draws of {whose} are a sample of the posterior",
        f"{_count_mixed(kept)}{worst}: R-hat of at most {RHAT_LIMIT} for every held-out prediction "
        f"and the log density, effective sample size of at least {ESS_LEAST:.0f}",
        False if False in judged else True if judged and None not in judged else None,
    )


def judge_trends(kept: Sequence[Network]) -> list[Verdict]:
    """Return whether gradients fall with width and with data, where the grid has levels of each.

    Args:
      kept: Networks with gradients. Where some have long trajectories, those are judged: the claim
        is one about the posterior, of which unmixed chains have no sample.
    """
    groups = _by_kind(kept)
    judged = groups[max(groups, key=list(KINDS).index)]
    fields = (("hidden", "width"), ("num_train", "training points"))
    found = [_trend_verdict(judged, field, what) for field, what in fields]
    return [verdict for verdict in found if verdict is not None]


def _trend_verdict(kept: Sequence[Network], field: str, what: str) -> Verdict | None:
    """Return whether components fall with a setting, over chains as independent networks."""
    levels, rows = _matched(kept, field)
    if len(levels) < 2 or not rows:
        return None
    sizes = {
        kind: ", ".join(f"{value:.2g}" for value in _sizes(rows, kind).mean(axis=1))
        for kind in ("posterior", "single", "prior")
    }
    at = ", ".join(f"{level:,}" for level in levels)
    members = [network for row in rows for network in row]
    judged = [has_mixed(network.diagnostics) for network in members]
    measured = (
        f"median |component| at {at}: {sizes['posterior']} for the posterior, {sizes['single']} "
        f"for one draw, {sizes['prior']} for untrained networks; "
    )
    holds = None
    if False in judged:
        measured += f"unmixed: not judged ({_count_mixed(members)})"
    elif None in judged:
        measured += f"not judged ({_count_mixed(members)})"
    else:
        trend = follow(_sizes(rows, "chains"))
        holds = trend.falls
        measured += f"over chains {trend}; {describe_all([n.diagnostics for n in members])}"
    return Verdict(
        f"Components of the expected loss gradient fall with every step of {what} (a fall, which "
        "need not end at zero)",
        measured,
        holds,
    )


def _sizes(rows: Sequence[Sequence[Network]], kind: str) -> np.ndarray:
    """Return median |component|, geometric mean over settings, [levels, chains or 1]."""
    found = []
    for row in rows:
        values = [np.abs(getattr(network.gradients, kind)) for network in row]
        each = [value if value.ndim == 3 else value[None] for value in values]
        least = min(len(value) for value in each)
        found.append([np.median(value[:least], axis=(1, 2)) for value in each])
    with np.errstate(divide="ignore"):
        sizes: np.ndarray = np.exp(np.log(found).mean(axis=0))
    return sizes


def _matched(kept: Sequence[Network], field: str) -> tuple[list[int], list[list[Network]]]:
    """Return the levels of a setting, and rows of networks that differ in nothing else."""
    levels = sorted({getattr(network, field) for network in kept})
    by_others: dict[tuple[int, ...], dict[int, Network]] = {}
    for network in kept:
        by_others.setdefault(_other(network, field), {})[getattr(network, field)] = network
    complete = [row for row in by_others.values() if len(row) == len(levels)]
    return levels, [[row[level] for level in levels] for row in complete]


def _other(network: Network, field: str) -> tuple[int, ...]:
    names = ("hidden", "num_train", "num_warmup")
    return tuple(getattr(network, name) for name in names if name != field)


def _attack_verdict(kept: Sequence[Network], suite: str) -> Verdict:
    rows = [r for n in kept for r in headline(n.attacked) if r.suite == suite]
    missed = sum(row.comparison.missed for row in rows)
    broken = sum(
        int(np.sum(n.distances[r.norm] <= r.epsilon))
        for n in kept
        for r in headline(n.attacked)
        if r.suite == suite
    )
    return Verdict(
        f"The {suite} attack finds every point that the grid proves not to be robust",
        f"it missed {missed} of {broken}, over all networks, norms and radii"
        + (f" ({100 * missed / broken:.2g} %)" if broken else ""),
        missed == 0 if broken else None,
    )


def _truth_sentence(kept: Sequence[Network], suffix: str) -> str:
    parts = []
    for claim in _accuracy_claims(kept, suffix):
        numbers = [
            f"{name} {value:.1f} %"
            for name, value in zip(
                _SUITES, (claim.published, claim.corrected, claim.strong), strict=True
            )
            if value is not None
        ]
        parts.append(f"{claim.quantity}: {', '.join(numbers)}, {claim.note.split(';')[0]}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _record(network: Network) -> dict[str, Any]:
    found = network.gradients
    keep = {k: v for k, v in network.diagnostics.items() if k != "log_density"}
    return {
        "hidden": network.hidden,
        "num_train": network.num_train,
        "num_warmup": network.num_warmup,
        "hmc": network.kind,
        "diagnostics": keep,
        "left_out": network.reason or None,
        "gradients": None
        if found is None
        else {
            name: np.asarray([float(f"{v:.5g}") for v in np.ravel(value)])
            for name, value in found._asdict().items()
        },
        "distances": {n: np.round(d, 6) for n, d in network.distances.items()},
        "attacked": [
            {
                "norm": row.norm,
                "epsilon": row.epsilon,
                # The name in results, which stays as it is.
                "protocol": row.suite,
                "attack": row.attack,
                "comparison": row.comparison._asdict(),
            }
            for row in network.attacked
        ],
    }
