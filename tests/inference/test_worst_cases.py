"""Robust likelihoods against brute force, closed forms, and the plain likelihood."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from numpyro.infer.util import log_density
from scipy import special

from bnn_adv import networks
from bnn_adv.compute import blocks
from bnn_adv.inference import densities, sgd, svi
from bnn_adv.inference.densities import Data, Likelihood, Prior
from bnn_adv.inference.robust import Robust, Step
from bnn_adv.networks import get_apply_fn, init_params

NETWORK = networks.MLP((5,), 3, "relu")
APPLY = get_apply_fn(NETWORK)
DRAW = jax.tree.map(
    lambda w: w + 0.5 * jnp.cos(jnp.arange(w.size)).reshape(w.shape),
    init_params(jax.random.key(0), NETWORK, (2,)),
)
RNG = np.random.default_rng(0)
DATA = Data(
    jnp.asarray(RNG.uniform(size=(12, 2)), jnp.float32), jnp.asarray(np.arange(12) % 3, jnp.int32)
)
STEP = Step(jax.random.key(3), 1.0)
BOUNDS = [Robust("interval"), Robust("crown_ibp")]
ATTACKS = [Robust("fgsm"), Robust("pgd", num_steps=3), Robust("pgd", form="trades", num_steps=2)]
EVERY = pytest.mark.parametrize("robust", [*BOUNDS, *ATTACKS], ids=lambda r: f"{r.worst}-{r.form}")


@functools.partial(jax.jit, static_argnames=("likelihood", "block", "apply_fn"))
def value(draw, data, likelihood, block=None, apply_fn=APPLY):
    return densities.log_likelihood(draw, data, apply_fn, likelihood, block=block)


def each(draw, data, robust):
    """The log likelihood of every example alone."""
    rows = [Data(data.x[i : i + 1], data.y[i : i + 1]) for i in range(len(data.y))]
    return np.array([value(draw, row, Likelihood(robust=robust)) for row in rows])


def grid_probabilities(data, epsilon, side=31):
    """Probability of the labels at all points of a grid of ball and box, [side^2, N]."""
    low, high = np.maximum(data.x - epsilon, 0), np.minimum(data.x + epsilon, 1)
    shares = np.stack(np.meshgrid(*[np.linspace(0, 1, side)] * 2), axis=-1).reshape(-1, 1, 2)
    points = jnp.asarray(low + shares * (high - low), jnp.float32)
    probabilities = jax.nn.softmax(jax.vmap(lambda x: APPLY(DRAW, x))(points))
    return np.asarray(probabilities)[:, np.arange(len(data.y)), data.y]


def test_bounds_are_below_the_worst_case_of_a_grid_and_mix_with_the_clean_one():
    data = Data(DATA.x[:5], DATA.y[:5])
    worst = grid_probabilities(data, 0.1).min(axis=0)
    clean = np.exp(each(DRAW, data, Robust("interval", epsilon=0.0)))
    for kind in ("interval", "crown_ibp"):
        bound = np.exp(each(DRAW, data, Robust(kind, weight=0.0)))
        assert (bound <= worst * (1 + 1e-5)).all()
        assert (bound > 0.3 * worst).all()
        mixed = np.exp(each(DRAW, data, Robust(kind, weight=0.3)))
        np.testing.assert_allclose(mixed, 0.3 * clean + 0.7 * bound, rtol=1e-5)


def test_an_attack_finds_what_is_between_the_worst_case_and_the_clean_one():
    robust = Likelihood(robust=Robust("pgd", weight=0.0, num_steps=20))
    data = Data(DATA.x[:5], DATA.y[:5], STEP)
    worst = np.log(grid_probabilities(data, 0.1).min(axis=0)).sum()
    clean = value(DRAW, data, "categorical")
    found = value(DRAW, data, robust)
    assert worst * 1.001 <= found < clean - 0.5 * (clean - worst)


def test_probabilities_that_underflow_have_finite_logarithms_and_gradients():
    far = jax.tree.map(lambda w: 200 * w, DRAW)
    likelihood = Likelihood(robust=Robust("crown_ibp", weight=0.5))
    fn = functools.partial(value, data=DATA, likelihood=likelihood)
    found, gradient = jax.value_and_grad(fn)(far)
    assert np.isfinite(found)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "robust",
    [
        Robust(),
        Robust("interval", weight=1.0),
        Robust("pgd", 1.0),
        Robust("fgsm", beta=0.0, form="trades"),
    ],
)
@pytest.mark.parametrize("block", [None, 5])
def test_what_is_off_is_the_plain_likelihood_bit_for_bit(robust, block):
    def program(likelihood, data):
        fn = functools.partial(
            densities.log_likelihood, apply_fn=APPLY, likelihood=likelihood, block=block
        )
        return jax.jit(jax.value_and_grad(fn)).lower(DRAW, data)

    plain, ours = program("categorical", DATA), program(Likelihood(robust=robust), DATA)
    assert ours.as_text() == plain.as_text()


@EVERY
def test_a_ball_of_nothing_is_the_plain_likelihood_and_its_gradient(robust):
    off = Step(STEP.rng_key, 0.0)
    fns = [
        functools.partial(value, data=DATA._replace(step=off), likelihood=likelihood)
        for likelihood in ("categorical", Likelihood(robust=robust))
    ]
    plain, ours = (jax.value_and_grad(fn)(DRAW) for fn in fns)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, plain)


def test_blocks_change_neither_value_nor_gradient():
    """Every example has a key of its own, whatever the block."""
    data, likelihood = DATA._replace(step=STEP), Likelihood(robust=ATTACKS[1])
    fns = [functools.partial(value, data=data, likelihood=likelihood, block=b) for b in (12, 5)]
    whole, parts = (jax.value_and_grad(fn)(DRAW) for fn in fns)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), whole, parts)


def test_memory_does_not_grow_with_the_examples(monkeypatch):
    """Bounds take more of it than the network, which blocks know."""
    monkeypatch.setattr(blocks, "budget", lambda: 400_000)
    data = Data(jnp.zeros((4000, 2)), jnp.zeros(4000, jnp.int32))

    def temporary(data):
        likelihood = Likelihood(robust=Robust("crown_ibp"))
        fn = functools.partial(densities.log_likelihood, apply_fn=APPLY, likelihood=likelihood)
        program = jax.jit(jax.value_and_grad(fn)).lower(DRAW, data).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(data) < 1.5 * temporary(jax.tree.map(lambda a: a[:1000], data)) + 100_000


@pytest.mark.parametrize("robust", BOUNDS, ids=["interval", "crown_ibp"])
def test_minibatches_are_unbiased(robust):
    """The mean over a partition into equal batches is the full-data log density."""

    @jax.jit
    def density(data):
        return densities.logdensity_fn(
            DRAW,
            data,
            apply_fn=APPLY,
            prior=Prior(),
            likelihood=Likelihood(robust=robust),
            num_data=12,
            temperature=0.5,
        )

    parts = [density(Data(DATA.x[i : i + 3], DATA.y[i : i + 3])) for i in range(0, 12, 3)]
    np.testing.assert_allclose(np.mean(parts), density(DATA), rtol=1e-5)
    assert np.std(parts) > 0.1


def test_variational_inference_scales_it_by_n_over_b():
    config = svi.Config(robust=BOUNDS[0])
    names = tuple(f"{a}/{b}" for a, leaf in DRAW.items() for b in leaf)
    weights = {f"{a}/{b}": w for a, leaf in DRAW.items() for b, w in leaf.items()}
    problem = svi.build_problem(NETWORK, config, names, (2,))

    @jax.jit
    def joint(data):
        return log_density(problem.svi.model, (data, 12), {}, weights)[0]

    parts = [joint(Data(DATA.x[i : i + 3], DATA.y[i : i + 3])) for i in range(0, 12, 3)]
    full = densities.log_prior(DRAW, Prior()) + value(DRAW, DATA, Likelihood(robust=BOUNDS[0]))
    np.testing.assert_allclose(np.mean(parts), full, rtol=1e-5)


def test_an_attack_without_a_key_is_refused():
    with pytest.raises(ValueError, match=r"worst=pgd starts at random.*has no key.*crown_ibp"):
        value(DRAW, DATA, Likelihood(robust=ATTACKS[1]))


def test_starts_follow_from_the_key():
    likelihood = Likelihood(robust=Robust("pgd", num_steps=1, step_size=0.5))
    found = [
        float(value(DRAW, DATA._replace(step=Step(jax.random.key(k), 1.0)), likelihood))
        for k in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]


class Slope(nn.Module):
    """Logits (0, s x): the worst point of a ball is on the left for s > 0, else on the right."""

    start: float = 1.0

    @nn.compact
    def __call__(self, x):
        slope = self.param("slope", lambda key: jnp.full((1, 1), self.start))
        z = x @ slope
        return jnp.concatenate([jnp.zeros_like(z), z], axis=-1)


def worst_loss(slope, x, epsilon):
    """Of the label 1, in closed form."""
    return jax.nn.softplus(-(slope * x - jnp.abs(slope) * epsilon)).mean()


@pytest.mark.parametrize("robust", [Robust("fgsm", 0.0, 0.2), Robust("pgd", 0.0, 0.2, num_steps=4)])
def test_training_attacks_the_weights_as_they_are_now(robust):
    """A slope that changes its sign on the way, so that the attack's direction flips."""
    x = np.array([[0.4], [0.6], [0.7]], np.float32)
    config = sgd.Config(num_epochs=12, learning_rate=0.1, minibatch_size=3, robust=robust)
    data = Data(jnp.asarray(x), jnp.ones(3, jnp.int32))
    result = sgd.run(jax.random.key(0), Slope(-0.55), data, config)
    optimiser = optax.adam(0.1)
    slope, losses = jnp.asarray(-0.55), []
    state = optimiser.init(slope)
    for _ in range(12):
        loss, gradient = jax.value_and_grad(worst_loss)(slope, x, 0.2)
        update, state = optimiser.update(gradient, state)
        slope = optax.apply_updates(slope, update)
        losses.append(loss)
    assert slope > 0.3
    np.testing.assert_allclose(result.posterior.samples["slope"].ravel(), slope, rtol=1e-4)
    np.testing.assert_allclose(result.diagnostics["loss"], losses, rtol=1e-4)


@pytest.mark.parametrize("worst", ["fgsm", "pgd"])
def test_trades_counts_the_divergence_of_the_clean_prediction_from_the_moved_one(worst):
    """Where both classes are as likely, KL(p || q) is as large at either end of the ball."""
    robust = Robust(worst, epsilon=0.2, form="trades", beta=3.0, num_steps=10, lower=-1.0)
    data = Data(jnp.zeros((2, 1)), jnp.array([1, 0]), STEP)
    apply_fn, draw = get_apply_fn(Slope(5.0)), {"slope": jnp.full((1, 1), 5.0)}
    found = value(draw, data, Likelihood(robust=robust), apply_fn=apply_fn)
    p, q = 0.5, np.array([1 - special.expit(1.0), special.expit(1.0)])
    divergence = (p * np.log(p / q)).sum()
    assert abs((q * np.log(q / p)).sum() / divergence - 1) > 0.05
    np.testing.assert_allclose(found, 2 * (np.log(p) - 3.0 * divergence), rtol=1e-5)


def test_variational_inference_attacks_every_draw_and_not_the_mean():
    """A guide N(0, 1) that does not move: half of its slopes are negative, its mean has no side."""
    robust, x = Robust("fgsm", weight=0.0, epsilon=0.2), 0.6
    config = svi.Config(
        **{"num_epochs": 2000, "learning_rate": 1e-9, "minibatch_size": 2, "num_samples": 2},
        **{"init_scale": 1.0, "prior": Prior(1.0), "robust": robust},
    )
    data = Data(jnp.full((2, 1), x), jnp.ones(2, jnp.int32))
    losses = -np.asarray(svi.run(jax.random.key(0), Slope(0.0), data, config).diagnostics["elbo"])
    slopes = np.linspace(-8, 8, 20001)
    density = np.exp(-(slopes**2) / 2) / np.exp(-(slopes**2) / 2).sum()

    def mean(logits):
        return 2 * (density * np.logaddexp(0, -logits)).sum()

    error = losses.std() / np.sqrt(len(losses))
    # The prior is the guide: of the evidence bound the likelihood is left.
    assert abs(losses.mean() - mean(slopes * x - 0.2 * abs(slopes))) < 5 * error
    assert all(abs(losses.mean() - mean(slopes * (x + side))) > 5 * error for side in (-0.2, 0.2))


def test_the_radius_grows_while_training():
    """Epoch by epoch: six minibatches, of which the first four grow."""
    robust = Robust("interval", weight=0.0, epsilon=0.2, warmup=4 / 6)
    config = sgd.Config(num_epochs=3, learning_rate=1e-9, minibatch_size=1, robust=robust)
    x = np.array([[0.5], [0.5]], np.float32)
    found = sgd.run(jax.random.key(0), Slope(1.0), Data(x, np.ones(2, np.int32)), config)
    shares = np.array([[0, 0.25], [0.5, 0.75], [1, 1]])
    expected = np.log1p(np.exp(-(0.5 - 0.2 * shares))).mean(axis=1)
    np.testing.assert_allclose(found.diagnostics["loss"], expected, rtol=1e-5)
