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
from bnn_adv.evaluation.suite_run import SuiteResult, run_suite

__all__ = [
    "AttackerDefenderTable",
    "FreshResult",
    "FreshSubject",
    "FreshSuite",
    "Settings",
    "SuiteResult",
    "attack_fresh",
    "attacker_defender_table",
    "evaluate_fresh",
    "frozen_draws",
    "run_fresh_suite",
    "run_suite",
    "success_rates",
]
