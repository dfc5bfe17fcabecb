"""Meshes of four virtual devices give what one device gives."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import AttackSettings, pgd
from bnn_adv.attacks.objectives import OBJECTIVES, value_and_gradient
from bnn_adv.attacks.threat import LInf
from bnn_adv.compute import parallel
from bnn_adv.compute.disk import DiskDraws, write_draws
from bnn_adv.evaluation import Settings, run_suite
from bnn_adv.evaluation.masking import zero_gradients
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.posteriors.posterior import Posterior, log_probs, predict_log_probs, shard_posterior
from tests.conftest import random_posterior
from tests.flat import run_attack

MESHES = ["draws:4", "draws:2,data:2", "data:4"]
evaluate = jax.jit(value_and_gradient, static_argnums=0, static_argnames="sample_chunk")


@pytest.fixture
def images():
    x = np.random.default_rng(2).uniform(0.05, 0.95, (10, 6)).astype(np.float32)
    return x, (np.arange(10) % 4).astype(np.int32)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [("draws:4,data:2", (4, 2)), ("data:3", (1, 3)), (" draws:1 ", (1, 1)), ("", (1, 1))],
)
def test_a_mesh_is_read_from_text(text, sizes):
    assert parallel.parse_mesh(text) == {"draws": sizes[0], "data": sizes[1]}


@pytest.mark.parametrize("text", ["draws", "draws:0", "draws:-1", "model:2", "data:2,data:2", "2"])
def test_what_is_no_mesh_is_named(text):
    with pytest.raises(ValueError, match=r"Cannot read .*draws, data.*draws:4,data:2"):
        parallel.parse_mesh(text)


def test_a_mesh_needs_its_devices():
    with pytest.raises(ValueError, match=r"'draws:4,data:2' takes 8 devices and JAX sees 4"):
        parallel.make_mesh("draws:4,data:2")


def test_uneven_splits_are_refused(images):
    mesh = parallel.make_mesh("draws:2,data:2")
    with pytest.raises(ValueError, match="7 draws cannot be split evenly over draws:2"):
        shard_posterior(random_posterior(7), mesh)
    with pytest.raises(ValueError, match=r"batch_size=5 .* data:2"):
        run_attack(
            jax.random.key(0),
            pgd.build(),
            OBJECTIVES["expected_loss"],
            random_posterior(2),
            *images,
            threat=LInf(0.1),
            settings=AttackSettings(batch_size=5, mesh=mesh),
        )


def test_draws_on_disk_are_not_split(tmp_path):
    posterior = random_posterior(2)
    write_draws(tmp_path, [posterior.samples], num_samples=2)
    template = jax.tree.map(lambda w: w[0], posterior.samples)
    with pytest.raises(ValueError, match="on disk"):
        shard_posterior(
            Posterior(posterior.apply_fn, DiskDraws(tmp_path, template)),
            parallel.make_mesh("draws:2"),
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("mesh_text", MESHES)
def test_values_and_gradients_equal_one_device(name, mesh_text, images):
    """Three draws a device in chunks of two: the last chunk of every shard repeats one."""
    mesh = parallel.make_mesh(mesh_text)
    posterior = random_posterior(12)
    x, y = images[0][:8], images[1][:8]
    expected = evaluate(OBJECTIVES[name], posterior, x, y)
    found = evaluate(
        OBJECTIVES[name],
        shard_posterior(posterior, mesh),
        *parallel.shard_examples((x, y), mesh),
        sample_chunk=2,
    )
    for a, b in zip(parallel.to_host(found), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    assert len(found.gradient.sharding.device_set) == 4


@pytest.mark.slow
def test_draws_never_travel_between_devices():
    """The compiled gradient sums over devices once; no draw is gathered anywhere."""
    mesh = parallel.make_mesh("draws:4")
    posterior = shard_posterior(random_posterior(16), mesh)
    x, y = parallel.replicate((jnp.ones((8, 6)), jnp.zeros(8, jnp.int32)), mesh)
    text = (
        jax.jit(functools.partial(value_and_gradient, OBJECTIVES["expected_loss"], sample_chunk=2))
        .lower(posterior, x, y)
        .compile()
        .as_text()
    )
    assert not re.findall(r"all-gather|all-to-all|collective-permute", text)
    assert "all-reduce" in text


@pytest.mark.slow
@pytest.mark.parametrize("mesh_text", MESHES)
def test_predictions_equal_one_device(mesh_text, images):
    mesh = parallel.make_mesh(mesh_text)
    posterior = random_posterior(4)
    x = parallel.replicate(images[0], mesh)
    for function in (predict_log_probs, log_probs):
        expected = function(posterior, images[0], batch_size=4)
        found = function(shard_posterior(posterior, mesh), x, batch_size=4)
        np.testing.assert_allclose(parallel.to_host(found), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mesh_text", MESHES)
def test_attacks_equal_one_device(mesh_text, images):
    """Ten images in batches of eight: the rest is padded to a multiple of the mesh."""
    mesh = parallel.make_mesh(mesh_text)
    posterior = random_posterior(4)
    attack = functools.partial(
        run_attack,
        jax.random.key(1),
        pgd.build(num_steps=3),
        OBJECTIVES["mean_logit_margin"],
        threat=LInf(0.1),
        batch_size=8,
    )
    expected = attack(posterior, *images)
    found = attack(shard_posterior(posterior, mesh), *images, mesh=mesh)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_a_suite_equals_one_device(images):
    mesh = parallel.make_mesh("draws:2,data:2")
    posterior = random_posterior(4, scale=3.0)
    run = functools.partial(run_suite, jax.random.key(0), get_suite("corrected"), threat=LInf(0.2))
    expected = run(posterior, *images, settings=Settings(8))
    found = run(shard_posterior(posterior, mesh), *images, settings=Settings(8, mesh=mesh))
    assert found.accuracies == pytest.approx(expected.accuracies)
    assert found.softmax_robustness == pytest.approx(expected.softmax_robustness, abs=1e-5)
    assert found.zero_gradient_share == expected.zero_gradient_share
    np.testing.assert_array_equal(
        zero_gradients(OBJECTIVES["published"], shard_posterior(posterior, mesh), *images),
        zero_gradients(OBJECTIVES["published"], posterior, *images),
    )


@pytest.mark.parametrize(
    "given", [{"coordinator_address": "localhost:1"}, {"num_processes": 2, "process_id": 0}]
)
def test_processes_are_named_in_full_or_not_at_all(given):
    with pytest.raises(ValueError, match="together, or none"):
        parallel.initialize(**given)
