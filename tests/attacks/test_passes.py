"""What a forward pass leaves behind is used once, weighs little, and changes no bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import passes
from bnn_adv.attacks.objectives import OBJECTIVES, follow_rule, value_and_gradient
from bnn_adv.attacks.passes import Aim, Problem, bytes_left, is_worth_keeping, two_passes
from bnn_adv.compute import programs
from bnn_adv.compute.disk import store_in
from bnn_adv.networks import MLP, get_apply_fn
from bnn_adv.networks.small_convnet import SmallConvNet
from bnn_adv.posteriors.posterior import Posterior

S, B, SIZE, WIDTH = 5, 6, 8, 7
TWO_PASS = [name for name, objective in OBJECTIVES.items() if not objective.linear_head]


def make_posterior(network):
    x = jnp.zeros((1, SIZE, SIZE, 1))
    keys = jax.random.split(jax.random.key(3), S)
    samples = jax.vmap(lambda key: network.init(key, x)["params"])(keys)
    return Posterior(get_apply_fn(network), jax.tree.map(lambda w: 3 * w, samples))


def make_problem(name, posterior, *, chunk=1, target=None, finite_steps=True):
    x = jax.random.uniform(jax.random.key(1), (B, SIZE, SIZE, 1))
    y = jnp.arange(B, dtype=jnp.int32) % 4
    objective = follow_rule(OBJECTIVES[name], posterior.decision_rule)
    scales = jnp.ones((S, B))
    return Problem(objective, posterior, x, Aim(y, target), scales, chunk, finite_steps)


def both(problem):
    run = [jax.jit(lambda k=keep: two_passes(problem, keep=k)) for keep in (True, False)]
    return [program() for program in run]


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO_PASS)
@pytest.mark.parametrize("chunk", [1, 2, S])
def test_every_objective_is_equal_to_the_last_bit(name, chunk):
    kept, anew = both(make_problem(name, make_posterior(MLP((WIDTH,), 4, "relu")), chunk=chunk))
    for one, other in zip(kept, anew, strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(kept.gradient).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [MLP((WIDTH, WIDTH), 4, "tanh"), SmallConvNet((2, 3), WIDTH, 4, "leaky_relu")],
    ids=["tanh", "small_conv"],
)
@pytest.mark.parametrize("finite_steps", [True, False])
def test_networks_and_targets_are_too(network, finite_steps):
    target = jnp.full(B, 3, jnp.int32)
    problem = make_problem(
        "log_predictive_margin",
        make_posterior(network),
        target=target,
        finite_steps=finite_steps,
    )
    kept, anew = both(problem)
    for one, other in zip(kept, anew, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_third_of_the_products_is_saved():
    problem = make_problem("mean_logit_margin", make_posterior(MLP((64,), 4, "relu")))

    def count(keep):
        program = jax.jit(lambda x: two_passes(problem._replace(x=x), keep=keep).gradient)
        return str(program.trace(problem.x).jaxpr).count("dot_general")

    # Of two layers: forward and backward, or forward, forward and backward.
    assert (count(True), count(False)) == (4, 6)


def test_weights_are_not_kept_again():
    problem = make_problem("mean_logit_margin", make_posterior(MLP((WIDTH,), 4, "relu")))
    weights = SIZE * SIZE * WIDTH * 4
    assert bytes_left(problem) < weights
    # Twice the inputs, twice the size: nothing but what belongs to inputs.
    twice = problem._replace(
        x=jnp.concatenate([problem.x] * 2),
        aim=Aim(jnp.concatenate([problem.aim.y] * 2)),
        scales=jnp.ones((S, 2 * B)),
    )
    assert bytes_left(twice) == 2 * bytes_left(problem)


def test_sizes_are_measured_once_a_network_and_shape(monkeypatch):
    programs.drop()
    measured = []

    def measure(problem, own=passes._measure_left):
        measured.append(problem)
        return own(problem)

    monkeypatch.setattr(passes, "_measure_left", measure)
    posterior = make_posterior(MLP((WIDTH,), 4, "relu"))
    problem = make_problem("mean_logit_margin", posterior)
    found = [bytes_left(p) for p in (problem, problem._replace(x=problem.x + 1), problem)]
    assert (len(set(found)), len(measured)) == (1, 1)
    # Another objective, dtype or network is another problem, and so is all after a drop.
    bytes_left(make_problem("log_predictive_margin", posterior))
    bytes_left(problem._replace(x=problem.x.astype(jnp.float16)))
    bytes_left(make_problem("mean_logit_margin", make_posterior(MLP((2,), 4, "relu"))))
    assert len(measured) == 4
    programs.drop()
    bytes_left(problem)
    assert len(measured) == 5


def test_sizes_are_those_of_arrays_alike():
    """What NumPy holds is copied, and is not taken for what a program is given."""
    programs.drop()
    posterior = make_posterior(MLP((WIDTH,), 4, "relu"))
    problem = make_problem("mean_logit_margin", posterior)
    copied = problem._replace(x=np.asarray(problem.x))
    first = bytes_left(copied), bytes_left(problem)
    programs.drop()
    assert (bytes_left(problem), bytes_left(copied)) == first[::-1]


def test_objectives_are_equal_under_a_rule():
    """Or every program would measure them anew."""
    for rule in ("mean_logits", "mean_probabilities"):
        one, again = (follow_rule(OBJECTIVES["log_predictive_margin"], rule) for _ in range(2))
        assert one == again
        assert hash(one) == hash(again)


@pytest.mark.slow
def test_what_is_large_is_computed_again_with_the_same_result(monkeypatch):
    posterior = make_posterior(MLP((WIDTH,), 4, "relu"))
    problem = make_problem("log_predictive_margin", posterior)
    assert is_worth_keeping(problem)
    found = jax.jit(lambda: passes.differentiate(problem))()
    size = bytes_left(problem)
    monkeypatch.setattr(passes, "_most_kept", lambda: S * size - 1)
    assert not is_worth_keeping(problem)
    monkeypatch.setattr(passes, "_most_kept", lambda: S * size)
    assert is_worth_keeping(problem)
    monkeypatch.setattr(passes, "_MOST_AN_INPUT", size // B - 1)
    assert not is_worth_keeping(problem)
    again = jax.jit(lambda: passes.differentiate(problem))()
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("count", "kept"), [(20, True), (100, False)])
def test_of_small_convolutions_on_a_cpu_much_is_kept(count, kept):
    """30 kB an image and draw: 20 draws of 50 images are 30 MB, 100 draws 150."""
    network, x = SmallConvNet(), jnp.zeros((50, 28, 28, 1))
    found = []

    def ask(draws):
        posterior = Posterior(get_apply_fn(network), draws)
        objective = follow_rule(OBJECTIVES["log_predictive_margin"], posterior.decision_rule)
        aim, scales = Aim(jnp.zeros(50, jnp.int32)), jnp.ones((count, 50))
        problem = Problem(objective, posterior, x, aim, scales, 1, False)
        found.append(is_worth_keeping(problem))

    keys = jax.random.split(jax.random.key(0), count)
    # Of shapes alone: the draws would be large.
    draws = jax.eval_shape(jax.vmap(lambda key: network.init(key, x[:1])["params"]), keys)
    jax.eval_shape(ask, draws)
    assert found == [kept]


@pytest.mark.slow
def test_draws_on_disk_are_read_again_and_agree(tmp_path):
    posterior = make_posterior(MLP((WIDTH,), 4, "relu"))
    problem = make_problem("mean_logit_margin", posterior, chunk=2)
    x, y = problem.x, problem.aim.y
    objective = OBJECTIVES["mean_logit_margin"]
    expected = value_and_gradient(objective, posterior, x, y, sample_chunk=2)
    store = store_in(tmp_path / "draws")
    on_disk = Posterior(posterior.apply_fn, store(posterior.samples))
    found = value_and_gradient(objective, on_disk, x, y, sample_chunk=2)
    np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-5, atol=1e-7)
