"""A posterior known by quadrature: Bayesian logistic regression, as a network with two logits.

The likelihood knows the difference of the two logits alone, whose weights have the prior variance
2; their sums have the prior N(0, 2), whatever the data.
"""

import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size
from scipy import optimize, special

from bnn_adv import networks
from bnn_adv.inference.densities import Data
from tests.linear_regression import X

NETWORK = networks.MLP((), num_classes=2)
INPUTS = X[:, :1]
CLASSES = (X[:, 0] + np.random.default_rng(1).logistic(size=40) > -0.3).astype(np.int32)
DATA = Data(jnp.asarray(INPUTS), jnp.asarray(CLASSES))
DESIGN = np.concatenate([INPUTS, np.ones((40, 1))], axis=1).astype(np.float64)
SIGNS = np.where(CLASSES == 1, 1.0, -1.0)


def integrate():
    """Return mean and covariance of slope and offset of the logits' difference, by quadrature."""
    axis = np.linspace(-5, 5, 401)
    slope, offset = np.meshgrid(axis, axis, indexing="ij")
    logits = slope[..., None] * X[:, 0] + offset[..., None]
    log_density = -np.logaddexp(0, -SIGNS * logits).sum(axis=-1) - (slope**2 + offset**2) / 4
    weights = np.exp(log_density - log_density.max()).ravel()
    points = np.stack([slope.ravel(), offset.ravel()])
    return np.average(points, axis=1, weights=weights), np.cov(points, aweights=weights, ddof=0)


def find_mode():
    """Return the mode of slope and offset, and the curvature of minus the log density there."""

    def loss(own):
        return np.logaddexp(0, -SIGNS * (DESIGN @ own)).sum() + (own**2).sum() / 4

    mode = optimize.minimize(loss, np.zeros(2), tol=1e-12).x
    p = special.expit(DESIGN @ mode)
    return mode, DESIGN.T @ (DESIGN * (p * (1 - p))[:, None]) + np.eye(2) / 2


def split(posterior):
    """Return differences and sums of the two logits' weights, [S, 2] each: slope and offset."""
    weights = posterior.samples["logits"]
    both = np.stack([np.asarray(weights["kernel"])[:, 0], np.asarray(weights["bias"])], axis=1)
    return both[..., 1] - both[..., 0], both.sum(axis=-1)


def assert_is_posterior(posterior, chains, *, tolerance=0.0, least=200):
    """Enough effective draws first; then means and products within five standard errors.

    Args:
      posterior: Draws of ``chains`` chains, one after the other.
      chains: How many.
      tolerance: What a biased sampler may add, as a share of a standard deviation, or variance.
      least: Effective draws.
    """
    mean, covariance = integrate()
    expected = {0: (mean, covariance), 1: (np.zeros(2), 2 * np.eye(2))}
    for place, draws in enumerate(split(posterior)):
        centre, spread = expected[place]
        scale = np.sqrt(np.diag(spread))
        moved = (draws - centre) / scale
        products = (moved[:, :, None] * moved[:, None, :]).reshape(len(moved), -1)
        target = (spread / np.outer(scale, scale)).ravel()
        for values, truth in ((moved, np.zeros(2)), (products, target)):
            ess = effective_sample_size(values.reshape(chains, -1, values.shape[-1]).astype(float))
            assert ess.min() > least, ess
            error = values.std(axis=0) / np.sqrt(ess)
            assert (np.abs(values.mean(axis=0) - truth) < 5 * error + tolerance).all()
