"""Draws on disk: same results as in memory, and files that are complete or not there."""

import itertools

import jax
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.attacks import AttackSettings, pgd, run_attack
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import LInf
from bnn_adv.compute.disk import DiskDraws, write_draws
from bnn_adv.posteriors.posterior import Posterior, log_probs, predict_log_probs


def one_draw(posterior):
    return jax.tree.map(lambda w: w[0], posterior.samples)


def parts(posterior, *bounds):
    for first, last in itertools.pairwise(bounds):
        yield jax.tree.map(lambda w, a=first, b=last: np.asarray(w[a:b]), posterior.samples)


@pytest.fixture
def on_disk(posterior, tmp_path):
    write_draws(tmp_path / "draws", parts(posterior, 0, 3, 7), num_samples=7)
    return Posterior(posterior.apply_fn, DiskDraws(tmp_path / "draws", one_draw(posterior)))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_predictions_equal_those_from_memory(posterior, on_disk, batch, chunk):
    assert on_disk.num_samples == 7
    for function in (log_probs, predict_log_probs):
        found = function(on_disk, batch[0], sample_chunk=chunk, batch_size=4)
        expected = function(posterior, batch[0], sample_chunk=chunk, batch_size=4)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["expected_loss", "scaled_margin", "loss_of_mean"])
def test_attacks_equal_those_from_memory(posterior, on_disk, batch, name):
    x, y = batch
    found, expected = (
        run_attack(
            jax.random.key(0),
            pgd.build(num_steps=4),
            OBJECTIVES[name],
            p,
            x,
            y,
            threat=LInf(0.1),
            settings=AttackSettings(sample_chunk=2),
        )
        for p in (on_disk, posterior)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_take_reads_the_named_draws(posterior, on_disk):
    taken = on_disk.take([5, 1]).samples["logits"]["bias"]
    np.testing.assert_array_equal(taken, posterior.samples["logits"]["bias"][np.asarray([5, 1])])


def test_the_program_holds_no_draws(on_disk, batch):
    """They are read while it runs: its arguments are the inputs, and which folder it is."""
    memory = predict_log_probs.lower(on_disk, batch[0]).compile().memory_analysis()
    assert memory.argument_size_in_bytes == batch[0].size * 4 + 4


def test_a_wrong_count_leaves_nothing(posterior, tmp_path):
    with pytest.raises(ValueError, match="7 draws where 8 were announced"):
        write_draws(tmp_path / "draws", parts(posterior, 0, 7), num_samples=8)
    assert not list((tmp_path / "draws").iterdir())


def test_another_network_is_refused_by_name(on_disk):
    wider = networks.MLP((6,), 4, "tanh")
    template = networks.init_params(jax.random.key(0), wider, (6,))
    with pytest.raises(ValueError, match=r"draws does not fit.*hidden_0/kernel has shape \(6, 5\)"):
        DiskDraws(on_disk.samples.folder, template)


def test_a_truncated_array_is_refused(posterior, on_disk):
    folder = on_disk.samples.folder
    largest = max(folder.glob("*.npy"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"{largest.name}.*truncated"):
        DiskDraws(folder, one_draw(posterior))


def test_a_folder_without_draws_is_named(posterior, tmp_path):
    with pytest.raises(FileNotFoundError, match="draws"):
        DiskDraws(tmp_path, one_draw(posterior))
