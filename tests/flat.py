"""Public functions with their settings as keywords, for tests that vary one after another."""

import dataclasses
import functools

import bnn_adv
from bnn_adv import attacks, evaluation
from bnn_adv.attacks import trace
from bnn_adv.evaluation import masking, uncertainty


def flatten(function, record):
    """Return a function that takes the fields of its settings as keywords of its own."""
    names = {field.name for field in dataclasses.fields(record)}

    @functools.wraps(function)
    def call(*arguments, **options):
        own = {name: options.pop(name) for name in list(options) if name in names}
        settings = record.extend(options.pop("settings", record()), **own)
        return function(*arguments, settings=settings, **options)

    return call


evaluate = flatten(bnn_adv.evaluate, evaluation.EvaluationSettings)
run_attack = flatten(attacks.run_attack, attacks.AttackSettings)
trace_attack = flatten(trace.trace_attack, attacks.Settings)
attack_fresh = flatten(evaluation.attack_fresh, evaluation.FreshSettings)
attacker_defender_table = flatten(evaluation.attacker_defender_table, evaluation.TableSettings)
run_suite = flatten(evaluation.run_suite, evaluation.Settings)
gather = flatten(masking.gather, masking.MaskingSettings)
inspect = flatten(masking.inspect, masking.MaskingSettings)
evaluate_uncertainty = flatten(uncertainty.evaluate_uncertainty, uncertainty.UncertaintySettings)
