"""What the half moons say, as a study: tables, claims and verdicts from measured networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bnn_adv.inference.diagnostics import RHAT_LIMIT, has_mixed
from bnn_adv.metrics import wilson_interval
from bnn_adv.report.half_moons import (
    NORMS,
    Attacked,
    Network,
    components_figure,
    decay_figure,
    headline,
    truth_figure,
)
from bnn_adv.report.half_moons_tables import (
    gradients_table,
    group_attacks,
    mean_percent,
    networks_table,
    truth_table,
)
from bnn_adv.report.study import Claim, Plot, Study, Table, Verdict

_ITEM = "Fig. 1 (half moons)"
_PROTOCOLS = ("published", "corrected", "strong")
_NUM_RESAMPLES = 1000
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
    "mean, whatever their distribution. A line that stays level is a mean that is not zero: draws "
    "agree on the direction."
)
_TRUTH = (
    "Accuracy against the radius of an attack in the {norm} norm. Line: share of test points "
    "without a misclassified point of the grid within the radius, the truth up to a cell's size. "
    "Symbols: share that each protocol's attack leaves standing (PGD, or the worst case of the "
    "strong suite). A symbol above the line is an attack that did not find what is there."
)


class Ratio(NamedTuple):
    """Hold a ratio of medians with its 95 % bootstrap interval over test points."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return ``0.31 [0.25, 0.40]``."""
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def build_study(networks: Sequence[Network], *, seed: int, least_accuracy: float) -> Study:
    """Return what the grid of networks says.

    Args:
      networks: All cells of the grid, those left out included.
      seed: Of the bootstrap.
      least_accuracy: Held-out accuracy in [0, 1] from which a network is kept.
    """
    kept = [network for network in networks if network.gradients is not None]
    mixed = sum(has_mixed(network.diagnostics) is True for network in kept)
    summary = (
        f"{len(kept)} of {len(networks)} networks reach {100 * least_accuracy:g} % and are kept; "
        f"{mixed} of their chains have mixed (both R-hat at most {RHAT_LIMIT})."
    )
    tables: list[Table] = [networks_table(networks)]
    plots: list[Plot] = []
    claims = [_share_claim(networks, kept, least_accuracy)]
    verdicts = [_mixing_verdict(kept, mixed)]
    if kept:
        summary += " " + _truth_sentence(kept)
        tables += [gradients_table(kept), truth_table(kept)]
        plots += [
            Plot("components", components_figure(kept), _COMPONENTS),
            Plot("decay", decay_figure(kept), _DECAY),
            *(
                Plot(f"truth_{norm}", truth_figure(kept, norm), _TRUTH.format(norm=NORMS[norm]))
                for norm in kept[0].distances
            ),
        ]
        claims += _gradient_claims(kept) + _accuracy_claims(kept)
        verdicts += [
            *_trend_verdicts(kept, seed),
            *(_attack_verdict(kept, protocol) for protocol in _PROTOCOLS),
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


def ratio_of_medians(seed: int, above: np.ndarray, below: np.ndarray) -> Ratio:
    """Return ``median |above| / median |below|``, with a percentile bootstrap over points.

    Args:
      seed: Of the resamples.
      above: [M, N, 2] for M networks at N points.
      below: Likewise, at the same points.
    """
    above, below = np.abs(above), np.abs(below)
    rng = np.random.default_rng(seed)
    rows = rng.integers(above.shape[1], size=(_NUM_RESAMPLES, above.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.median(above) / np.median(below)
        resampled = [np.median(above[:, r]) / np.median(below[:, r]) for r in rows]
    # A median of zero in either makes the ratio infinite or undefined: so is then its interval.
    low, high = np.quantile(resampled, [0.025, 0.975], method="nearest")
    return Ratio(float(value), float(low), float(high))


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


def _gradient_claims(kept: Sequence[Network]) -> list[Claim]:
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
                f"median |component|, {width} hidden units",
                None,
                None,
                middle["posterior"],
                None,
                unit="",
                note=f"one draw {middle['single']:.3g}, untrained {middle['prior']:.3g}",
            )
        )
    return claims


def _accuracy_claims(kept: Sequence[Network]) -> list[Claim]:
    shown: dict[tuple[str, float], dict[str, list[Attacked]]] = {}
    for (norm, epsilon, protocol, _), rows in group_attacks(kept).items():
        for row in headline(rows):
            shown.setdefault((norm, epsilon), {}).setdefault(protocol, []).append(row)
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
                f"adversarial accuracy, {norm} {epsilon:g}",
                None,
                left.get("published"),
                left.get("corrected"),
                left.get("strong"),
                note=f"true: {truth:.1f} % by grid search; mean over networks",
            )
        )
    return claims


def _mixing_verdict(kept: Sequence[Network], mixed: int) -> Verdict:
    known = [n for n in kept if has_mixed(n.diagnostics) is not None]
    return Verdict(
        "The draws of the published chain lengths are a sample of the posterior",
        f"{mixed} of {len(known)} kept chains have R-hat of at most {RHAT_LIMIT} for predictions "
        "and log density",
        mixed == len(known) if known else None,
    )


def _trend_verdicts(kept: Sequence[Network], seed: int) -> list[Verdict]:
    verdicts = []
    for field, what in (("hidden", "width"), ("num_train", "training points")):
        ends = _matched(kept, field)
        if ends is None:
            continue
        low, high, pairs = ends
        ratios = {
            kind: ratio_of_medians(
                seed,
                np.stack([getattr(b.gradients, kind) for _, b in pairs]),
                np.stack([getattr(a.gradients, kind) for a, _ in pairs]),
            )
            for kind in ("posterior", "single", "prior")
        }
        found = ratios["posterior"]
        verdicts.append(
            Verdict(
                f"Components of the expected loss gradient fall towards zero with {what}",
                f"median |component| at {high:,} over that at {low:,}: {found} for the posterior; "
                f"{ratios['single']} for one draw, {ratios['prior']} for untrained networks",
                True if found.high < 1 else False if found.low > 1 else None,
            )
        )
    return verdicts


def _matched(
    kept: Sequence[Network], field: str
) -> tuple[int, int, list[tuple[Network, Network]]] | None:
    """Return the smallest and largest value of a setting, and pairs that differ in nothing else."""
    values = sorted({getattr(n, field) for n in kept})
    for low, high in [(a, b) for a in values for b in reversed(values) if a < b]:
        above = {_other(n, field): n for n in kept if getattr(n, field) == high}
        pairs = [
            (n, above[_other(n, field)])
            for n in kept
            if getattr(n, field) == low and _other(n, field) in above
        ]
        if pairs:
            return low, high, pairs
    return None


def _other(network: Network, field: str) -> tuple[int, ...]:
    names = ("hidden", "num_train", "num_warmup")
    return tuple(getattr(network, name) for name in names if name != field)


def _attack_verdict(kept: Sequence[Network], protocol: str) -> Verdict:
    rows = [r for n in kept for r in headline(n.attacked) if r.protocol == protocol]
    missed = sum(row.comparison.missed for row in rows)
    broken = sum(
        int(np.sum(n.distances[r.norm] <= r.epsilon))
        for n in kept
        for r in headline(n.attacked)
        if r.protocol == protocol
    )
    return Verdict(
        f"The {protocol} attack finds every point that the grid proves not to be robust",
        f"it missed {missed} of {broken}, over all networks, norms and radii"
        + (f" ({100 * missed / broken:.2g} %)" if broken else ""),
        missed == 0 if broken else None,
    )


def _truth_sentence(kept: Sequence[Network]) -> str:
    parts = []
    for claim in _accuracy_claims(kept):
        numbers = [
            f"{name} {value:.1f} %"
            for name, value in zip(
                _PROTOCOLS, (claim.published, claim.corrected, claim.strong), strict=True
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
            {**row._asdict(), "comparison": row.comparison._asdict()} for row in network.attacked
        ],
    }
