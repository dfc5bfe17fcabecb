"""Laplace approximation: a Gaussian at the posterior's mode (Daxberger et al. 2021, 2106.14806).

    q(w) = N(w*, T (H + diag(1 / sigma^2))^(-1))

w* by ``sgd``'s machinery, H the generalised Gauss-Newton matrix of all data (``curvature``), sigma
the prior's scales, T the temperature. ``structure`` says what of H is kept:

- ``last_layer``: the whole block of the last layer; all others stay at w*. Exact where the network
  is that layer and the likelihood Gaussian.
- ``diagonal``: of all layers.
- ``kronecker``: of all layers a block ``A (x) G / (N places)`` each (Ritter et al. 2018; KFC,
  Grosse, Martens 2016, of convolutions), to which the prior is added exactly, in its eigenbasis.

Of a robust likelihood w* is the mode, and H still that of the plain one, at w*.

Draws are weights of the network itself, not of its linearisation, from which those papers predict
at all layers: networks that attacks can differentiate, and at wide posteriors worse predictions.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from bnn_adv.compute import parallel
from bnn_adv.compute.settings import SettingError, setting
from bnn_adv.inference import curvature, gaussians, members
from bnn_adv.inference.base import (
    InferenceResult,
    RunOptions,
    draw_anew,
    identify,
    open_data,
)
from bnn_adv.inference.densities import Data, get_likelihood, logdensity_fn
from bnn_adv.inference.members import Training, posterior_loss, train
from bnn_adv.inference.robust import make_step
from bnn_adv.networks import Params, count_params, get_apply_fn, init_params
from bnn_adv.networks.layers import Layer, list_layers
from bnn_adv.posteriors.sampler import Sampler

UNIT = "minibatches"
"""What progress counts."""

# Beyond it a matrix of float64 takes more than a GB, and minutes to decompose.
_MOST_WEIGHTS = 12_000
_NUM_PROBES = 50
# Draws lie half a nat a weight below the mode: a tenth of that.
_MOST_GAIN = 0.05


@dataclasses.dataclass(frozen=True)
class Config(members.Config):
    """How the mode is found, and what of the curvature is kept.

    Args:
      structure: ``"last_layer"``, ``"diagonal"`` or ``"kronecker"``, see above.
      temperature: The covariance is multiplied by it; the mode stays.
    """

    structure: Literal["last_layer", "diagonal", "kronecker"] = "last_layer"
    temperature: float = setting(1.0, above=0)


def choose_layers(
    network: nn.Module, input_shape: tuple[int, ...], structure: str
) -> tuple[Layer, ...]:
    """Return the layers whose blocks of H are asked for.

    Raises:
      SettingError: The network has weights that ``structure`` does not know.
    """
    if structure == "diagonal":
        return ()
    layers = list_layers(network, input_shape)
    chosen = layers[-1:] if structure == "last_layer" else layers
    known = ("Dense",) if structure == "last_layer" else ("Dense", "Convolve")
    wrong = [f"{layer.name} ({layer.kind})" for layer in chosen if layer.kind not in known]
    # Of a dense layer that is applied at many places gradients are no single products.
    wrong += [layer.name for layer in chosen if layer.kind == "Dense" and len(layer.inputs) > 1]
    if structure == "kronecker":
        shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), network, input_shape))
        known_weights = {f"{layer.name}/{part}" for layer in layers for part in ("kernel", "bias")}
        wrong += sorted(set(flatten_dict(shapes, sep="/")) - known_weights)
    if wrong or not chosen:
        what = ", ".join(wrong) or "none"
        raise SettingError(
            "structure",
            f"{structure} is defined for the layers {' and '.join(known)}, and this network has "
            f"{what}. Give diagonal, which any network has.",
        )
    size = (chosen[0].inputs[-1] + chosen[0].has_bias) * chosen[0].outputs[-1]
    if structure == "last_layer" and size > _MOST_WEIGHTS:
        raise SettingError(
            "structure",
            f"last_layer keeps a matrix of all pairs of at most {_MOST_WEIGHTS:,} weights, and "
            f"{chosen[0].name} has {size:,}. Give kronecker.",
        )
    return chosen


def fit_gaussian(
    params: Params, data: Data, network: nn.Module, config: Config, mesh: Mesh | None = None
) -> jax.tree_util.Partial:
    """Return the function ``rng_key -> params`` that draws from the Gaussian at ``params``.

    Args:
      params: The mode, w*.
      data: All training data.
      network: The network.
      config: Settings.
      mesh: Devices: blocks of data are split over ``data``.
    """
    layers = choose_layers(network, data.x.shape[1:], config.structure)
    where = parallel.replicate(params, mesh), parallel.spread(data, mesh, "data")
    options: dict[str, Any] = {"network": network, "likelihood": config.likelihood}
    found: jax.tree_util.Partial
    if config.structure == "diagonal":
        diagonal = parallel.gather(curvature.diagonal(*where, **options), mesh)
        found = gaussians.diagonal(params, diagonal, config.prior, config.temperature)
    elif config.structure == "kronecker":
        factors = parallel.to_host(curvature.kronecker(*where, layers=layers, **options))
        # Both factors are sums over all data and places: their product counts each twice.
        counts = {layer.name: len(data.x) * math.prod(layer.outputs[:-1]) for layer in layers}
        found = gaussians.kronecker(params, factors, counts, config.prior, config.temperature)
    else:
        block = parallel.to_host(curvature.full(*where, layer=layers[0], **options))
        name = layers[0].name
        found = gaussians.full(params, name, block, config.prior, config.temperature)
    return found


def estimate_gain(
    rng_key: jax.Array, mode: Params, data: Data, sampler: Sampler, config: Config
) -> float:
    """Return how many nats of log density the mode is short of, by the Gaussian: ``g^T C g / 2``.

    g is the gradient of ``log p(w | D)``, zero at the mode, C the covariance at T = 1; estimated by
    the mean of ``(g^T (w - w*))^2`` over draws, to a fifth or so.
    """

    @jax.jit
    def fn(mode: Params, data: Data, draws: Params) -> jax.Array:
        gradient = jax.grad(logdensity_fn)(
            mode,
            data,
            apply_fn=sampler.apply_fn,
            prior=config.prior,
            likelihood=get_likelihood(config),
        )
        terms = jax.tree.map(
            lambda g, w, m: jnp.sum(g * (w - m), axis=range(1, w.ndim)), gradient, draws, mode
        )
        return jnp.mean(sum(jax.tree.leaves(terms)) ** 2) / (2 * config.temperature)

    data = data._replace(step=make_step(config, rng_key))
    return float(fn(mode, data, sampler.sample(rng_key, _NUM_PROBES).samples))


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    options: RunOptions = RunOptions(),
) -> InferenceResult:
    """Find the mode, measure the curvature there and draw; arguments as for ``sgd.run``.

    Returns:
      ``num_samples`` draws; ``sample`` and ``sampler`` draw fresh ones.
    """
    data, options = open_data(rng_key, network, data, options, likelihood=config.likelihood)
    layers = choose_layers(network, data.x.shape[1:], config.structure)
    params, losses = train(
        rng_key,
        data,
        Training(network, config, posterior_loss),
        options=options,
        identity=identify("laplace", rng_key, network, config, data, options.mesh),
    )
    mode = jax.tree.map(lambda w: w[0], params)
    sampler = Sampler(
        get_apply_fn(network), fit_gaussian(mode, data, network, config, options.mesh)
    )
    key = jax.random.fold_in(rng_key, 2 + config.num_epochs)
    gain = estimate_gain(key, mode, data, sampler, config)
    result = draw_anew(
        jax.random.fold_in(rng_key, 1 + config.num_epochs),
        sampler,
        config.num_samples,
        {"loss": losses, "mode_gain": gain},
        options=options,
    )
    parts = flatten_dict(mode, sep="/").items()
    names = tuple(f"{layer.name}/" for layer in layers) or ""
    if gain > _MOST_GAIN * count_params([w for name, w in parts if name.startswith(names)]):
        result.diagnostics["warnings"].append(
            f"The training ended about {gain:.3g} nats below the posterior's mode, around which "
            "Laplace's approximation is made: raise num_epochs, or lower learning_rate."
        )
    return result
