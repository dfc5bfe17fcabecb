"""Slices side by side as one step: the same numbers and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.bounds import intervals
from bnn_adv.bounds.intervals import Box, bound_differences
from bnn_adv.bounds.reading import read, trace
from bnn_adv.bounds.windows import merge_windows
from bnn_adv.networks.convnet import take_patches

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(size=(3, 4, 4, 1)), jnp.float32)
Y = jnp.arange(3, dtype=jnp.int32) % 2
SHAPES = {"a": (4, 2), "b": (8, 2), "c": (4, 2)}
DRAW = {name: jnp.asarray(RNG.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


def convolutions(draw, x):
    """Two convolutions by patches, and slices with strides of which one is used again."""
    x = jax.nn.relu(take_patches(x, (2, 2)) @ draw["a"])
    x = take_patches(x, (2, 2)) @ draw["b"]
    left, middle, right = x[:, :1, :, :1], x[:, 1:, :, :1], x[:, ::2, :, 1:][:, :1]
    x = jnp.concatenate([left, middle, left], axis=-1)
    return jax.nn.relu(x + right).sum(axis=(1, 3)) @ draw["c"][:2]


def slices_of(draw, x):
    parts = [x[:, i : i + 5 : 2] for i in (0, 1, 2)]
    return jnp.concatenate([*parts, parts[0]], axis=1) @ draw + parts[1].sum()


def test_slices_that_are_used_elsewhere_stay_and_the_others_go():
    draw = jnp.ones((12, 2))
    graph = read(trace(slices_of, draw, (7,)), draw, (7,), jnp.float32)
    before = len(graph.items)
    merge_windows(graph)
    assert len(graph.items) == before - 2
    values = {graph.source.number: jnp.arange(7.0)[None]}
    for item in graph.items:
        known = [
            values.get(getattr(o, "number", None), getattr(o, "value", None)) for o in item.inputs
        ]
        values[item.output.number] = item.rule.apply(item.params, *known)
    exact = slices_of(draw, jnp.arange(7.0)[None])
    np.testing.assert_array_equal(values[graph.output.number], exact)


@pytest.mark.parametrize("method", ["interval", "crown_ibp"])
def test_bounds_and_gradients_are_those_of_slices_one_by_one(method, monkeypatch):
    def total(draw):
        box = Box(jnp.full(3, 0.1))
        found = bound_differences(convolutions, draw, X, Y, box, method=method)
        return (jnp.cos(jnp.arange(6.0)).reshape(3, 2) * found).sum()

    ours = jax.jit(jax.value_and_grad(total))(DRAW)
    monkeypatch.setattr(intervals, "merge_windows", lambda graph: None)
    theirs = jax.jit(jax.value_and_grad(lambda draw: total(draw)))(DRAW)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)
