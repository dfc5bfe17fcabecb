"""Small networks, points of their balls, and what bounds say of them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks.threat import THREATS
from bnn_adv.bounds import balls
from bnn_adv.bounds.linear import bound_network, pull_back, rounding_factor
from bnn_adv.bounds.reading import read, trace

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def points_of(rng, norm, x, epsilon, count, box=(0.0, 1.0)):
    """Random points of ball and box, many on the sphere or at corners: float32, [count, *D]."""
    steps = rng.normal(size=(count, x.size)) * (rng.uniform(size=(count, x.size)) < 0.8)
    steps[: count // 2] = rng.choice([-1.0, 1.0], (count // 2, x.size))
    size = np.linalg.norm(steps, ORDERS[norm], axis=1, keepdims=True)
    steps = steps / np.where(size > 0, size, 1.0) * epsilon
    steps[::3] *= rng.uniform(0, 1, (len(steps[::3]), 1))
    return np.clip(x + steps.reshape(count, *x.shape), *box).astype(np.float32)


class Checked:
    """A network whose logits' bounds are compiled once, for any draw, input and radius."""

    def __init__(self, apply_fn, draw, shape, norm="linf", most_rows=64):
        """Trace and compile."""
        self.apply_fn, self.norm, self.shape = apply_fn, norm, shape
        traced = trace(apply_fn, draw, shape)
        with jax.enable_x64(True):
            jax.eval_shape(lambda draw: (read(traced, draw, shape), None)[1], draw)

        def both(draw, x, epsilon):
            graph = read(traced, draw, shape)
            ball = balls.open_ball(THREATS[norm](epsilon), x[None], epsilon)
            bounds = bound_network(graph, norm, ball, most_rows=most_rows)
            own = bounds.ranges[graph.output.number]
            eye = jnp.eye(graph.output.shape[1])[:, None]
            a, offset = pull_back(graph, bounds, graph.output, jnp.concatenate([eye, -eye]))
            at_x = (a * ball.x).reshape(len(a), -1).sum(axis=1)
            found = at_x + offset + balls.minimise(norm, ball, a)
            found = found.reshape(2, -1) - rounding_factor(graph) * own.paths[0]
            return own.lower[0], own.upper[0], found[0], -found[1], own.error[0]

        self._both = jax.jit(both)
        self._climb = jax.jit(jax.vmap(jax.grad(self._logit, argnums=1), (None, 0, 0)))
        one = jax.vmap(lambda draw, x: apply_fn(draw, x[None])[0], (None, 0))
        self._logits = jax.jit(one)
        self._exactly = jax.jit(lambda draw, x: apply_fn(draw, x[None])[0])

    def _logit(self, draw, x, which):
        return self.apply_fn(draw, x[None])[0] @ which

    def bounds(self, draw, x, epsilon):
        """Return intervals and linear bounds of the logits, float64 [C] each, and the error."""
        with jax.enable_x64(True):
            return [np.asarray(v) for v in self._both(draw, jnp.asarray(x, float), float(epsilon))]

    def check(self, draw, x, epsilon, rng, count=2000, steps=4):
        """Assert that no point leaves the bounds, and that a ball of nothing is the network."""
        found = self.bounds(draw, x, epsilon)
        self.compare(found, draw, points_of(rng, self.norm, x, epsilon, count))
        if steps:
            self.compare(found, draw, self.attack(draw, x, epsilon, rng, steps))
        return found

    def compare(self, found, draw, points):
        """Assert that what float32 says of points lies within bounds and their error."""
        low, high, below, above, error = found
        logits = np.asarray(self._logits(draw, points), np.float64)
        assert np.isfinite(found).all()
        for lower, upper in ((low, high), (below, above)):
            assert (logits >= lower - error).all()
            assert (logits <= upper + error).all()

    def attack(self, draw, x, epsilon, rng, steps):
        """Return where some steps of gradient ascent on signed logits lead."""
        classes = len(self.bounds(draw, x, 0.0)[0])
        which = np.concatenate([np.eye(classes), -np.eye(classes)]).astype(np.float32)
        threat = THREATS[self.norm](epsilon)
        clean = jnp.broadcast_to(jnp.asarray(x, jnp.float32), (2 * classes, *self.shape))
        points, seen = clean, []
        move = _compiled_move()
        for _ in range(steps):
            points = move(threat, points, self._climb(draw, points, which), clean)
            seen.append(np.asarray(points))
        return np.concatenate(seen)

    def check_exact(self, draw, x, atol=1e-9):
        """Assert that bounds at a radius of zero are the network's logits in float64."""
        # What the referee allows for rounding is part of the ball, so that it is taken out.
        low, high, below, above, _ = self.bounds(draw, np.asarray(x, np.float64), -1.0)
        with jax.enable_x64(True):
            wide = jax.tree.map(_widen, draw)
            exact = np.asarray(self._exactly(wide, jnp.asarray(x, jnp.float64)))
        for bound in (low, high, below, above):
            np.testing.assert_allclose(bound, exact, rtol=0, atol=atol)


def _widen(leaf):
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


@functools.cache
def _compiled_move():
    def move(threat, points, gradient, clean):
        return threat.project(points + threat.epsilon / 2 * threat.ascend(gradient, points), clean)

    return jax.jit(move)
