"""What is said of the samplers: tables, figures, and which one to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.inference.mixing import ESS_LEAST, RHAT_LIMIT
from bnn_adv.report.table import Table
from experiments.launch.tables import Plot, Study, Verdict
from experiments.samplers.config import ADJUSTED, HMC_PUBLISHED, MINIBATCH
from experiments.samplers.figures import mixing_curves
from experiments.samplers.prefixes import smallest_ess
from experiments.samplers.verdicts import (
    Judged,
    Record,
    ess_per_gradient,
    ess_per_second,
    find_reference,
    judge,
    mixed_from,
    recommend,
)


def build_study(panels: Mapping[str, Sequence[Record]], machine: str) -> Study:
    """Return everything that is reported.

    Args:
      panels: Records of a posterior by its title.
      machine: What the times were measured on.
    """
    judged = {title: judge(records) for title, records in panels.items()}
    return Study(
        title="Samplers: which chains have mixed, and at what cost",
        summary=" ".join(recommend(title, rows) for title, rows in judged.items()),
        tables=(_mixing_table(judged), _cost_table(judged, machine), _law_table(judged)),
        plots=(Plot("mixing", mixing_curves(panels), _CAPTION),),
        verdicts=tuple(_verdicts(judged)),
        data={"posteriors": {title: list(records) for title, records in panels.items()}},
    )


_PER_PAIR = (
    "The 99 % are per pair of a method and its reference, not for all pairs together: of a hundred "
    "pairs without a bias about one is told from zero."
)


def _rows(judged: Mapping[str, Sequence[Judged]]) -> list[tuple[str, Judged]]:
    return [(title, row) for title, rows in judged.items() for row in rows]


def _mixing_table(judged: Mapping[str, Sequence[Judged]]) -> Table:
    names = (
        *("max_rhat", "upper_rhat", "median_rhat", "log_density_rhat"),
        *("min_ess", "median_ess", "min_tail_ess", "log_density_ess", "log_density_tail_ess"),
    )
    rows = tuple(
        (title, row.record["method"], row.words, *(row.last.get(name) for name in names))
        for title, row in _rows(judged)
    )
    return Table(
        "Which chains have mixed",
        (
            *("posterior", "method", "verdict"),
            *("R-hat, largest", "95 %", "median", "of log density"),
            *("ESS, smallest", "median", "smallest of tails"),
            *("of log density", "of its tails"),
        ),
        rows,
        "At the end of the run, from its second half. Mixed: the largest rank-normalised split "
        f"R-hat of held-out predictions and the log density is at most {RHAT_LIMIT}, the smallest "
        f"bulk ESS at least {ESS_LEAST:.0f}. R-hat and ESS are taken on the log-probability of "
        "each held-out example's own class (largest, 95 % and median over examples) and on the log "
        "density. Biased: the mean log density is told from that of an adjusted method that has "
        f"mixed, see the last table. {_PER_PAIR}",
    )


def _cost_table(judged: Mapping[str, Sequence[Judged]], machine: str) -> Table:
    rows = []
    for title, row in _rows(judged):
        last, rate, seconds = (
            row.last,
            ess_per_gradient(row),
            row.record.get("seconds_per_gradient"),
        )
        rows.append(
            (
                title,
                row.record["method"],
                None if "gradients" not in last else round(last["gradients"]),
                _from(row),
                smallest_ess(last),
                None if rate is None else 1000 * rate,
                ess_per_second(row),
                None if seconds is None else 1000 * seconds,
            )
        )
    return Table(
        "What effective draws cost",
        (
            *("posterior", "method", "gradients a chain", "mixed from", "smallest ESS"),
            *("ESS per 1,000 gradients", "ESS per second", "ms a gradient"),
        ),
        tuple(rows),
        "Gradients of all training data, those of starts, warm-up and tuning included; B/N of one "
        "for a minibatch. ESS: the smallest of all held-out predictions and the log density, over "
        "all chains; per gradient and per second of all chains, for the whole run although half of "
        "it is left out. mixed from: the least number of gradients a chain, of those in the "
        "figure, from which on chains have mixed. Seconds: without compilation, chains one after "
        "the other "
        f"where a CPU runs them, on {machine}; minibatches cost more a gradient than all data.",
    )


def _law_table(judged: Mapping[str, Sequence[Judged]]) -> Table:
    rows = []
    for title, row in _rows(judged):
        last, record = row.last, row.record
        reference = find_reference([other.record for other in judged[title]])
        told = "reference" if record is reference else None
        rows.append(
            (
                title,
                record["method"],
                last.get("log_likelihood"),
                None if "accuracy" not in last else 100 * last["accuracy"],
                last.get("density"),
                told if row.difference is None else str(row.difference),
                None
                if row.difference is None or not row.difference.spread
                else row.difference.value / row.difference.spread,
                record.get("energy_variance"),
                record.get("acceptance_rate"),
                _mean(record.get("step_size")),
            )
        )
    return Table(
        "What the draws say",
        (
            *("posterior", "method", "held-out log likelihood", "accuracy (%)", "log density"),
            *("less the reference's", "in its standard deviations"),
            *("energy variance per dimension", "acceptance", "step"),
        ),
        tuple(rows),
        "Log likelihood of the predictive, nats an example. Log density of the draws on all "
        "training data, in nats up to a constant, and its difference from the reference's (the "
        f"first of {', '.join(ADJUSTED)} that has mixed) with a 99 % Monte Carlo interval from "
        "the effective sample sizes of both; for chains that have not mixed the interval is too "
        f"short. {_PER_PAIR} energy variance: of a step's energy change, divided by the number of "
        "parameters, of the later half; unadjusted microcanonical Langevin only. step: mean over "
        "chains, after adaptation.",
    )


def _from(row: Judged) -> int | str | None:
    found = mixed_from(row)
    if found is not None:
        return round(found)
    return "not yet" if row.last else None


def _mean(values: Any) -> float | None:
    return None if values is None else float(np.mean(values))


def _verdicts(judged: Mapping[str, Sequence[Judged]]) -> list[Verdict]:
    found = []
    for title, rows in judged.items():
        found += [
            Verdict(
                "HMC as published (10 leapfrog steps) mixes within the budget",
                f"{title}: {row.words}, after {row.last['gradients']:,.0f} gradients a chain.",
                has_mixed(row.last),
            )
            for row in rows
            if row.record["method"] == HMC_PUBLISHED and row.last
        ]
        own = [row for row in rows if row.record["method"] in MINIBATCH]
        if own:
            words = "; ".join(f"{row.record['method']}: {row.words}" for row in own)
            holds = True if any(row.is_usable for row in own) else _all_told(own)
            found.append(
                Verdict(
                    "Some method of stochastic gradients mixes within its share",
                    f"{title}: {words}.",
                    holds,
                )
            )
    return found


def _all_told(rows: Sequence[Judged]) -> bool | None:
    """Return False where every method is unmixed or biased, else None."""
    is_told = all(
        row.is_mixed is False or (row.difference is not None and row.difference.is_told)
        for row in rows
    )
    return False if is_told else None


_CAPTION = (
    "Chains judged at growing numbers of gradients, from the second half of what they had taken by "
    "then. Left: the largest rank-normalised split R-hat of held-out predictions and the log "
    "density; middle: their smallest bulk ESS; dotted lines: what chains that have mixed keep "
    "below and above. Right: negative log likelihood of held-out examples under the predictive, "
    "lower is better. Solid lines: methods with a Metropolis test; dashed: without one, whose "
    "draws may be biased however well chains mix; dotted: on minibatches. A line starts where four "
    "draws a chain are in that half, after the warm-up; it has a gap where an R-hat "
    "is not defined."
)
