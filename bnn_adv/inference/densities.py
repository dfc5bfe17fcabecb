r"""The posterior's log density: Gaussian prior, likelihood, and their sum.

    log p(w | D) = [ sum_j log N(w_j; 0, sigma_j^2)
                     + (N / B) sum_{i in batch} log p(y_i | f(x_i, w)) ] / T

up to a constant, with ``p(y | f) = softmax(f)_y`` (categorical, the default) or ``N(y; f, 1)``.
With B = N it is the full-data posterior; a uniform minibatch gives an unbiased estimate. T = 1 is
the Bayesian posterior. A ``robust`` likelihood counts the worst case around every example. Data are
arguments, never closed over: a closed-over array becomes a constant of the compiled program
(hundreds of MB for MNIST).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal

from bnn_adv.compute import blocks
from bnn_adv.compute.settings import SettingError, Settings, setting
from bnn_adv.inference import minibatches, worst_cases
from bnn_adv.inference.robust import OFF, Robust, Step, get_robust
from bnn_adv.networks import ApplyFn, Params


class Data(NamedTuple):
    """A labelled data set as arguments of jitted functions.

    x: float32 inputs, [N, ...], in [0, 1].
    y: int32 labels, [N] (float32 targets, [N, K], for a Gaussian likelihood).
    step: Of a minibatch: what a robust likelihood takes from the training's step; else None.
    """

    x: jax.Array
    y: jax.Array
    step: Step | None = None


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


class Likelihood(NamedTuple):
    """A likelihood, and which worst case it counts.

    name: A name in ``LIKELIHOODS``.
    robust: Of ``categorical``.
    """

    name: str = "categorical"
    robust: Robust = OFF


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodConfig(Settings):
    """What the settings of every method have.

    Args:
      robust: Count the worst case around every example, see ``bnn_adv.inference.robust``.
    """

    robust: Robust = setting(OFF)

    has_keys: ClassVar[bool] = True
    """Whether every evaluation of the density has a key, which attacks start from."""

    optimises: ClassVar[bool] = True
    """Whether a radius may grow while it runs."""

    def __post_init__(self) -> None:
        """Check every field, and that the method can have such a worst case."""
        super().__post_init__()
        robust = self.robust
        # Of chains, how the networks are trained at which they may start.
        warmup = getattr(getattr(self, "ensemble", None), "warmup", 0)
        init = getattr(self, "init", "")
        if warmup and (robust.is_off or init != "ensemble"):
            problem = f"is {warmup}, of a robust likelihood's radius at chains that start at an"
            here = "the plain likelihood" if robust.is_off else f"init={init}"
            raise SettingError("ensemble.warmup", f"{problem} ensemble; here is {here}. Give 0.")
        if robust.is_off:
            return
        if (name := getattr(self, "likelihood", "categorical")) != "categorical":
            problem = f"needs the likelihood categorical, got {name}: the worst case is that of a"
            raise SettingError("robust.worst", f"{problem} class probability. Give none.")
        if robust.attacks and not self.has_keys:
            problem = f"{robust.worst} starts at random, and chains on the full data sample a"
            raise SettingError(
                "robust.worst", f"{problem} function of the weights: give interval or crown_ibp."
            )
        if robust.warmup and not self.optimises:
            problem = "is for methods that optimise: chains sample one density, of the whole"
            raise SettingError("robust.warmup", f"{problem} radius. Give 0.")
        if hasattr(self, "ensemble") and robust.init != "network" and init != "ensemble":
            problem = f"is {robust.init}, of a training, and these chains have init={init}."
            raise SettingError(
                "robust.init", f"{problem} Give init=ensemble, or robust.init=network."
            )


def get_likelihood(config: Any) -> Likelihood:
    """Return the likelihood that a method's settings ask for."""
    return Likelihood(config.likelihood, get_robust(config))


def log_likelihood(
    params: Params,
    data: Data,
    apply_fn: ApplyFn,
    likelihood: str | Likelihood = "categorical",
    *,
    block: int | None = None,
) -> jax.Array:
    """Return ``sum_i log p(y_i | f(x_i, w))`` over the given data, a scalar in nats.

    Of a robust likelihood the sum of ``worst_cases.robust_log_likelihood``.

    Value and gradient are summed over blocks of examples: memory does not grow with their number,
    and stays in a CPU's caches. Reverse differentiation only, where there is more than one block.

    Args:
      params: One draw.
      data: B examples.
      apply_fn: The network's function.
      likelihood: A name in ``LIKELIHOODS``, or one that may be robust.
      block: Examples at once; None chooses from the network and the backend.

    Raises:
      ValueError: A robust likelihood attacks, and the data have no ``step``.
    """
    name, robust = Likelihood(likelihood) if isinstance(likelihood, str) else likelihood
    rows: Any = Data(data.x, data.y)
    if not robust.is_off:
        rows = worst_cases.open_examples(*data, robust)

    def each(weights: Params, examples: Any) -> jax.Array:
        if robust.is_off:
            return LIKELIHOODS[name](apply_fn(weights, examples.x), examples.y)
        return worst_cases.robust_log_likelihood(weights, examples, apply_fn, robust)

    def fn(weights: Params, examples: Any) -> jax.Array:
        return each(weights, examples).sum()

    if block is None:
        seen = apply_fn if robust.is_off else worst_cases.as_apply_fn(each, rows)
        size = blocks.bytes_per_input(seen, params, data.x)
        block = blocks.choose_block(size, data.x.shape[0])
    return fn(params, rows) if block >= data.x.shape[0] else _sum_blocks(fn, block, params, rows)


_Fn = Callable[[Params, Any], jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_blocks(fn: _Fn, block: int, params: Params, data: Any) -> jax.Array:
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
    likelihood: str | Likelihood = "categorical",
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
      likelihood: As for ``log_likelihood``.
      num_data: Size N of the whole data set where ``data`` is a minibatch; None for B.
      temperature: T > 0; below one sharpens the posterior.
      centred: See ``log_prior``.

    Returns:
      A scalar in nats; over uniform minibatches its mean is the full-data value.
    """
    batch = data.x.shape[0]
    weight = minibatches.weigh(batch if num_data is None else num_data, batch)
    fit = log_likelihood(params, data, apply_fn, likelihood)
    return (log_prior(params, prior, centred=centred) + weight * fit) / temperature
