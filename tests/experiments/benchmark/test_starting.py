"""The first evaluation of a process, and how it is reported."""

import dataclasses

import pytest

from experiments.benchmark import children, starting
from experiments.benchmark.sizes import SIZES


@pytest.mark.slow
def test_a_first_evaluation_makes_few_programs():
    """79 once: every shape, static argument and eager operation is one."""
    reply = children.call(starting.__name__, {"suite": "fast"}, {})
    assert 10 < reply["programs"] <= starting.MOST_PROGRAMS
    # What stands and what falls is looked at by programs of its own.
    assert 0.3 < reply["adversarial_accuracy"] < 0.9 < reply["accuracy"]


def test_both_starts_are_reported(monkeypatch):
    asked = []

    def call(module, request, environment):
        cold = environment["JAX_ENABLE_COMPILATION_CACHE"] == "false"
        asked.append((request["suite"], cold, environment.get("BNN_ADV_COMPILATION_CACHE")))
        return {"time": 7.0, "CPU time": 13.0, "programs": 24 if cold else 23}

    monkeypatch.setattr(children, "call", call)
    size = dataclasses.replace(SIZES["default"], starting_suites=("fast",))
    rows = starting.run(size, lambda line: None)
    assert [(suite, cold) for suite, cold, _ in asked] == [("fast", cold) for cold in (1, 0, 0)]
    # The second and the third share a folder.
    assert asked[0][2] is None
    assert asked[1][2] == asked[2][2] is not None
    found = {row.figure: row.to_dict() for row in rows}
    verdicts = {figure: row["met"] for figure, row in found.items()}
    cold = {"time, cold": True, "CPU time, cold": False, "programs, cold": True}
    assert verdicts == cold | dict.fromkeys(("time, cached", "CPU time, cached"), None) | {
        "programs, cached": None
    }
    assert not [row for row in starting.run(SIZES["tiny"], lambda line: None) if row.target]
