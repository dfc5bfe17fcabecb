"""The suites against the truth: closed forms for linear models, dense grids in the plane."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.attacks.threat import THREATS
from bnn_adv.data import load_dataset
from bnn_adv.evaluation import Settings, run_suite
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.inference import sgd
from bnn_adv.inference.densities import Data
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from tests.conftest import linear_apply
from tests.evaluation.references import grid, linear_is_robust, nearest_wrong

KEY = jax.random.key(0)
CELLS = 400


def robust(suite, posterior, x, y, threat, batch_size=15):
    """Return which inputs the suite leaves standing."""
    # Smaller batches would be padded to 8: batches of 15 have one shape, and compile once.
    settings = Settings(batch_size=batch_size)
    result = run_suite(KEY, get_suite(suite), posterior, x, y, threat=threat, settings=settings)
    adversarial = jnp.asarray(result.adversarial["worst"])
    return np.argmax(predict_log_probs(posterior, adversarial), axis=-1) == y


def linear_problem(num_classes, num_inputs, dim=49, num_draws=3):
    """Return weights, biases and inputs of which 40 % of the coordinates lie at a wall."""
    rng = np.random.default_rng(num_classes)
    weights = rng.normal(size=(num_draws, dim, num_classes)).astype(np.float32)
    offsets = rng.normal(size=(num_draws, num_classes)).astype(np.float32)
    x = np.clip(rng.uniform(-1 / 3, 4 / 3, (num_inputs, dim)), 0, 1).astype(np.float32)
    return weights, offsets - 0.5 * weights.sum(1), x


# With two classes every attack reaches the closed form by itself: see tests/attacks.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "epsilon", "num_classes"),
    [("linf", 0.03, 10), ("l2", 0.2, 10), ("l1", 0.4, 10), ("l2", 0.2, 2)],
)
def test_linear_models(norm, epsilon, num_classes):
    """Nothing is left that can be broken, where the mean of the logits decides: it is linear."""
    num_inputs = 12 * num_classes
    weights, biases, x = linear_problem(num_classes, num_inputs)
    posterior = Posterior(linear_apply, {"w": weights, "b": biases}, decision_rule="mean_logits")
    y = np.argmax(predict_log_probs(posterior, jnp.asarray(x)), axis=-1)
    threat = THREATS[norm](epsilon)
    mean = weights.astype(float).mean(0), biases.astype(float).mean(0)
    margin = linear_is_robust(*mean, x, y, threat)
    # Inputs on the edge to within float32 may go either way.
    clear = np.abs(margin) > 1e-5
    assert num_inputs / 6 < (margin > 0).sum() < num_inputs * 5 / 6
    standing = robust("strong", posterior, x, y, threat, batch_size=num_inputs)
    np.testing.assert_array_equal(standing[clear], (margin > 0)[clear])


def against_grid(posterior, x, norm, cells=CELLS):
    """Compare suite and grid for points of the unit square, labelled by the predictive itself."""
    points = grid(cells)
    classes = np.argmax(predict_log_probs(posterior, jnp.asarray(points, jnp.float32)), -1)
    y = np.argmax(predict_log_probs(posterior, jnp.asarray(x)), axis=-1)
    distance = nearest_wrong(points, classes, x, y, norm)
    radius = float(np.median(distance))
    # What fast breaks, strong breaks: it does the same first.
    standing = robust("fast", posterior, x, y, THREATS[norm](radius))
    # A cell's centre is wrong: something within half its width in each direction may be too.
    half = {"linf": 0.5, "l2": np.sqrt(0.5), "l1": 1.0}[norm] / cells
    assert 3 < standing.sum() < len(x) - 3
    assert not standing[distance < radius - half].any()
    assert standing[distance > radius + half].all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "norm", [pytest.param(norm, marks=[pytest.mark.slow] * (norm != "linf")) for norm in THREATS]
)
def test_frozen_ensembles_of_linear_models(norm):
    """The mean of softmaxes is not linear: draws of different scales and directions."""
    rng = np.random.default_rng(5)
    scales = np.array([1.0, 4.0, 15.0, 40.0, 100.0])[:, None, None]
    weights = (scales * rng.normal(size=(5, 2, 3))).astype(np.float32)
    biases = (-0.5 * weights.sum(1) + 0.2 * scales[:, 0] * rng.normal(size=(5, 3))).astype("f4")
    x = rng.uniform(size=(30, 2)).astype(np.float32)
    against_grid(Posterior(linear_apply, {"w": weights, "b": biases}), x, norm)


@pytest.fixture(scope="module")
def moons():
    """An ensemble of three small networks on half moons, and test points."""
    data = load_dataset("half_moons", num_train=1500, num_test=30, seed=0)
    config = sgd.Config(num_members=3, num_epochs=12, learning_rate=0.02, minibatch_size=50)
    trained = sgd.run(
        jax.random.key(1),
        networks.MLP((16,), 2, "leaky_relu"),
        Data(jnp.asarray(data.x_train), jnp.asarray(data.y_train)),
        config,
    )
    return trained.posterior, data.x_test


@pytest.mark.slow
@pytest.mark.parametrize("norm", THREATS)
def test_half_moons(norm, moons):
    posterior, x = moons
    against_grid(posterior, x, norm)
