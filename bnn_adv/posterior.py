"""A posterior: stacked draws of the parameters, and the function that turns one draw into logits.

Everything streams over the draws in chunks, so that memory does not grow with their number.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv import files
from bnn_adv.networks import ApplyFn, Params

_CHUNK_PARAMETERS = 2**22
"""Weights that one chunk of draws may hold by default: 16 MiB, about a CPU's last-level cache."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["samples"], meta_fields=["apply_fn"]
)
@dataclasses.dataclass(frozen=True)
class Posterior:
    """Hold draws from a distribution over networks.

    A deterministic network is a posterior of one draw, a deep ensemble one of its members.

    Args:
      apply_fn: Pure function ``(params, x) -> logits``, shapes ``[B, ...] -> [B, classes]``.
      samples: Parameters with a leading axis of S draws on every leaf.
    """

    apply_fn: ApplyFn
    samples: Params

    @property
    def num_samples(self) -> int:
        """Number of draws, S."""
        return jax.tree.leaves(self.samples)[0].shape[0]

    def take(self, indices: Any) -> Posterior:
        """Return the posterior of the draws at ``indices`` (integers of shape [K])."""
        indices = jnp.asarray(indices)
        return dataclasses.replace(self, samples=jax.tree.map(lambda w: w[indices], self.samples))


def default_sample_chunk(posterior: Posterior) -> int:
    """Return how many draws to vmap over at once, from the size of the network."""
    scalars = sum(leaf[0].size for leaf in jax.tree.leaves(posterior.samples))
    return int(np.clip(_CHUNK_PARAMETERS // scalars, 1, posterior.num_samples))


def check_sample_chunk(posterior: Posterior, sample_chunk: int | None) -> int:
    """Return a valid chunk: the given one, or the default where it is None.

    Raises:
      ValueError: The chunk is below one or larger than the number of draws.
    """
    if sample_chunk is None:
        return default_sample_chunk(posterior)
    if not 1 <= sample_chunk <= posterior.num_samples:
        raise ValueError(
            f"sample_chunk must lie between 1 and the number of draws "
            f"({posterior.num_samples}), got {sample_chunk}."
        )
    return sample_chunk


def fold_samples(
    fn: Callable[[Any], Any],
    xs: Any,
    combine: Callable[[Any, Any], Any],
    *,
    chunk: int,
) -> Any:
    """Reduce ``fn`` over the leading axis of ``xs`` without holding more than a chunk of results.

    Args:
      fn: Maps one element (a draw, with what belongs to it) to a pytree of arrays.
      xs: Pytree whose leaves have a leading axis of S elements.
      combine: Maps (carry, results) to the new carry; results have a leading axis of at most
        ``chunk``, and the first carry is None.
      chunk: Elements that are mapped at once with ``vmap``.

    Returns:
      The last carry.
    """
    size = jax.tree.leaves(xs)[0].shape[0]
    whole = size // chunk
    mapped = jax.vmap(fn)
    carry = combine(None, mapped(jax.tree.map(lambda a: a[:chunk], xs)))
    if whole > 1:
        middle = jax.tree.map(
            lambda a: a[chunk : whole * chunk].reshape(whole - 1, chunk, *a.shape[1:]), xs
        )
        carry, _ = jax.lax.scan(lambda c, part: (combine(c, mapped(part)), None), carry, middle)
    if size > whole * chunk:
        carry = combine(carry, mapped(jax.tree.map(lambda a: a[whole * chunk :], xs)))
    return carry


def combine_logsumexp(carry: jax.Array | None, values: jax.Array) -> jax.Array:
    """Fold [chunk, ...] into a running log-sum-exp over the leading axis."""
    total = jax.nn.logsumexp(values, axis=0)
    return total if carry is None else jnp.logaddexp(carry, total)


def combine_sum(carry: Any, values: Any) -> Any:
    """Fold a pytree of [chunk, ...] into a running sum over the leading axis."""
    total = jax.tree.map(lambda v: v.sum(axis=0), values)
    return total if carry is None else jax.tree.map(jnp.add, carry, total)


@functools.partial(jax.jit, static_argnames=("sample_chunk", "batch_size"))
def log_probs(
    posterior: Posterior,
    x: jax.Array,
    *,
    sample_chunk: int | None = None,
    batch_size: int = 256,
) -> jax.Array:
    """Return every draw's log-probabilities, ``log softmax(f(x, w_s))``.

    Args:
      posterior: S draws.
      x: Inputs, [N, ...].
      sample_chunk: Draws at once; None chooses from the size of the network.
      batch_size: Inputs at once.

    Returns:
      [S, N, classes].
    """
    chunk = check_sample_chunk(posterior, sample_chunk)

    def one_batch(rows: jax.Array) -> jax.Array:
        def one_draw(params: Params) -> jax.Array:
            return jax.nn.log_softmax(posterior.apply_fn(params, rows))

        return jax.lax.map(one_draw, posterior.samples, batch_size=chunk).swapaxes(0, 1)

    return _in_batches(one_batch, x, batch_size).swapaxes(0, 1)


@functools.partial(jax.jit, static_argnames=("sample_chunk", "batch_size"))
def predict_log_probs(
    posterior: Posterior,
    x: jax.Array,
    *,
    sample_chunk: int | None = None,
    batch_size: int = 256,
) -> jax.Array:
    """Return the log of the posterior predictive, ``log (1/S) sum_s softmax(f(x, w_s))``.

    Computed in log space: finite in float32 where every draw's softmax is saturated.

    Args:
      posterior: S draws.
      x: Inputs, [N, ...].
      sample_chunk: Draws at once; None chooses from the size of the network.
      batch_size: Inputs at once.

    Returns:
      [N, classes]; rows sum to one after exponentiation.
    """
    chunk = check_sample_chunk(posterior, sample_chunk)

    def one_batch(rows: jax.Array) -> jax.Array:
        total = fold_samples(
            lambda params: jax.nn.log_softmax(posterior.apply_fn(params, rows)),
            posterior.samples,
            combine_logsumexp,
            chunk=chunk,
        )
        return total - jnp.log(posterior.num_samples)

    return _in_batches(one_batch, x, batch_size)


def _in_batches(fn: Callable[[jax.Array], jax.Array], x: jax.Array, batch_size: int) -> jax.Array:
    """Apply ``fn`` ([B, ...] -> [B, ...]) to batches of inputs, at float32's full precision.

    tf32 and bf16 products would let a prediction disagree with the attack that was just run.
    """
    size = min(batch_size, x.shape[0])
    whole = x.shape[0] // size * size
    with jax.default_matmul_precision("highest"):
        parts = jax.lax.map(fn, x[:whole].reshape(-1, size, *x.shape[1:]))
        result = parts.reshape(whole, *parts.shape[2:])
        if whole < x.shape[0]:
            result = jnp.concatenate([result, fn(x[whole:])])
    return result


def save_posterior(path: str | os.PathLike[str], posterior: Posterior) -> None:
    """Write the draws to one ``.npz`` file, atomically and without pickle."""
    files.write_arrays(path, _flatten(posterior.samples))


def load_posterior(path: str | os.PathLike[str], apply_fn: ApplyFn, expected: Params) -> Posterior:
    """Read draws that ``save_posterior`` wrote, checked against the network that will use them.

    Args:
      path: The file.
      apply_fn: The network's function.
      expected: One draw of the network's parameters (arrays or ``ShapeDtypeStruct``).

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged, or an array is missing, unknown or of another shape; the
        message names it.
    """
    stored = files.read_arrays(path)
    wanted = _flatten(expected)
    problems = [f"{name} is missing" for name in wanted if name not in stored]
    problems += [f"{name} is not a parameter" for name in stored if name not in wanted]
    problems += [
        f"{name} has shape {stored[name].shape[1:]} a draw where the network has {leaf.shape}"
        for name, leaf in wanted.items()
        if name in stored and stored[name].shape[1:] != leaf.shape
    ]
    if len({array.shape[:1] for array in stored.values()}) > 1:
        problems.append("arrays differ in their number of draws")
    if problems:
        raise ValueError(
            f"{os.fspath(path)} does not fit the network: {'; '.join(problems)}. "
            "Load it with the network that it was saved with."
        )
    leaves = [jnp.asarray(stored[name]) for name in wanted]
    return Posterior(apply_fn, jax.tree.unflatten(jax.tree.structure(expected), leaves))


def _flatten(params: Params) -> dict[str, Any]:
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}
