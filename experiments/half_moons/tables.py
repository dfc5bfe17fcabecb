"""Tables of the half moons: the networks of the grid, their gradients, attacks against truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.inference.mixing import ESS_LEAST, RHAT_LIMIT
from bnn_adv.report.table import Table
from experiments.half_moons.figures import Attacked, Network


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


KINDS = {"published": "published", "mixed": "long trajectories"}
"""Settings of HMC for readers: whether chains have mixed is for diagnostics to say."""


def _cell(network: Network) -> tuple[str, int, int, int]:
    return KINDS[network.kind], network.hidden, network.num_train, network.num_warmup


def networks_table(networks: Sequence[Network]) -> Table:
    """Return one row a network, those left out with their reason."""
    rows = []
    for network in networks:
        get = network.diagnostics.get
        mixed = {True: "yes", False: "no", None: "not judged"}[has_mixed(network.diagnostics)]
        rows.append(
            (
                *_cell(network),
                _percent(get("held_out_accuracy")),
                get("acceptance_rate"),
                (get("step_size") or [None])[0],
                get("num_chains"),
                get("max_rhat"),
                get("log_density_rhat"),
                get("min_ess"),
                mixed if network.diagnostics else None,
                get("training_seconds"),
                network.reason or None,
            )
        )
    return Table(
        "Networks of the grid",
        (
            "HMC",
            "hidden",
            "training points",
            "warm-up",
            "accuracy (%)",
            "acceptance",
            "step size",
            "chains",
            "largest R-hat, predictions",
            "R-hat, log density",
            "smallest ESS, predictions",
            "mixed",
            "seconds",
            "left out because",
        ),
        tuple(rows),
        "published: the paper's leapfrog steps; long trajectories: of about the prior's scale. "
        "R-hat compares chains, or the halves of one, over held-out predictions and for the "
        f"log density; above {RHAT_LIMIT}, or with an effective number of independent draws (ESS) "
        f"below {ESS_LEAST:.0f}, draws are no sample of the posterior, whatever the accuracy. One "
        "chain alone can fail, and not pass." + _older(networks),
    )


def _older(networks: Sequence[Network]) -> str:
    """Return which R-hat it is where it is that of an older run."""
    is_older = any("max_rhat" in n.diagnostics and "rhat" not in n.diagnostics for n in networks)
    return " R-hat and ESS are of the values, not rank-normalised." if is_older else ""


def gradients_table(kept: Sequence[Network]) -> Table:
    """Return one row a kept network with the size of its gradients and of the controls."""
    rows = []
    for network in kept:
        found = network.gradients
        assert found is not None
        medians = [
            float(np.median(np.abs(v))) for v in (found.posterior, found.single, found.prior)
        ]
        rows.append((*_cell(network), *medians, 100 * found.zero_share))
    return Table(
        "Median magnitude of a gradient's component",
        (
            "HMC",
            "hidden",
            "training points",
            "warm-up",
            "mean over posterior",
            "one draw",
            "mean over prior",
            "zero gradients (%)",
        ),
        tuple(rows),
        "Of the cross-entropy in nats, a unit of the input. zero gradients: share of single draws' "
        "gradients that are exactly zero in float32.",
    )


def truth_table(kept: Sequence[Network], suffix: str = "") -> Table:
    """Return one row an attack, counted over networks whose HMC is of one kind."""
    rows = []
    for key, group in group_attacks(kept).items():
        total = [row.comparison for row in group]
        points = sum(len(n.distances[key[0]]) for n in kept)
        rows.append(
            (
                *key,
                mean_percent(c.accuracy for c in total),
                mean_percent(c.truth for c in total),
                points,
                *(sum(getattr(c, f) for c in total) for f in ("missed", "between")),
                sum(c.unexplained for c in total),
                sum(c.undecided for c in total),
            )
        )
    return Table(
        f"Attacks against the truth{suffix}",
        (
            "norm",
            "radius",
            "suite",
            "attack",
            "accuracy (%)",
            "truth (%)",
            "points",
            "missed",
            "between",
            "unexplained",
            "undecided",
        ),
        tuple(rows),
        f"Over all kept networks{suffix}. truth: share of points without a misclassified grid "
        "point in the ball. missed: points that the attack left standing though the grid holds a "
        "misclassified point in the ball. between: points that it broke between grid points, "
        "within a cell of the ball's rim. unexplained: broken further from any misclassified grid "
        "point. undecided: points on which the grid cannot tell, within a cell of the rim.",
    )


def group_attacks(kept: Sequence[Network]) -> dict[tuple[str, float, str, str], list[Attacked]]:
    """Return the results of all networks by norm, radius, suite and attack."""
    groups: dict[tuple[str, float, str, str], list[Attacked]] = {}
    for network in kept:
        for row in network.attacked:
            groups.setdefault((row.norm, row.epsilon, row.suite, row.attack), []).append(row)
    return groups


def mean_percent(shares: Iterable[float]) -> float:
    """Return the mean of shares in [0, 1], in per cent."""
    return 100 * float(np.mean(list(shares)))
