"""Bounds of tiny networks against exact minima, and of float32 at its limits."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from bnn_adv.attacks.threat import LInf
from bnn_adv.bounds import affine, relaxations
from bnn_adv.bounds.affine import Affine, register_affine
from bnn_adv.bounds.relaxations import convex, register_activation
from bnn_adv.certification import CertificationSettings, certify
from bnn_adv.posteriors.posterior import Posterior
from tests.bounds.cases import Checked

DIM, UNITS = 2, 3


def relu_net(p, x):
    return jax.nn.relu(x @ p["w"] + p["b"]) @ p["v"] + p["c"]


def draw_of(seed, units=UNITS, classes=2):
    rng = np.random.default_rng(seed)
    shapes = {"w": (DIM, units), "b": (units,), "v": (units, classes), "c": (classes,)}
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def radius_of(x, epsilon):
    """The radius in float32, and what the referee allows beyond it."""
    epsilon = float(np.float32(epsilon))
    return epsilon + 2.0**-23 * (float(x.max()) + 32 * epsilon)


def exact_minimum(draw, x, wide, row):
    """Smallest ``row z`` over the box, by a linear program for every pattern of activations."""
    w, b, v, c = (np.asarray(draw[k], np.float64) for k in "wbvc")
    lower, upper = np.maximum(x - wide, 0), np.minimum(x + wide, 1)
    best = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=w.shape[1]):
        on = np.array(pattern)
        sign = np.where(on > 0, -1.0, 1.0)
        cost = w @ (on * (v @ row))
        found = optimize.linprog(
            cost, A_ub=(w * sign).T, b_ub=-sign * b, bounds=list(zip(lower, upper, strict=True))
        )
        if found.success:
            best = min(best, found.fun + (on * b) @ (v @ row) + c @ row)
    return best


def triangle_minimum(draw, x, wide, row):
    """The same with relu in its triangle: what lines can reach with any slopes."""
    w, b, v, c = (np.asarray(draw[k], np.float64) for k in "wbvc")
    low, high = np.maximum(x - wide, 0), np.minimum(x + wide, 1)
    centre, radius = (low + high) / 2, (high - low) / 2
    least, most = (centre @ w + b + s * radius @ np.abs(w) for s in (-1, 1))
    units, rows, limits = w.shape[1], [], []
    for j in range(units):
        h = np.eye(units)[j]
        # h >= z, h >= 0 (a bound below), h <= u (z - l) / (u - l).
        rows.append(np.concatenate([w[:, j], -h]))
        limits.append(-b[j])
        slope, at_zero = float(most[j] > 0), 0.0
        if least[j] < 0 < most[j]:
            slope = most[j] / (most[j] - least[j])
            at_zero = -slope * least[j]
        rows.append(np.concatenate([-slope * w[:, j], h]))
        limits.append(slope * b[j] + at_zero)
    cost = np.concatenate([np.zeros(DIM), v @ row])
    bounds = [*zip(low, high, strict=True), *[(0, None)] * units]
    return optimize.linprog(cost, A_ub=np.array(rows), b_ub=limits, bounds=bounds).fun + c @ row


def certify_pair(draws, x, y, epsilon, **changes):
    """Return the certified margins ``z_y - z_k`` of single draws, by mean logits."""
    posterior = Posterior(relu_net, draws, decision_rule="mean_logits")
    settings = CertificationSettings(arithmetic="real", **changes)
    return certify(posterior, x, y, threat=LInf(epsilon), settings=settings)


CASES = [(seed, eps) for seed in range(6) for eps in (0.05, 0.3, 1.0)]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crown", "alpha-crown"])
def test_margins_are_never_above_the_exact_minimum(method):
    rounds = 60 if method == "alpha-crown" else 1
    relative = []
    for seed, epsilon in CASES:
        rng = np.random.default_rng(seed)
        draw = draw_of(seed)
        x = rng.uniform(0, 1, (1, DIM)).astype(np.float32)
        y = np.asarray(relu_net(draw, x)).argmax(axis=1)
        stacked = jax.tree.map(lambda w: w[None], draw)
        found = certify_pair(stacked, x, y, epsilon, method=method, num_rounds=rounds, batch_size=1)
        row = np.where(np.arange(2) == y, 1.0, -1.0)
        wide = radius_of(x, epsilon)
        exact = exact_minimum(draw, x[0].astype(float), wide, row)
        assert found.margin[0] <= exact + 1e-12
        # What the first bound certifies is not made tighter.
        if method == "alpha-crown" and not found.certified[0]:
            reachable = triangle_minimum(draw, x[0].astype(float), wide, row)
            assert found.margin[0] <= reachable + 1e-9
            clean = float(row @ np.asarray(relu_net(draw, x))[0])
            relative.append((reachable - found.margin[0]) / max(clean - reachable, 0.01))
    if method == "alpha-crown":
        # Many rounds come close to what the best slopes reach, of the whole fall from the clean.
        assert np.max(relative) < 0.03
        assert np.median(relative) < 1e-3


@pytest.mark.slow
def test_one_neuron_is_bounded_to_one_percent():
    num_close = 0
    for seed, epsilon in itertools.product(range(30), (0.4, 2.0)):
        draw, rng = draw_of(seed, units=1), np.random.default_rng(seed)
        x = rng.uniform(0, 1, (1, DIM)).astype(np.float32)
        y = np.asarray(relu_net(draw, x)).argmax(axis=1)
        stacked = jax.tree.map(lambda w: w[None], draw)
        changes = {"method": "alpha-crown", "num_rounds": 60, "batch_size": 1}
        found = certify_pair(stacked, x, y, epsilon, **changes)
        row = np.where(np.arange(2) == y, 1.0, -1.0)
        wide = radius_of(x, epsilon)
        exact = exact_minimum(draw, x[0].astype(float), wide, row)
        clean = float(row @ np.asarray(relu_net(draw, x))[0])
        assert found.margin[0] <= exact + 1e-12
        # What the first bound certifies is not made tighter.
        if not found.certified[0]:
            num_close += 1
            assert exact - 0.01 * (clean - exact) - 1e-9 <= found.margin[0]
    assert num_close >= 2


def deep(p, x):
    for weights in p:
        x = jax.nn.relu(x @ weights + 1e6)
    return x


def test_bounds_survive_float64_where_huge_numbers_cancel():
    """Against fractions: units that are always on make a linear function."""
    rng, size = np.random.default_rng(0), 3
    draw = [jnp.zeros((size, size), jnp.float32)] * 4
    network = Checked(deep, draw, (size,))
    for _ in range(10):
        # Powers of two, and their inverses: what is left is the input, about.
        scales = 2.0 ** rng.integers(0, 12, (4, size, 1))
        mixed = rng.normal(size=(4, size, size)) * scales
        mixed[1::2] = np.linalg.inv(mixed[::2])
        draw = [jnp.asarray(w, jnp.float32) for w in mixed]
        x = rng.uniform(0, 1, size).astype(np.float32)
        low, high, below, above, _ = network.bounds(draw, x, -1.0)
        value = [Fraction(float(v)) for v in x]
        for weights in draw:
            rows = [[Fraction(float(w)) for w in row] for row in np.asarray(weights)]
            value = [
                max(sum(v * row[j] for v, row in zip(value, rows, strict=True)) + 10**6, 0)
                for j in range(size)
            ]
        for j in range(size):
            assert max(Fraction(low[j]), Fraction(below[j])) <= value[j]
            assert value[j] <= min(Fraction(high[j]), Fraction(above[j]))


def hidden(p, x):
    """A layer of huge numbers that the next makes small again."""
    return jax.nn.relu(x @ p["w"]) @ p["v"]


@pytest.mark.parametrize("rule", ["predictive", "every_draw"])
def test_what_may_overflow_in_float32_is_not_certified(rule):
    w = jnp.full((1, 1, 1), 3e38)
    posterior = Posterior(hidden, {"w": w, "v": jnp.asarray([[[3e-38, 0.0]]])})
    x, y = np.full((1, 1), 0.9, np.float32), np.zeros(1, int)
    settings = CertificationSettings(rule=rule)
    # Inputs go up to 1.3, and 3.9e38 is infinite.
    beyond = certify(posterior, x, y, threat=LInf(0.4, 0.0, 2.0), settings=settings)
    assert np.isinf(np.asarray(hidden({"w": w[0], "v": posterior.samples["v"][0]}, x + 0.4))).any()
    assert beyond.clean_correct.all()
    assert not beyond.certified.any()
    small = jax.tree.map(lambda w, f: w * f, posterior.samples, {"w": 1e-37, "v": 1e37})
    posterior = Posterior(hidden, small)
    assert certify(posterior, x, y, threat=LInf(0.4, 0.0, 2.0), settings=settings).certified.all()


def test_what_float32_takes_for_zero_counts_as_error():
    """``1e-30 x`` times 1e-15 is zero in float32, and 1e-7 once it is multiplied by 1e38."""

    def apply_fn(p, x):
        return ((x * p["a"]) * p["b"]) * p["c"]

    draw = {k: jnp.float32(v) for k, v in {"a": 1e-30, "b": 1e-15, "c": 1e38}.items()}
    network = Checked(apply_fn, draw, (1,))
    x = np.ones(1, np.float32)
    network.check(draw, x, 0.0, np.random.default_rng(0), count=4, steps=0)
    low, _, _, _, error = network.bounds(draw, x, 0.0)
    assert low[0] == pytest.approx(1e-7, rel=1e-5)
    assert error[0] >= 0.9e-7


def test_primitives_of_ones_own_are_registered(monkeypatch):
    double = jax.extend.core.Primitive("double")
    bend = jax.extend.core.Primitive("bend")
    for primitive, fn in ((double, lambda z: 2 * z), (bend, lambda z: jnp.log1p(jnp.exp(z)))):
        primitive.def_impl(fn)
        primitive.def_abstract_eval(lambda z: z)
        jax.interpreters.mlir.register_lowering(
            primitive, jax.interpreters.mlir.lower_fun(fn, False)
        )
    batching = jax.interpreters.batching
    for primitive in (double, bend):
        batching.primitive_batchers[primitive] = lambda args, dims, p=primitive: (
            p.bind(*args),
            dims[0],
        )
    monkeypatch.setattr(affine, "AFFINE", affine.AFFINE)
    register_affine("double", Affine(lambda params, z: 2 * z, count_terms=lambda params, z: 1))
    register_activation("bend", convex("bend", lambda z: jnp.log1p(jnp.exp(z))))
    try:
        network = Checked(lambda p, x: bend.bind(double.bind(x @ p)) @ p.T, jnp.ones((2, 2)), (2,))
        rng = np.random.default_rng(0)
        draw = jnp.asarray(rng.normal(size=(2, 2)), jnp.float32)
        network.check(draw, np.full(2, 0.5, np.float32), 0.3, rng, steps=0)
        with pytest.raises(ValueError, match="'double' is registered already"):
            register_affine("double", affine.AFFINE["neg"])
    finally:
        del affine.AFFINE["double"], relaxations.RELAXATIONS["bend"]
