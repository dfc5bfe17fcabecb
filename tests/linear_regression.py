"""A posterior known in closed form: Bayesian linear regression."""

import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size

from bnn_adv import networks
from bnn_adv.inference.densities import Data

NETWORK = networks.MLP((), num_classes=1)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2)).astype(np.float32)
Y = (X @ [[1.0], [-0.5]] + 0.3 + RNG.normal(size=(40, 1))).astype(np.float32)
DATA = Data(jnp.asarray(X), jnp.asarray(Y))
SCALE = 0.8

# Weights, then the bias: precision X'X + 1 / scale^2 under unit noise.
DESIGN = np.concatenate([X, np.ones((40, 1))], axis=1).astype(np.float64)
COVARIANCE = np.linalg.inv(DESIGN.T @ DESIGN + np.eye(3) / SCALE**2)
MEAN = COVARIANCE @ DESIGN.T @ Y[:, 0]


def flatten(posterior):
    """Return weights and bias, [S, 3]."""
    weights = np.asarray(posterior.samples["logits"]["kernel"])[:, :, 0]
    return np.concatenate([weights, np.asarray(posterior.samples["logits"]["bias"])], axis=1)


def assert_within_five_standard_errors(draws, chains=1, covariance=COVARIANCE, *, mean=MEAN):
    """Means, and every entry of the covariance; enough effective samples first."""
    centred = draws - mean
    products = (centred[:, :, None] * centred[:, None, :]).reshape(len(draws), -1)
    for values, truth in ((draws, mean), (products, covariance.ravel())):
        per_chain = values.reshape(chains, -1, values.shape[-1]).astype(np.float64)
        ess = effective_sample_size(per_chain)
        assert ess.min() > 200, ess
        error = values.std(axis=0) / np.sqrt(ess)
        assert (np.abs(values.mean(axis=0) - truth) < 5 * error).all()
