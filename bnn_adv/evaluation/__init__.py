"""Attack a posterior by a suite of attacks and say what is left, per image and in numbers."""

from bnn_adv.attacks.base import Settings
from bnn_adv.evaluation.evaluate import EvaluationSettings
from bnn_adv.evaluation.fresh import (
    FreshResult,
    FreshSettings,
    attack_fresh,
    evaluate_fresh,
    success_rates,
)
from bnn_adv.evaluation.fresh_suite import (
    FreshSubject,
    FreshSuite,
    frozen_draws,
    run_fresh_suite,
)
from bnn_adv.evaluation.fresh_table import (
    AttackerDefenderTable,
    TableSettings,
    attacker_defender_table,
)
from bnn_adv.evaluation.suite_run import SuiteResult, run_suite
from bnn_adv.evaluation.suites import Entry, Suite

__all__ = [
    "AttackerDefenderTable",
    "Entry",
    "EvaluationSettings",
    "FreshResult",
    "FreshSettings",
    "FreshSubject",
    "FreshSuite",
    "Settings",
    "Suite",
    "SuiteResult",
    "TableSettings",
    "attack_fresh",
    "attacker_defender_table",
    "evaluate_fresh",
    "frozen_draws",
    "run_fresh_suite",
    "run_suite",
    "success_rates",
]
