r"""The posterior's log density: Gaussian prior, likelihood, and their sum.

    log p(w | D) = [ sum_j log N(w_j; 0, sigma_j^2)
                     + (N / B) sum_{i in batch} log p(y_i | f(x_i, w)) ] / T

up to a constant, with ``p(y | f) = softmax(f)_y`` (categorical, the default) or ``N(y; f, 1)``.
With B = N it is the full-data posterior; a uniform minibatch gives an unbiased estimate. T = 1 is
the Bayesian posterior. Data are arguments, never closed over: a closed-over array becomes a
constant of the compiled program (hundreds of MB for MNIST).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal

from bnn_adv.compute import blocks
from bnn_adv.compute.settings import Settings, setting
from bnn_adv.networks import ApplyFn, Params


class Data(NamedTuple):
    """A labelled data set as arguments of jitted functions.

    x: float32 inputs, [N, ...], in [0, 1].
    y: int32 labels, [N] (float32 targets, [N, K], for a Gaussian likelihood).
    """

    x: jax.Array
    y: jax.Array


@dataclasses.dataclass(frozen=True)
class Prior(Settings):
    """A centred Gaussian prior on every weight and bias.

    Args:
      scale: Standard deviation of the Gaussian prior; the paper uses 1.
      kind: Prior of kernels: ``"isotropic"``, or ``"fan_in"``: ``scale / sqrt(fan_in)`` (a prior
        whose functions stay bounded as width grows); biases have ``scale``.
    """

    scale: float = setting(1.0, above=0)
    kind: Literal["isotropic", "fan_in"] = "isotropic"


def prior_scales(params: Params, prior: Prior, *, temperature: float = 1.0) -> Params:
    """Return the prior's standard deviation for every leaf of ``params``, as Python floats.

    Raising a Gaussian to the power 1/T multiplies its standard deviation by sqrt(T).
    """

    def leaf_scale(leaf: jax.Array) -> float:
        fan_in = leaf.size // leaf.shape[-1] if leaf.ndim > 1 else 1
        width = math.sqrt(fan_in) if prior.kind == "fan_in" else 1.0
        return prior.scale * math.sqrt(temperature) / width

    return jax.tree.map(leaf_scale, params)


def sample_prior(
    rng_key: jax.Array, template: Params, prior: Prior, *, temperature: float = 1.0
) -> Params:
    """Draw parameters of the shapes of ``template`` from the (tempered) prior."""
    leaves, structure = jax.tree.flatten(template)
    scales = jax.tree.leaves(prior_scales(template, prior, temperature=temperature))
    draws = [
        scale * jax.random.normal(jax.random.fold_in(rng_key, index), leaf.shape, leaf.dtype)
        for index, (leaf, scale) in enumerate(zip(leaves, scales, strict=True))
    ]
    return jax.tree.unflatten(structure, draws)


def log_prior(params: Params, prior: Prior, *, centred: bool = False) -> jax.Array:
    """Return the log density of the prior at ``params``, a scalar in nats.

    Args:
      params: One draw.
      prior: The prior.
      centred: Leave out constants so that the sum is ``sum_j (1 - w_j^2 / sigma_j^2) / 2``, near
        zero at typical draws: large sums lose digits in float32. False gives the normalised
        density.
    """

    def term(leaf: jax.Array, scale: float) -> jax.Array:
        if centred:
            return accurate_sum(0.5 * (1.0 - (leaf / scale) ** 2))
        return jax.scipy.stats.norm.logpdf(leaf, scale=scale).sum()

    terms = jax.tree.map(term, params, prior_scales(params, prior))
    return sum(jax.tree.leaves(terms), start=jnp.zeros(()))


def accurate_sum(values: jax.Array) -> jax.Array:
    """Return the sum of all values: rows first, then the rows' sums.

    A running sum of n float32 values errs by up to n rounding steps, this by about 2 sqrt(n).
    """
    flat = values.reshape(-1)
    length = math.isqrt(flat.size - 1) + 1 if flat.size else 1
    rows = jnp.pad(flat, (0, -flat.size % length)).reshape(-1, length)
    # As a matrix product, for XLA would merge two nested sums into one.
    ones = jnp.ones((length,), rows.dtype)
    return jnp.matmul(rows, ones, precision="highest").sum()


def categorical(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``log softmax(outputs)_y`` for logits [B, C] and labels [B], in nats, [B]."""
    log_probs = jax.nn.log_softmax(outputs)
    return jnp.take_along_axis(log_probs, y[:, None], axis=-1)[:, 0]


def gaussian(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``log N(y; outputs, 1)`` for outputs and targets [B, K], in nats, [B]."""
    return jax.scipy.stats.norm.logpdf(y, loc=outputs).sum(axis=-1)


LIKELIHOODS = {"categorical": categorical, "gaussian": gaussian}


def log_likelihood(
    params: Params,
    data: Data,
    apply_fn: ApplyFn,
    likelihood: str = "categorical",
    *,
    block: int | None = None,
) -> jax.Array:
    """Return ``sum_i log p(y_i | f(x_i, w))`` over the given data, a scalar in nats.

    Value and gradient are summed over blocks of examples: memory does not grow with their number,
    and stays in a CPU's caches. Reverse differentiation only, where there is more than one block.

    Args:
      params: One draw.
      data: B examples.
      apply_fn: The network's function.
      likelihood: A name in ``LIKELIHOODS``.
      block: Examples at once; None chooses from the network and the backend.
    """
    if block is None:
        each = blocks.bytes_per_input(apply_fn, params, data.x)
        block = blocks.choose_block(each, data.x.shape[0])

    def fn(weights: Params, rows: Data) -> jax.Array:
        return LIKELIHOODS[likelihood](apply_fn(weights, rows.x), rows.y).sum()

    return fn(params, data) if block >= data.x.shape[0] else _sum_blocks(fn, block, params, data)


_Fn = Callable[[Params, Data], jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_blocks(fn: _Fn, block: int, params: Params, data: Data) -> jax.Array:
    found: jax.Array = blocks.sum_blocks(lambda rows: fn(params, rows), data, block)
    return found


def _sum_blocks_forward(fn: _Fn, block: int, params: Any, data: Any) -> tuple[jax.Array, Any]:
    values = jax.tree.map(lambda leaf: leaf.value, (params, data), is_leaf=_is_primal)
    if any(leaf.perturbed for leaf in jax.tree.leaves(data, is_leaf=_is_primal)):
        # Somebody wants the gradient of the inputs too: the plain computation has it.
        value, vjp = jax.vjp(fn, *values)
        return value, (None, vjp)
    # The gradient of each block along with its value: nothing of a block outlives it.
    value, gradient = blocks.sum_blocks(
        lambda rows: jax.value_and_grad(fn)(values[0], rows), values[1], block
    )
    return value, (gradient, None)


def _sum_blocks_backward(fn: _Fn, block: int, saved: Any, cotangent: Any) -> tuple[Any, Any]:
    gradient, vjp = saved
    if vjp is not None:
        found: tuple[Any, Any] = vjp(cotangent)
        return found
    return jax.tree.map(lambda g: g * cotangent, gradient), None


_sum_blocks.defvjp(_sum_blocks_forward, _sum_blocks_backward, symbolic_zeros=True)


def _is_primal(node: Any) -> bool:
    return isinstance(node, CustomVJPPrimal)


def logdensity_fn(
    params: Params,
    data: Data,
    *,
    apply_fn: ApplyFn,
    prior: Prior,
    likelihood: str = "categorical",
    num_data: int | None = None,
    temperature: float = 1.0,
    centred: bool = False,
) -> jax.Array:
    """Return the posterior's log density up to a constant, from all data or a minibatch.

    Args:
      params: One draw.
      data: B examples.
      apply_fn: The network's function.
      prior: The prior.
      likelihood: A name in ``LIKELIHOODS``.
      num_data: Size N of the whole data set where ``data`` is a minibatch; None for B.
      temperature: T > 0; below one sharpens the posterior.
      centred: See ``log_prior``.

    Returns:
      A scalar in nats; over uniform minibatches its mean is the full-data value.
    """
    batch = data.x.shape[0]
    weight = (batch if num_data is None else num_data) / batch
    fit = log_likelihood(params, data, apply_fn, likelihood)
    return (log_prior(params, prior, centred=centred) + weight * fit) / temperature
