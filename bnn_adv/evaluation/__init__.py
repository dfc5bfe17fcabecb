"""Attack a posterior by a suite of attacks and say what is left, per image and in numbers."""

from bnn_adv.evaluation.cascade import Settings
from bnn_adv.evaluation.fresh import FreshResult, attack_fresh, evaluate_fresh, success_rates
from bnn_adv.evaluation.fresh_suite import (
    FreshSubject,
    FreshSuite,
    frozen_draws,
    run_fresh_suite,
)
from bnn_adv.evaluation.fresh_table import AttackerDefenderTable, attacker_defender_table
from bnn_adv.evaluation.run_suite import ProtocolResult, run_protocol

__all__ = [
    "AttackerDefenderTable",
    "FreshResult",
    "FreshSubject",
    "FreshSuite",
    "ProtocolResult",
    "Settings",
    "attack_fresh",
    "attacker_defender_table",
    "evaluate_fresh",
    "frozen_draws",
    "run_fresh_suite",
    "run_protocol",
    "success_rates",
]
