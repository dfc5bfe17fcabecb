"""Unadjusted methods beside adjusted ones of the same target."""

import json

import numpy as np

from bnn_adv.report.table import to_text
from experiments.launch.log_densities import compare_rows, log_density_table
from experiments.launch.methods import make_rows


def rows(**settings):
    return make_rows(settings, ("nuts", "mclmc", "sgld", "vi"), "mlp")


def records():
    rng = np.random.default_rng(0)
    chains = {name: rng.normal(size=(2, 300)).tolist() for name in ("nuts", "mclmc", "sgld")}
    found = {name: {"log_density": curves} for name, curves in chains.items()}
    found["nuts"]["acceptance_rate"] = 0.8
    return {**found, "vi": {"elbo": [1.0]}}


def pairs(methods):
    found = compare_rows(methods, records())
    json.dumps(found, allow_nan=False)
    return [(pair["unadjusted"], pair["adjusted"]) for pair in found]


def test_pairs_have_one_target():
    assert pairs(rows()) == [("mclmc", "nuts"), ("sgld", "nuts")]
    assert pairs(rows(**{"sgld.temperature": 0.5})) == [("mclmc", "nuts")]
    assert pairs(rows(**{"mclmc.prior.scale": 0.5})) == [("sgld", "nuts")]
    assert pairs(rows(**{"mclmc.network": "mlp", "mclmc.mlp.hidden": (8,)})) == [("sgld", "nuts")]


def test_they_are_a_table():
    (table,) = log_density_table(compare_rows(rows(), records()))
    assert "mclmc" in to_text(table)
    assert "is not told from 0" in to_text(table)
    assert log_density_table([]) == []
