"""The suite on a network that withstands many attacks, against ten times the work."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bnn_adv import networks
from bnn_adv.attacks.threat import LInf
from bnn_adv.data import load_dataset
from bnn_adv.evaluation import Settings, run_suite
from bnn_adv.evaluation.suites import Suite, get_suite
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs

KEY = jax.random.key(0)
EPSILON, NUM_IMAGES, NUM_STEPS, BATCH = 0.15, 200, 600, 128
STARTS, LONG = 50, 1000
"""Brute force: for every image that stands."""
NETWORK = networks.MLP((32,), 10, "relu")
APPLY = networks.get_apply_fn(NETWORK)


def cross_entropy(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(APPLY(params, x), y)


def margin(params, x, y):
    logits, own = APPLY(params, x), jax.nn.one_hot(y, 10, dtype=bool)
    others = jnp.where(own, -jnp.inf, logits).max(axis=-1)
    return others - jnp.where(own, logits, 0).sum(axis=-1)


def start(key, x):
    """Return a random point of ball and box."""
    noise = jax.random.uniform(key, x.shape, minval=-EPSILON, maxval=EPSILON)
    return jnp.clip(x + noise, 0, 1)


def climb(loss, params, moved, x, y, size):
    """Take one projected step along the gradient's sign."""
    gradient = jax.grad(lambda at: loss(params, at, y).sum())(moved)
    moved = moved + size * jnp.sign(gradient)
    return jnp.clip(jnp.clip(moved, x - EPSILON, x + EPSILON), 0, 1)


@jax.jit
def train(key, x, y):
    """Return parameters after Adam's steps on inputs that FGSM from random starts has moved."""
    optimiser = optax.adam(optax.cosine_decay_schedule(0.01, NUM_STEPS))

    def step(number, state):
        params, memory = state
        pick, place = jax.random.split(jax.random.fold_in(key, number))
        rows = jax.random.randint(pick, (BATCH,), 0, len(x))
        moved = climb(
            cross_entropy, params, start(place, x[rows]), x[rows], y[rows], 1.25 * EPSILON
        )
        gradient = jax.grad(lambda p: cross_entropy(p, moved, y[rows]).mean())(params)
        updates, memory = optimiser.update(gradient, memory)
        return optax.apply_updates(params, updates), memory

    params = networks.init_params(key, NETWORK, x.shape[1:])
    return jax.lax.fori_loop(0, NUM_STEPS, step, (params, optimiser.init(params)))[0]


# Ten million gradients: worth compiling well, unlike what other tests run.
@functools.partial(
    jax.jit,
    static_argnames=("loss", "num_steps"),
    compiler_options={
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
    },
)
def brute_force(key, params, x, y, loss, num_steps):
    """Return whether any iterate of plain PGD fools, [N]; code of its own, on purpose."""
    size = 2.5 * EPSILON / num_steps

    def step(_, state):
        moved, fooled = state
        moved = climb(loss, params, moved, x, y, size)
        return moved, fooled | (margin(params, moved, y) > 0)

    first = start(key, x), jnp.zeros(len(x), bool)
    return jax.lax.fori_loop(0, num_steps, step, first)[1]


@pytest.fixture(scope="module")
def trained():
    data = load_dataset("digits")
    params = train(KEY, jnp.asarray(data.x_train), jnp.asarray(data.y_train))
    return params, data.x_test[:NUM_IMAGES], data.y_test[:NUM_IMAGES]


@pytest.mark.slow
def test_fifty_starts_of_a_thousand_steps_find_no_more_than_half_a_point(trained):
    params, x, y = trained
    posterior = Posterior(APPLY, jax.tree.map(lambda w: w[None], params))
    suite = get_suite("strong")
    found = run_suite(
        KEY, suite, posterior, x, y, threat=LInf(EPSILON), settings=Settings(batch_size=len(x))
    )
    assert (np.argmax(predict_log_probs(posterior, x), axis=-1) == y).mean() > 0.85
    worst = found.adversarial["worst"]
    standing = np.argmax(predict_log_probs(posterior, worst), axis=-1) == y
    assert standing.mean() == found.accuracies["worst"]
    # Well inside: neither robust nor broken whatever the attack.
    assert 0.2 < standing.mean() < 0.8
    # All starts side by side: copies of every image that stands.
    copies = [np.repeat(part[standing], STARTS, axis=0) for part in (x, y)]
    fooled = np.zeros(standing.sum(), bool)
    for number, loss in enumerate((margin, cross_entropy)):
        key = jax.random.fold_in(KEY, number)
        runs = brute_force(key, params, *copies, loss, LONG)
        fooled |= np.reshape(runs, (-1, STARTS)).any(axis=1)
    assert fooled.sum() <= 0.005 * len(x)


@pytest.mark.slow
def test_the_brute_force_breaks_what_is_known_to_break(trained):
    """It is no straw man: by the suite's own steps and one start it is close to the suite."""
    params, x, y = trained
    fooled = np.asarray(brute_force(KEY, params, x, y, margin, 100))
    posterior = Posterior(APPLY, jax.tree.map(lambda w: w[None], params))
    one = Suite(get_suite("strong").entries[:1], worst_case=True)
    found = run_suite(
        KEY, one, posterior, x, y, threat=LInf(EPSILON), settings=Settings(batch_size=len(x))
    )
    assert abs((1 - fooled.mean()) - found.accuracies["worst"]) <= 0.02
