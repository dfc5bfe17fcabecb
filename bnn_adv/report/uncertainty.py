"""What an evaluation says of uncertainty under attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnn_adv.report.table import Table, named_lines
from bnn_adv.report.wording import format_percent, format_short, to_dict

_CONDITION = ("calibration_error", "entropy", "mutual_information")


def uncertainty_tables(found: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return what the posterior says on each kind of inputs, and how detectors fare by it.

    Args:
      found: ``UncertaintyReport.to_dict``, or the part ``uncertainty`` of an evaluation's record.

    Returns:
      Two tables; none where nothing was measured.
    """
    if not found:
        return ()
    detectors = {
        name.replace("_", " "): to_dict(found[name])
        for name in ("entropy", "mutual_information")
        if to_dict(found.get(name))
    }
    inputs = [("clean", found["clean"]), ("adversarial", found["adversarial"])]
    inputs += [(f"aware of {name}", part["aware"]) for name, part in detectors.items()]
    conditions = [
        (name, format_percent(part["accuracy"]), *(format_short(part[k]) for k in _CONDITION))
        for name, part in inputs
    ]
    judged = [
        (
            name,
            *(_with_interval(part[key]) for key in ("auroc", "auroc_aware")),
            *(format_percent(part[key]) for key in ("evading", "evading_aware")),
        )
        for name, part in detectors.items()
    ]
    note = (
        f"{found['num_inputs']:,} inputs drawn by seed. Entropy and mutual information: means, in "
        "nats. A detector refuses inputs whose uncertainty exceeds the "
        f"{100 * found['quantile']:g} % quantile of clean ones; aware: an attack that aims at it. "
        "AUROC: how well it tells clean from adversarial inputs (0.5 is chance), 95 % interval. "
        "evading: share of inputs that are misclassified and accepted, in per cent."
    )
    return (
        Table(
            "Predictions",
            ("inputs", "accuracy %", "ECE", "entropy", "mutual inf."),
            named_lines(conditions),
        ),
        Table(
            "Detectors",
            ("detector", "AUROC", "AUROC, aware", "evading %", "evading %, aware"),
            named_lines(judged),
            note,
        ),
    )


def _with_interval(auroc: Mapping[str, float]) -> str:
    return f"{auroc['value']:.3f} [{auroc['lower']:.3f}, {auroc['upper']:.3f}]"
