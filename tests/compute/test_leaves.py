"""Typed keys and half precision among the parameters: hashed, stored, read, averaged, refereed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks.transfer import make_surrogate
from bnn_adv.compute import leaves
from bnn_adv.compute.canonical import digest
from bnn_adv.compute.disk import DiskDraws, store_in, write_draws
from bnn_adv.evaluation.verification_predictions import compile_network, predict
from bnn_adv.posteriors.distinct import count_distinct
from bnn_adv.posteriors.posterior import (
    Posterior,
    hash_draws,
    load_posterior,
    one_draw,
    predict_log_probs,
    save_posterior,
)

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(5, 6)).astype(np.float32)


def noisy(params, x):
    """Multiply by a random mask of the whole batch, as dropout layers do."""
    mask = jax.random.bernoulli(params["key"], 0.5, x.shape)
    return (x * mask) @ params["w"].astype(jnp.float32)


def draws(dtype=jnp.float32, impl="threefry2x32"):
    keys = jax.random.split(jax.random.key(3, impl=impl), 3)
    return {"w": jnp.asarray(RNG.normal(size=(3, 6, 4)), dtype), "key": keys}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_draws_come_back_from_files_as_they_were(dtype, impl, tmp_path):
    posterior = Posterior(noisy, draws(dtype, impl))
    save_posterior(tmp_path / "a.npz", posterior)
    loaded = load_posterior(tmp_path / "a.npz", noisy, one_draw(posterior))
    write_draws(tmp_path / "d", [posterior.samples], num_samples=3)
    on_disk = Posterior(noisy, DiskDraws(tmp_path / "d", one_draw(posterior)))
    want = np.asarray(predict_log_probs(posterior, X))
    for other in (loaded, on_disk, on_disk.take([0, 1, 2])):
        assert hash_draws(other) == hash_draws(posterior)
        assert jax.tree.map(lambda w: w.dtype, one_draw(other)) == jax.tree.map(
            lambda w: w.dtype, one_draw(posterior)
        )
        np.testing.assert_array_equal(predict_log_probs(other, X), want)
    # The referee's own mean over draws, one draw after the other.
    found, _ = predict(compile_network(on_disk), on_disk, X, 2)
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert count_distinct(on_disk) == 3


def test_hash_tells_keys_and_their_kinds_apart():
    samples = draws()
    other = samples | {"key": samples["key"][::-1]}
    raw = samples | {"key": jax.random.key_data(samples["key"])}
    hashes = {hash_draws(Posterior(noisy, each)) for each in (samples, other, raw)}
    assert len(hashes) == 3


def test_identities_of_draws_on_disk_tell_keys_and_half_precision_apart(tmp_path):
    samples = draws(jnp.bfloat16)
    others = (
        samples | {"key": samples["key"][::-1]},
        samples | {"key": jax.random.key_data(samples["key"])},
        samples | {"w": samples["w"].astype(jnp.float16)},
        samples | {"w": -samples["w"]},
    )

    def identity(name, given):
        return digest(store_in(tmp_path / name)(given))

    assert identity("a", samples) == identity("b", samples)
    found = {identity(f"{number}", given) for number, given in enumerate((samples, *others))}
    assert len(found) == 5


def test_masks_do_not_depend_on_place_or_company():
    """One draw is one network: an input has one prediction, alone or in any batch."""
    posterior = Posterior(noisy, draws())
    whole = np.asarray(predict_log_probs(posterior, X))
    np.testing.assert_allclose(predict_log_probs(posterior, X[::-1])[::-1], whole, atol=1e-6)
    np.testing.assert_allclose(predict_log_probs(posterior, X[3:4]), whole[3:4], atol=1e-6)


def test_mean_weights_keep_the_first_draws_key():
    samples = draws()
    mean = make_surrogate(jax.random.key(0), Posterior(noisy, samples), "mean_weights").samples
    np.testing.assert_allclose(mean["w"][0], samples["w"].mean(axis=0), rtol=1e-5)
    assert (jax.random.key_data(mean["key"]) == jax.random.key_data(samples["key"][:1])).all()


def test_files_of_other_dtypes_are_refused_unless_no_digit_is_lost(tmp_path):
    values = np.round(10 * RNG.normal(size=(3, 6, 4)))
    expected = {"w": jax.ShapeDtypeStruct((6, 4), jnp.float32)}

    def load(array):
        np.savez(tmp_path / "a.npz", w=array)
        return load_posterior(tmp_path / "a.npz", noisy, expected).samples["w"]

    for good in (values.astype(np.float32), values, values.astype(np.longdouble)):
        assert load(good).dtype == jnp.float32
        np.testing.assert_array_equal(load(good), values.astype(np.float32))
    for bad in (values.astype(np.int32), values + 0.1, values.astype(np.float16)):
        with pytest.raises(ValueError, match=r"w has dtype .* where the network has float32"):
            load(bad)
    write_draws(tmp_path / "d", [{"w": values.astype(np.int32)}], num_samples=3)
    with pytest.raises(ValueError, match="w has dtype int32"):
        DiskDraws(tmp_path / "d", expected)
    mixed = [{"w": values[:1].astype(np.float32)}, {"w": values[1:].astype(np.int32)}]
    with pytest.raises(ValueError, match="int32 in one part"):
        write_draws(tmp_path / "e", mixed, num_samples=3)


def test_float64_draws_are_the_float32_ones_that_jax_makes_of_them(tmp_path):
    """Also after a round trip through a file: the referee knows them again."""
    wide = Posterior(noisy, {"w": RNG.normal(size=(3, 6, 4))})
    narrow = Posterior(noisy, {"w": np.asarray(wide.samples["w"], np.float32)})
    assert hash_draws(wide) == hash_draws(narrow)
    save_posterior(tmp_path / "a.npz", wide)
    assert hash_draws(load_posterior(tmp_path / "a.npz", noisy, one_draw(narrow))) == hash_draws(
        wide
    )
    assert leaves.to_plain(np.arange(3, dtype=">f4")).dtype == np.dtype("=f4")
