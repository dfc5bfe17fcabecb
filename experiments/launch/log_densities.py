"""Unadjusted chains of a comparison beside adjusted ones of the same target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_adv.inference.log_densities import compare_log_densities, is_adjusted
from bnn_adv.inference.robust import OFF, get_robust
from bnn_adv.report.table import Cell, Table
from experiments.launch.methods import Row


def compare_rows(
    methods: Sequence[Row], diagnostics: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Compare the log densities of all pairs of an unadjusted and an adjusted method of one target.

    Args:
      methods: The rows, of one data set.
      diagnostics: Their records by name of the row.

    Returns:
      JSON values, a pair each.
    """
    adjusted = {row.name: is_adjusted(diagnostics[row.name]) for row in methods}
    pairs = [
        (one.name, other.name)
        for one in methods
        for other in methods
        if adjusted[one.name] is False and adjusted[other.name] and _target(one) == _target(other)
    ]
    found = []
    for names in pairs:
        one, other = (diagnostics[name] for name in names)
        if (difference := compare_log_densities(one, other, names)) is not None:
            values = {**difference._asdict(), "interval": list(difference.interval)}
            found.append({"unadjusted": names[0], "adjusted": names[1], **values})
    return found


def _target(row: Row) -> tuple[Any, ...]:
    config = row.config
    robust = get_robust(config)
    of_densities = config.prior, config.temperature, config.likelihood
    return row.network_name, row.network, *of_densities, OFF if robust.is_off else robust


def log_density_table(pairs: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return the pairs of ``compare_rows`` as a table, in a list that is empty without any."""
    lines = tuple(
        (
            Cell(pair["unadjusted"], "name", is_heading=True),
            Cell(pair["adjusted"], "name"),
            f"{pair['nats']:+.1f}",
            "{:+.1f} to {:+.1f}".format(*pair["interval"]) if pair["is_judged"] else None,
            Cell(pair["sentence"], "prose"),
        )
        for pair in pairs
    )
    if not lines:
        return []
    return [
        Table(
            "Log density of unadjusted chains",
            ("unadjusted", "adjusted", "difference (nats)", "95 % interval", "what follows"),
            lines,
            "Mean log density of the draws less that of chains with a Metropolis test, of the same "
            "network, data, prior, likelihood and temperature. The intervals are by the Monte "
            "Carlo standard errors of both.",
        )
    ]
