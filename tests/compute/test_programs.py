"""Memory, threads and files do not grow with the number of networks that were looked at."""

import gc
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import AttackSettings, batches, pgd, run_attack
from bnn_adv.attacks.objectives import OBJECTIVES, value_and_gradient
from bnn_adv.attacks.threat import LInf
from bnn_adv.attacks.validation import open_problem
from bnn_adv.compute import programs
from bnn_adv.compute.disk import DiskDraws, store_in
from bnn_adv.evaluation.cascade import Settings, predict
from bnn_adv.evaluation.uncertainty.evasion import evasive_objective
from bnn_adv.posteriors.posterior import Posterior

X = np.random.default_rng(0).uniform(0.2, 0.8, (8, 3)).astype(np.float32)
Y = np.arange(8) % 2


def linear(params, x):
    return x @ params["w"]


def draws(seed):
    return {"w": jnp.asarray(np.random.default_rng(seed).normal(size=(2, 3, 2)), jnp.float32)}


def attack(posterior, objective=OBJECTIVES["mean_logit_margin"]):
    return run_attack(
        jax.random.key(0),
        pgd.build(num_steps=2),
        objective,
        posterior,
        X,
        Y,
        threat=LInf(0.1),
        settings=AttackSettings(batch_size=8, sample_chunk=1),
    )


@pytest.fixture(autouse=True)
def few(monkeypatch):
    programs.drop()
    monkeypatch.setattr(programs, "MOST", 2)
    yield
    programs.drop()


@pytest.mark.slow
def test_networks_that_nobody_looks_at_again_are_forgotten():
    """Each kept its programs, and the arrays that it closed over."""
    functions = []
    for scale in range(3):
        values = jnp.full(1000, 1.0 + scale)

        def apply_fn(params, x, values=values):
            return values[0] * linear(params, x)

        posterior = Posterior(apply_fn, draws(0))
        functions.append(weakref.ref(apply_fn))
        open_problem(posterior, X, Y, LInf(0.1))
        attack(posterior)
        predict(posterior, X, Settings(sample_chunk=1))
    del apply_fn, posterior, values
    gc.collect()
    alive = [number for number, found in enumerate(functions) if found() is not None]
    assert alive == [2]
    programs.drop()
    gc.collect()
    assert functions[2]() is None


@pytest.mark.slow
def test_new_draws_of_a_network_run_the_same_programs():
    attack(Posterior(linear, draws(0)))
    count = batches.advance._cache_size()
    assert count == 1
    before = attack(Posterior(linear, draws(1)))
    for seed in range(2, 6):
        attack(Posterior(linear, draws(seed)))
    assert batches.advance._cache_size() == count
    # What was dropped is compiled again, to the same result.
    programs.drop()
    assert batches.advance._cache_size() == 0
    np.testing.assert_array_equal(attack(Posterior(linear, draws(1))), before)


@pytest.mark.slow
def test_draws_on_disk_run_the_same_programs_wherever_they_lie(tmp_path):
    """Every folder had programs of its own: 200 MiB and half a minute an evaluation."""
    programs.drop()
    for seed in range(6):
        on_disk = Posterior(linear, store_in(tmp_path / f"{seed}")(draws(seed)))
        np.testing.assert_array_equal(attack(on_disk), attack(Posterior(linear, draws(seed))))
    # One of draws on disk, one of draws in memory.
    assert batches.advance._cache_size() == 2


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["entropy", "mutual_information"])
def test_thresholds_of_a_detector_share_programs(measure):
    posterior = Posterior(linear, {"w": 5 * draws(0)["w"]})
    attack(posterior, evasive_objective(measure, 0.5))
    count = batches.advance._cache_size()
    for threshold, weight in ((0.1, 3.0), (0.3, 3.0), (0.5, 1.0)):
        attack(posterior, evasive_objective(measure, threshold, weight))
    assert batches.advance._cache_size() == count
    # The numbers reach the objective: log(t / s) more of a penalty for a threshold of s below t.
    wrong = jnp.asarray(predict(posterior, X, Settings(sample_chunk=1)).argmin(axis=1))
    low, high, light = (
        value_and_gradient(evasive_objective(measure, *numbers), posterior, X, wrong).value
        for numbers in ((1e-6, 3.0), (2e-6, 3.0), (1e-6, 1.0))
    )
    np.testing.assert_allclose(high - low, 3 * np.log(2), rtol=1e-4)
    assert (light > low).all()


def test_draws_on_disk_share_a_thread_and_close_their_files(tmp_path):
    found = []
    for seed in range(6):
        on_disk = Posterior(linear, store_in(tmp_path / f"{seed}")(draws(seed)))
        predict(on_disk, X, Settings(sample_chunk=1))
        threads = [t for t in threading.enumerate() if t.name.startswith("read-draws")]
        found.append((len(threads), _open_files(tmp_path)))
        assert len(threads) <= 1
    assert max(count for _, count in found) <= 4
    # What was closed is opened again.
    first = DiskDraws(tmp_path / "0", {"w": jax.ShapeDtypeStruct((3, 2), jnp.float32)})
    np.testing.assert_array_equal(first.arrays[0], draws(0)["w"])


def test_draws_on_disk_that_were_replaced_are_not_mixed_with_the_old_ones(tmp_path, monkeypatch):
    first = store_in(tmp_path / "a")(draws(0))
    store_in(tmp_path / "a")(draws(1))
    with pytest.raises(ValueError, match=r"000.npy was replaced while its draws were in use"):
        _ = first.arrays


def _open_files(folder):
    """Return how many files of the folder this process has mapped."""
    with open("/proc/self/maps") as file:
        return len({line.split()[-1] for line in file if str(folder) in line})


@pytest.mark.slow
def test_one_network_at_many_sizes_does_not_use_up_memory_mappings(monkeypatch):
    if not programs._count_maps():
        pytest.skip("This system does not list mappings.")

    def sort(x):
        return jnp.sort(x).sum() + jnp.sin(x)

    compiled = programs.jit(sort)
    gc.collect()
    before = programs._count_maps()
    monkeypatch.setattr(programs, "_limit", lambda: before + 400)
    monkeypatch.setattr(programs, "_SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(programs._Room, "next_look", 0.0)
    monkeypatch.setattr(programs._Room, "most", before + 200)
    found = []
    for size in range(2, 62):
        programs.note(linear)
        compiled(np.ones((size, 3), np.float32))
        found.append(programs._count_maps())
    assert max(found) < before + 400
    # Without dropping, sixty programs take more: the test would see it.
    kept = jax.jit(sort)
    for size in range(2, 62):
        kept(np.ones((size, 3), np.float32))
    assert programs._count_maps() > before + 400
