"""Monte Carlo dropout (Gal, Ghahramani 2016, arXiv 1506.02142): train and predict with dropout.

Units in front of a layer with the kernel M are dropped with probability p. That is a kernel whose
rows are multiplied by random masks (eq. 2 there), so that a draw of dropout is a draw of weights:

    W = diag(z) M,    z_j ~ Bernoulli(1 - p) / (1 - p)

one mask for all inputs: a network as any other. In training every example has masks of its own
(Srivastava et al. 2014). The loss is the bound of their eq. 8 over N, with this prior's KL term,

    -(1 / B) sum_{i in batch} log p(y_i | f(x_i, W_i)) - E_q[ log p(W) ] / N

With a robust likelihood all examples of a minibatch share their masks, as one network has a worst
case. Of convolutions input channels are dropped. Networks need no dropout layers of their own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.tree_util import Partial

from bnn_adv.compute.settings import setting
from bnn_adv.inference import members
from bnn_adv.inference.base import (
    InferenceResult,
    RunOptions,
    draw_anew,
    identify,
    open_data,
)
from bnn_adv.inference.densities import (
    LIKELIHOODS,
    Data,
    get_likelihood,
    log_likelihood,
    log_prior,
)
from bnn_adv.inference.members import Training, train
from bnn_adv.networks import Params, get_apply_fn
from bnn_adv.networks.layers import list_layers, visit_layers
from bnn_adv.posteriors.sampler import Sampler

UNIT = "minibatches"
"""What progress counts."""


@dataclasses.dataclass(frozen=True)
class Config(members.Config):
    """How the network is trained.

    Args:
      rate: Probability with which an input of a layer is dropped.
      input_rate: The same of the network's inputs.
    """

    rate: float = setting(0.1, above=0, below=1)
    input_rate: float = setting(0.0, least=0, below=1)


def keep_probabilities(
    network: nn.Module, input_shape: tuple[int, ...], config: Config
) -> dict[str, float]:
    """Return 1 - p by name of layer, in the order of the network."""
    layers = list_layers(network, input_shape)
    rates = [config.input_rate, *[config.rate] * (len(layers) - 1)]
    return {layer.name: 1 - rate for layer, rate in zip(layers, rates, strict=True)}


def apply_with_dropout(
    params: Params, x: jax.Array, rng_key: jax.Array, network: nn.Module, keep: Mapping[str, float]
) -> jax.Array:
    """Return logits with masks of its own for every example, on the activations.

    Args:
      params: The trained parameters M.
      x: Inputs, [B, ...].
      rng_key: Typed key of the masks.
      network: The network.
      keep: From ``keep_probabilities``.
    """
    numbers = {name: number for number, name in enumerate(keep)}

    def visit(name: str, inputs: jax.Array, layer: Any) -> jax.Array:
        # One mask a channel: of an image all places are dropped together.
        shape = (inputs.shape[0], *(1,) * (inputs.ndim - 2), inputs.shape[-1])
        key = jax.random.fold_in(rng_key, numbers[name])
        outputs: jax.Array = layer(inputs * _mask(key, keep[name], shape))
        return outputs

    return visit_layers(visit, network, params, x)


def draw_weights(params: Params, rng_key: jax.Array, *, keep: Mapping[str, float]) -> Params:
    """Draw ``W = diag(z) M`` for every kernel; see ``apply_with_dropout`` for the arguments."""
    flat = dict(flatten_dict(params, sep="/"))
    for number, (name, probability) in enumerate(keep.items()):
        kernel = flat[f"{name}/kernel"]
        key = jax.random.fold_in(rng_key, number)
        flat[f"{name}/kernel"] = kernel * _mask(key, probability, (kernel.shape[-2], 1))
    return unflatten_dict(flat, sep="/")


def dropout_loss(
    params: Params, batch: Data, rng_key: jax.Array, *, num_data: int, training: Training
) -> jax.Array:
    """Return the loss of a minibatch; see ``members.Loss``."""
    config, network = training.config, training.network
    keep = keep_probabilities(network, batch.x.shape[1:], config)
    # E[z^2] = 1 / (1 - p): the prior's mean over the masks is its value at M / sqrt(1 - p).
    flat = dict(flatten_dict(params, sep="/"))
    for name, probability in keep.items():
        flat[f"{name}/kernel"] = flat[f"{name}/kernel"] / probability**0.5
    expected = log_prior(unflatten_dict(flat, sep="/"), config.prior)
    likelihood = get_likelihood(config)
    if likelihood.robust.is_off:
        outputs = apply_with_dropout(params, batch.x, rng_key, network, keep)
        fit: jax.Array = LIKELIHOODS[config.likelihood](outputs, batch.y).mean()
    else:
        # The worst case is that of one network: one mask for the minibatch.
        weights = draw_weights(params, rng_key, keep=keep)
        fit = log_likelihood(weights, batch, get_apply_fn(network), likelihood) / len(batch.y)
    return -fit - expected / num_data


def _mask(rng_key: jax.Array, keep: float, shape: tuple[int, ...]) -> jax.Array:
    return jnp.where(jax.random.bernoulli(rng_key, keep, shape), 1 / keep, 0.0)


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    options: RunOptions = RunOptions(),
) -> InferenceResult:
    """Train with dropout and draw masks; arguments as for ``sgd.run``.

    Returns:
      ``num_samples`` draws; ``sample`` and ``sampler`` draw fresh masks.
    """
    data, options = open_data(rng_key, network, data, options, likelihood=config.likelihood)
    params, losses = train(
        rng_key,
        data,
        Training(network, config, dropout_loss),
        options=options,
        identity=identify("mc_dropout", rng_key, network, config, data, options.mesh),
    )
    keep = keep_probabilities(network, data.x.shape[1:], config)
    trained = jax.tree.map(lambda w: w[0], params)
    draw = Partial(functools.partial(draw_weights, keep=keep), trained)
    sampler = Sampler(get_apply_fn(network), draw)
    return draw_anew(
        jax.random.fold_in(rng_key, 1 + config.num_epochs),
        sampler,
        config.num_samples,
        {"loss": losses},
        options=options,
    )
