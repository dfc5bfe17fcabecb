"""Grids of the supplement: sizes, starred networks, filters, and samples by chance."""

import re

import numpy as np
import pytest

from experiments.robustness_accuracy.grids import (
    GRIDS,
    SETTINGS,
    bundle,
    expand,
    group_by_shape,
    keep,
    shrink,
)

TABLE5, TABLE6, TABLE7, OWN = (
    expand(GRIDS[name]) for name in ("table5", "table6", "table7", "own")
)


def test_grids_have_the_published_sizes():
    assert len(TABLE5) == 3 * 4 * 3 * 3 * 3 * 3
    assert len(TABLE6) == 1 * 4 * 5 * 3 * 3 * 6
    assert len(TABLE7) == 4 * 4 * 3 * 4 * 5
    assert {network.method for network in TABLE5} == {"hmc"}
    assert {network.method for network in TABLE6 + TABLE7} == {"sgd"}


def test_starred_networks_are_those_of_table_1():
    (hmc,) = (network for network in TABLE5 if network.is_starred)
    (sgd,) = (network for network in TABLE6 if network.is_starred)
    assert hmc.shape == ("fc", 512, "relu")
    assert [hmc.get(n) for n in ("num_samples", "step_size", "num_integration_steps")] == [
        750,
        0.005,
        10,
    ]
    assert sgd.shape == ("fc", 1024, "relu")
    assert [sgd.get(n) for n in ("learning_rate", "minibatch_size", "num_epochs")] == [
        0.001,
        256,
        5,
    ]
    assert not any(network.is_starred for network in TABLE7)


def test_names_are_distinct_names_of_stages():
    names = [network.name for network in TABLE5 + TABLE6 + TABLE7 + OWN]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)


def test_repeats_differ_in_nothing_but_the_repetition():
    twice = expand(GRIDS["table6"], repeats=2)
    assert len(twice) == 2 * len(TABLE6)
    assert sum(network.is_starred for network in twice) == 1
    assert len({network.name for network in twice}) == len(twice)


def test_shrinking_divides_widths_and_draws_alone():
    small = shrink(GRIDS["table5"], widths=8, draws=10)
    assert small.axes["hidden"] == (16, 32, 64)
    assert small.axes["num_samples"] == (25, 50, 75)
    assert small.axes["step_size"] == GRIDS["table5"].axes["step_size"]
    (starred,) = (network for network in expand(small) if network.is_starred)
    assert (starred.get("hidden"), starred.get("num_samples")) == (64, 75)
    assert shrink(GRIDS["table6"], widths=1000).axes["hidden"] == (1,)


def test_filters():
    both = TABLE5 + TABLE6
    assert keep(both, ["method=hmc", "hidden=512"]) == [n for n in TABLE5 if n.get("hidden") == 512]
    assert {n.get("activation") for n in keep(both, ["activation=relu|tanh"])} == {"relu", "tanh"}
    # HMC has no rate: it has none of the values, and is dropped by none.
    assert keep(both, ["learning_rate=0.001"]) == TABLE6
    assert keep(both, ["learning_rate!=0.001"]) == TABLE5
    assert len(keep(both, ["starred=true"])) == 2
    assert all("h128-tanh" in n.name for n in keep(both, ["h128-tanh"]))
    assert keep(both, []) == both


@pytest.mark.parametrize("term", ["", "width=3", "=3", "widths!=3"])
def test_terms_that_say_nothing_are_errors(term):
    with pytest.raises(ValueError, match="A term of the filter"):
        keep(TABLE5, [term])
    assert "hidden" in SETTINGS


@pytest.mark.parametrize("seed", range(5))
def test_a_sample_has_the_starred_network_and_its_size(seed):
    rng = np.random.default_rng(seed)
    shapes = list(group_by_shape(rng, TABLE5, num_shapes=3, per_shape=4))
    assert [len(members) for members in shapes] == [4, 4, 4]
    assert shapes[0][0].is_starred
    for members in shapes:
        assert len({network.shape for network in members}) == 1
        assert len(set(members)) == 4
    everything = [n for members in group_by_shape(rng, TABLE6) for n in members]
    assert sorted(n.name for n in everything) == sorted(n.name for n in TABLE6)


def test_samples_follow_the_seed():
    first, again, other = (
        list(group_by_shape(np.random.default_rng(seed), TABLE7, num_shapes=4, per_shape=4))
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_bundles_differ_in_rate_and_repetition_alone():
    bundles = list(bundle(expand(GRIDS["table7"], repeats=2)))
    assert {len(members) for members in bundles} == {4 * 2}
    for members in bundles[:10]:
        assert len({(n.shape, n.get("num_epochs")) for n in members}) == 1
        assert len({(n.get("learning_rate"), n.get("repeat")) for n in members}) == 8
