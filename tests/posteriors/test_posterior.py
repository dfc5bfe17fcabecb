"""Posteriors: predictive quantities, chunks, files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.compute import files
from bnn_adv.posteriors.posterior import (
    Posterior,
    hash_draws,
    load_posterior,
    log_probs,
    predict_log_probs,
    save_posterior,
)

NETWORK = networks.MLP((5,), 4, "tanh")


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_predictive_is_the_mean_of_softmaxes(posterior, batch, chunk, batch_size):
    x, _ = batch
    logits = jax.vmap(lambda params: posterior.apply_fn(params, x))(posterior.samples)
    found = predict_log_probs(posterior, x, sample_chunk=chunk, batch_size=batch_size)
    np.testing.assert_allclose(
        np.exp(found), jax.nn.softmax(logits).mean(axis=0), rtol=1e-5, atol=1e-7
    )
    each = log_probs(posterior, x, sample_chunk=chunk, batch_size=batch_size)
    np.testing.assert_allclose(each, jax.nn.log_softmax(logits), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_draws(batch):
    """Temporary memory of the compiled program, with one draw a chunk."""

    def temporary(num_samples):
        network = networks.MLP((2,), 4, "tanh")
        one = networks.init_params(jax.random.key(0), network, (6,))
        samples = jax.tree.map(lambda w: jnp.stack([w] * num_samples), one)
        posterior = Posterior(networks.get_apply_fn(network), samples)
        x = jnp.ones((256, 6))
        compiled = (
            jax.jit(lambda p, x: predict_log_probs(p, x, sample_chunk=1))
            .lower(posterior, x)
            .compile()
        )
        return compiled.memory_analysis().temp_size_in_bytes

    # Sixty more draws' logits, held at once, would take 4 * 256 * 4 bytes each.
    assert temporary(64) < temporary(4) + 60 * 4 * 256 * 4 / 4


def test_save_and_load_give_bit_equal_predictions(posterior, batch, tmp_path):
    save_posterior(tmp_path / "p.npz", posterior)
    expected = jax.eval_shape(lambda: networks.init_params(jax.random.key(0), NETWORK, (6,)))
    loaded = load_posterior(tmp_path / "p.npz", posterior.apply_fn, expected)
    np.testing.assert_array_equal(
        predict_log_probs(loaded, batch[0]), predict_log_probs(posterior, batch[0])
    )
    assert loaded.num_samples == 7


def test_loading_names_what_does_not_fit(posterior, tmp_path, monkeypatch):
    save_posterior(tmp_path / "p.npz", posterior)
    wider = networks.MLP((6,), 4, "tanh")
    expected = jax.eval_shape(lambda: networks.init_params(jax.random.key(0), wider, (6,)))
    # The headers tell: no array is read for it.
    monkeypatch.setattr(files, "read_arrays", None)
    with pytest.raises(ValueError, match=r"hidden_0/kernel has shape \(6, 5\).*\(6, 6\)"):
        load_posterior(tmp_path / "p.npz", posterior.apply_fn, expected)
    deeper = networks.MLP((5, 5), 4, "tanh")
    expected = jax.eval_shape(lambda: networks.init_params(jax.random.key(0), deeper, (6,)))
    with pytest.raises(ValueError, match="hidden_1/bias is missing"):
        load_posterior(tmp_path / "p.npz", posterior.apply_fn, expected)


def test_truncated_file_is_refused_by_name(posterior, tmp_path):
    path = tmp_path / "p.npz"
    save_posterior(path, posterior)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"p\.npz.*damaged"):
        files.read_arrays(path)


def test_take_keeps_the_named_draws(posterior):
    taken = posterior.take([4, 1])
    np.testing.assert_array_equal(
        taken.samples["logits"]["bias"], posterior.samples["logits"]["bias"][jnp.asarray([4, 1])]
    )


@pytest.mark.parametrize("chunk", [0, 8])
def test_bad_chunks_are_refused(posterior, batch, chunk):
    with pytest.raises(ValueError, match=f"between 1 and .*7.*got {chunk}"):
        predict_log_probs(posterior, batch[0], sample_chunk=chunk)


def test_a_list_of_draws_is_stacked(posterior):
    draws = [jax.tree.map(lambda w, s=s: w[s], posterior.samples) for s in range(7)]
    again = Posterior.stack(posterior.apply_fn, draws)
    assert hash_draws(again) == hash_draws(posterior)
    with pytest.raises(ValueError, match="Draw 1 has"):
        Posterior.stack(posterior.apply_fn, [draws[0], {"other": jnp.zeros(2)}])
    with pytest.raises(ValueError, match="one draw at least"):
        Posterior.stack(posterior.apply_fn, [])


def test_the_hash_tells_draws_apart(posterior):
    first = hash_draws(posterior)
    assert first != hash_draws(posterior.take([0, 1, 2, 3, 4, 6, 5]))
    assert first != hash_draws(posterior.take([0, 1, 2, 3, 4, 5]))
    assert first == hash_draws(posterior.take(range(7)))
