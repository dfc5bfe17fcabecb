"""HMC of a robust likelihood against the generalised posterior by numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpyro.diagnostics import effective_sample_size
from scipy import integrate, special

from bnn_adv.inference import Data, hmc, sgld
from bnn_adv.inference.robust import Robust

X = np.tile(np.array([[0.9], [0.8], [0.2], [0.6], [0.7], [0.3]], np.float32), (6, 1))
Y = np.tile(np.array([1, 1, 0, 1, 1, 0], np.int32), 6)
DATA = Data(jnp.asarray(X), jnp.asarray(Y))
EPSILON, WEIGHT = 0.2, 0.25


class Slope(nn.Module):
    """Logits (0, s (x - 1/2)): affine in the input, so that intervals are exact."""

    @nn.compact
    def __call__(self, x):
        slope = self.param("slope", nn.initializers.ones, (1, 1))
        z = (x - 0.5) @ slope
        return jnp.concatenate([jnp.zeros_like(z), z], axis=-1)


def unnormalised(slope, weight):
    """The prior N(0, 1) times the robust likelihood, in closed form."""
    sides = 2.0 * Y - 1
    clean = slope * sides * (X[:, 0].astype(float) - 0.5)
    # The ball is cut with the box [0, 1].
    low, high = np.maximum(X[:, 0] - EPSILON, 0) - 0.5, np.minimum(X[:, 0] + EPSILON, 1) - 0.5
    worst = np.minimum(slope * sides * low, slope * sides * high)
    each = weight * special.expit(clean) + (1 - weight) * special.expit(worst)
    return np.exp(-(slope**2) / 2) * each.prod()


def moment(power, weight):
    """E s^power of the generalised posterior."""

    def integral(p):
        options = {"points": [0.0], "epsabs": 0, "epsrel": 1e-6}
        return integrate.quad(lambda s: s**p * unnormalised(s, weight), -6, 9, **options)[0]

    return integral(power) / integral(0)


@pytest.mark.slow
def test_hmc_samples_the_generalised_posterior():
    robust = Robust("interval", weight=WEIGHT, epsilon=EPSILON)
    config = hmc.Config(
        **{"num_samples": 1000, "num_warmup": 100, "num_chains": 2, "thinning": 1},
        **{"step_size": 0.4, "num_integration_steps": 3, "adapt": "step_size", "robust": robust},
    )
    result = hmc.run(jax.random.key(0), Slope(), DATA, config)
    draws = np.asarray(result.posterior.samples["slope"]).reshape(2, 1000).astype(float)
    for power in (1, 2):
        values = draws**power
        size = effective_sample_size(values[..., None]).item()
        assert size > 400
        error = values.std() / np.sqrt(size)
        assert abs(values.mean() - moment(power, WEIGHT)) < 4 * error
        # The plain posterior is another one, by more than what the chains cannot tell apart.
        assert abs(values.mean() - moment(power, 1.0)) > 10 * error


@pytest.mark.slow
def test_stochastic_gradients_of_attacks_find_the_same_mean():
    """One step of fgsm ends at the worst corner of an affine network: Adv-BNN by Langevin."""
    config = sgld.Config(
        **{"num_samples": 1000, "num_warmup": 300, "num_chains": 2, "thinning": 20},
        **{"step_size": 0.03, "minibatch_size": 36},
        robust=Robust("fgsm", weight=WEIGHT, epsilon=EPSILON),
    )
    result = sgld.run(jax.random.key(0), Slope(), DATA, config)
    draws = np.asarray(result.posterior.samples["slope"]).reshape(2, 1000).astype(float)
    size = effective_sample_size(draws[..., None]).item()
    assert size > 400
    assert abs(draws.mean() - moment(1, WEIGHT)) < 4 * draws.std() / np.sqrt(size)
