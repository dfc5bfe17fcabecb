"""Densities against SciPy, and the unbiasedness of minibatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bnn_adv import networks
from bnn_adv.inference import densities
from bnn_adv.inference.densities import Data, Prior

NETWORK = networks.MLP((5,), 3, "tanh")
APPLY = networks.get_apply_fn(NETWORK)
PARAMS = networks.init_params(jax.random.key(0), NETWORK, (4,))
RNG = np.random.default_rng(0)
DATA = Data(
    jnp.asarray(RNG.uniform(size=(12, 4)), jnp.float32), jnp.asarray(np.arange(12) % 3, jnp.int32)
)


def test_isotropic_prior_is_a_product_of_gaussians():
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(PARAMS)])
    expected = stats.norm(scale=0.7).logpdf(flat).sum()
    np.testing.assert_allclose(densities.log_prior(PARAMS, Prior(0.7)), expected, rtol=1e-5)


def test_fan_in_prior_scales_kernels_only():
    scales = densities.prior_scales(PARAMS, Prior(2.0, "fan_in"))
    assert scales["hidden_0"] == {"kernel": pytest.approx(2 / np.sqrt(4)), "bias": 2.0}
    assert scales["logits"] == {"kernel": pytest.approx(2 / np.sqrt(5)), "bias": 2.0}


def test_convolution_fan_in_counts_the_window():
    network = networks.ConvNet(3)
    params = jax.eval_shape(lambda: networks.init_params(jax.random.key(0), network, (28, 28, 1)))
    scales = densities.prior_scales(params, Prior(1.0, "fan_in"))
    assert scales["conv_1"]["kernel"] == pytest.approx(1 / np.sqrt(5 * 5 * 32))


def test_categorical_likelihood_is_log_softmax_at_the_label():
    logits = np.asarray(APPLY(PARAMS, DATA.x), np.float64)
    expected = sum(
        row[y] - np.log(np.exp(row).sum()) for row, y in zip(logits, DATA.y, strict=True)
    )
    np.testing.assert_allclose(densities.log_likelihood(PARAMS, DATA, APPLY), expected, rtol=1e-5)


def test_minibatches_are_unbiased():
    """The mean over a partition into equal batches is the full-data log density."""
    full = densities.logdensity_fn(PARAMS, DATA, apply_fn=APPLY, prior=Prior())
    parts = [
        densities.logdensity_fn(
            PARAMS,
            Data(DATA.x[i : i + 3], DATA.y[i : i + 3]),
            apply_fn=APPLY,
            prior=Prior(),
            num_data=12,
        )
        for i in range(0, 12, 3)
    ]
    np.testing.assert_allclose(np.mean(parts), full, rtol=1e-5)
    assert np.std(parts) > 0.1


def test_temperature_divides_the_log_density():
    warm, cold = (
        densities.logdensity_fn(PARAMS, DATA, apply_fn=APPLY, prior=Prior(), temperature=t)
        for t in (1.0, 0.25)
    )
    np.testing.assert_allclose(cold, 4 * warm, rtol=1e-6)


def test_data_are_arguments_and_not_constants_of_the_program():
    big = Data(jnp.ones((5000, 4)), jnp.zeros(5000, jnp.int32))
    program = jax.jit(
        lambda params, data: densities.logdensity_fn(params, data, apply_fn=APPLY, prior=Prior())
    ).lower(PARAMS, big)
    assert len(program.as_text()) < 20_000


@pytest.mark.parametrize(
    ("arguments", "message"), [((0.0,), "above 0"), ((1.0, "cauchy"), "fan_in, got 'cauchy'")]
)
def test_bad_priors_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Prior(*arguments)
