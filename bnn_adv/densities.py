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
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.networks import ApplyFn, Params


class Data(NamedTuple):
    """Hold a labelled data set as arguments of jitted functions.

    x: float32 inputs, [N, ...], in [0, 1].
    y: int32 labels, [N] (float32 targets, [N, K], for a Gaussian likelihood).
    """

    x: jax.Array
    y: jax.Array


def check_likelihood(name: str) -> None:
    """Raise ValueError unless there is a likelihood of that name."""
    if name not in LIKELIHOODS:
        raise ValueError(f"Unknown likelihood {name!r}. Known: {', '.join(LIKELIHOODS)}.")


@dataclasses.dataclass(frozen=True)
class Prior:
    """Describe a centred Gaussian prior on every weight and bias.

    Args:
      scale: Standard deviation, positive; the paper uses 1.
      kind: ``"isotropic"``, or ``"fan_in"``: kernels have ``scale / sqrt(fan_in)`` (a prior whose
        functions stay bounded as width grows), biases ``scale``.
    """

    scale: float = 1.0
    kind: Literal["isotropic", "fan_in"] = "isotropic"

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"The prior's scale must be positive, got {self.scale}.")
        if self.kind not in ("isotropic", "fan_in"):
            raise ValueError(f"Unknown prior {self.kind!r}. Known: isotropic, fan_in.")


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


def log_prior(params: Params, prior: Prior) -> jax.Array:
    """Return the normalised log density of the prior at ``params``, a scalar in nats."""
    terms = jax.tree.map(
        lambda leaf, scale: jax.scipy.stats.norm.logpdf(leaf, scale=scale).sum(),
        params,
        prior_scales(params, prior),
    )
    return sum(jax.tree.leaves(terms), start=jnp.zeros(()))


def categorical(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``log softmax(outputs)_y`` for logits [B, C] and labels [B], in nats, [B]."""
    log_probs = jax.nn.log_softmax(outputs)
    return jnp.take_along_axis(log_probs, y[:, None], axis=-1)[:, 0]


def gaussian(outputs: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``log N(y; outputs, 1)`` for outputs and targets [B, K], in nats, [B]."""
    return jax.scipy.stats.norm.logpdf(y, loc=outputs).sum(axis=-1)


LIKELIHOODS = {"categorical": categorical, "gaussian": gaussian}


def log_likelihood(
    params: Params, data: Data, apply_fn: ApplyFn, likelihood: str = "categorical"
) -> jax.Array:
    """Return ``sum_i log p(y_i | f(x_i, w))`` over the given data, a scalar in nats.

    Args:
      likelihood: A name in ``LIKELIHOODS``.
    """
    return LIKELIHOODS[likelihood](apply_fn(params, data.x), data.y).sum()


def logdensity_fn(
    params: Params,
    data: Data,
    *,
    apply_fn: ApplyFn,
    prior: Prior,
    likelihood: str = "categorical",
    num_data: int | None = None,
    temperature: float = 1.0,
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

    Returns:
      A scalar in nats; over uniform minibatches its mean is the full-data value.
    """
    batch = data.x.shape[0]
    weight = (batch if num_data is None else num_data) / batch
    fit = log_likelihood(params, data, apply_fn, likelihood)
    return (log_prior(params, prior) + weight * fit) / temperature
