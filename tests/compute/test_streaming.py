"""Chunks, shards and disk: all the same result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.compute.streaming import fold_and_map, fold_samples, map_samples

VALUES = jnp.asarray([1.0, 10.0, 100.0, 1e3, 1e4, 1e5])
CASES = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (1, 2), (2, 2), (3, 3), (2, 3), (1, 6)]


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "shards"), CASES)
def test_every_element_counts_once(chunk, shards):
    def fold(values):
        how = {"total": "sum", "soft": "log_sum_exp"}
        return fold_samples(
            lambda v: {"total": (v, -v), "soft": v[None] / 1e5},
            values,
            how,
            chunk=min(chunk, 6 // shards),
            shards=shards,
        )

    found = jax.jit(fold)(VALUES)
    assert float(found["total"][0]) == 111111.0
    assert float(found["total"][1]) == -111111.0
    np.testing.assert_allclose(found["soft"], [jax.nn.logsumexp(VALUES / 1e5)], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "shards"), CASES)
def test_map_keeps_the_order(chunk, shards):
    chunk = min(chunk, 6 // shards)
    found = map_samples(lambda v: jnp.stack([v, 2 * v]), VALUES, chunk=chunk, shards=shards)
    np.testing.assert_array_equal(found, np.stack([VALUES, 2 * VALUES], axis=1))


@pytest.mark.parametrize("chunk", [1, 2, 4, 6])
def test_what_is_kept_beside_a_sum_is_that_of_every_element(chunk):
    reduced, kept = jax.jit(
        lambda v: fold_and_map(lambda e: (2 * e, (e, e[None] + 1)), v, "sum", chunk=chunk)
    )(VALUES)
    assert float(reduced) == 222222.0
    np.testing.assert_array_equal(kept[0], VALUES)
    np.testing.assert_array_equal(kept[1], VALUES[:, None] + 1)


def test_what_a_short_last_chunk_repeats_is_left_out_even_if_not_finite():
    """Five elements in chunks of three: the second chunk starts at element two again."""
    values = jnp.asarray([1.0, 2.0, jnp.inf, 4.0, 5.0])
    seen = fold_samples(lambda v: jnp.where(jnp.isinf(v), 100.0, v), values, "sum", chunk=3)
    assert float(seen) == 112.0


def test_the_network_is_traced_once_whatever_the_chunk():
    traces = []

    def fn(v):
        traces.append(v)
        return v

    for chunk in (1, 2, 4):
        traces.clear()
        jax.jit(lambda values, c=chunk: fold_samples(fn, values, "sum", chunk=c))(VALUES)
        assert len(traces) <= 2  # shapes, then the loop's body


def test_draws_are_not_copied():
    """Temporary memory of a fold over a large array stays far below the array's size."""
    values = jax.ShapeDtypeStruct((101, 1000), jnp.float32)
    program = jax.jit(lambda v: fold_samples(jnp.sin, v, "sum", chunk=4))
    memory = program.lower(values).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.2 * 101 * 1000 * 4
