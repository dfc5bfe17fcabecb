r"""Linear coordinates in which the posterior's scales are more alike, for chains on all data.

A leapfrog step can be no longer than the narrowest direction of the posterior is wide, and of a
network that direction is far narrower than the prior: the one along which all inputs agree. Chains
move in v instead of the weights w of a layer, a column an output, with the bias as last row:

    w = P v,    P = S (I + S H S / T)^(-power / 2) / sigma,
    H = E_{w ~ prior} [ (1/F) sum_f H_ff ]

S = diag of the tempered prior's scales, sigma the tempered prior's own scale, T the temperature,
H_ff the block of output f of F of the generalised Gauss-Newton matrix (``curvature``). One matrix
serves all outputs of a layer, as units can be exchanged under the posterior, and it is taken at
draws of the prior, so that it depends on no chain. Directions of which the data say nothing keep
the prior's scale sigma: lengths of trajectories mean what they meant, and under a ``fan_in`` prior
those of kernels are in units of each kernel's own scale. The law of the draws is the same under any
P; a good one allows longer steps. (Cf. Girolami, Calderhead 2011, with a constant metric; K-FAC,
Martens, Grosse 2015, arXiv 1503.05671, whose input factors these are, weighted by the outputs'
gradients.)

The power is the setting ``precondition``. 1 makes all scales of a linear model with a Gaussian
likelihood sigma exactly. Of a network it goes too far: moves of several units that undo each other
are far freer than those of one, which is all that H knows, and chains become slow along them; with
a half far less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from bnn_adv.compute.settings import SettingError
from bnn_adv.inference import curvature
from bnn_adv.inference.densities import Data, Prior, prior_scales, sample_prior
from bnn_adv.networks import Params, get_apply_fn, init_params
from bnn_adv.networks.layers import Layer, list_layers

NUM_DRAWS = 16
"""Draws of the prior that H is the mean of."""
# Beyond it decomposing a matrix takes minutes, and multiplying by it more than the layer itself.
_MOST_INPUTS = 4096


class Maps(NamedTuple):
    """Both directions, [D, D] each, by name of layer; other weights are their own coordinates.

    to_weights: P.
    to_coordinates: Its inverse.
    """

    to_weights: dict[str, jax.Array]
    to_coordinates: dict[str, jax.Array]


def choose_layers(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """Return the layers that have a matrix: dense ones, and ``Convolve``.

    Raises:
      SettingError: There is none, or one has too many inputs.
    """
    try:
        layers = list_layers(network, input_shape)
    except ValueError as error:
        what = "is defined for layers that are called once. Give 0."
        raise SettingError("precondition", f"{what} ({error})") from None
    chosen = tuple(layer for layer in layers if layer.kind in ("Dense", "Convolve"))
    if not chosen:
        kinds = ", ".join(sorted({layer.kind for layer in layers})) or "none"
        raise SettingError(
            "precondition",
            f"is for networks with layers Dense or Convolve, and this one has {kinds}. Give 0.",
        )
    for layer in chosen:
        if (size := count_inputs(layer)) > _MOST_INPUTS:
            raise SettingError(
                "precondition",
                f"keeps a matrix of all pairs of a layer's inputs, of at most {_MOST_INPUTS:,}, "
                f"and {layer.name} has {size:,}. Give 0.",
            )
    return chosen


def count_inputs(layer: Layer) -> int:
    """Return the rows of a layer's kernel, and one for its bias."""
    window = math.prod(layer.kernel_size) if layer.kernel_size else 1
    return int(layer.inputs[-1] * window + layer.has_bias)


def estimate(rng_key: jax.Array, network: nn.Module, data: Data, config: Any) -> Maps | None:
    """Return the coordinates of a posterior; None where chains move in the weights.

    Args:
      rng_key: Typed key of the draws of the prior.
      network: The network.
      data: Training data, x [N, ...].
      config: Settings of the chains.

    Raises:
      SettingError: See ``choose_layers``.
    """
    if not config.precondition:
        return None
    shape = data.x.shape[1:]
    layers = choose_layers(network, shape)
    template = init_params(rng_key, network, shape)
    found: dict[str, np.ndarray] = {}
    for number in range(NUM_DRAWS):
        # The tempered posterior's typical weights are those of the tempered prior.
        key = jax.random.fold_in(rng_key, number)
        params = sample_prior(key, template, config.prior, temperature=config.temperature)
        sides = curvature.input_sides(
            params, data, network=network, layers=layers, likelihood=config.likelihood
        )
        for name, side in sides.items():
            found[name] = found.get(name, 0.0) + np.asarray(side, np.float64) / NUM_DRAWS
    pairs = {
        layer.name: _whiten(found[layer.name], _row_scales(template, layer, config), config)
        for layer in layers
    }
    return Maps(*({name: pair[i] for name, pair in pairs.items()} for i in range(2)))


def count_gradients(network: nn.Module, data: Data, config: Any) -> int:
    """Return the backward passes of all data that ``estimate`` takes: one an output and draw."""
    if not config.precondition:
        return 0
    two = jax.ShapeDtypeStruct((2, *data.x.shape[1:]), data.x.dtype)
    params = jax.eval_shape(lambda: init_params(jax.random.key(0), network, data.x.shape[1:]))
    outputs = jax.eval_shape(get_apply_fn(network), params, two)
    return NUM_DRAWS * int(math.prod(outputs.shape[1:]))


def _row_scales(template: Params, layer: Layer, config: Any) -> np.ndarray:
    """Return the tempered prior's scale of every row, [D]."""
    prior: Prior = config.prior
    scales = flatten_dict(prior_scales(template, prior, temperature=config.temperature), sep="/")
    rows = np.full(count_inputs(layer), scales[f"{layer.name}/kernel"])
    if layer.has_bias:
        rows[-1] = scales[f"{layer.name}/bias"]
    return rows


def _whiten(side: np.ndarray, scales: np.ndarray, config: Any) -> tuple[jax.Array, jax.Array]:
    """Return P and its inverse, by an eigendecomposition in float64."""
    own = config.prior.scale * config.temperature**0.5
    scaled = scales[:, None] * side * scales / config.temperature
    if not np.isfinite(scaled).all():
        raise SettingError(
            "precondition",
            "takes a curvature that is not finite at draws of this prior. Give 0, or a smaller "
            "scale.",
        )
    values, vectors = np.linalg.eigh((scaled + scaled.T) / 2)
    roots = (1 + np.maximum(values, 0)) ** (config.precondition / 2)
    to_weights = scales[:, None] * ((vectors / roots) @ vectors.T) / own
    to_coordinates = own * ((vectors * roots) @ vectors.T) / scales
    return jnp.asarray(to_weights, jnp.float32), jnp.asarray(to_coordinates, jnp.float32)


def apply(matrices: Mapping[str, jax.Array], params: Params) -> Params:
    """Multiply the kernel, with its bias as last row, of every layer that has a matrix.

    Args:
      matrices: By name of layer, [D, D].
      params: Weights or coordinates, kernels [..., F].
    """
    leaves = dict(flatten_dict(params, sep="/"))
    for name, matrix in matrices.items():
        kernel, bias = leaves[f"{name}/kernel"], leaves.get(f"{name}/bias")
        rows = kernel.reshape(-1, kernel.shape[-1])
        if bias is not None:
            rows = jnp.concatenate([rows, bias[None]])
        rows = jnp.matmul(matrix, rows, precision="highest")
        if bias is not None:
            rows, leaves[f"{name}/bias"] = rows[:-1], rows[-1]
        leaves[f"{name}/kernel"] = rows.reshape(kernel.shape)
    return unflatten_dict(leaves, sep="/")


def build(
    own: Callable[[Callable[[Params], jax.Array], Any], Any],
    logdensity: Callable[[Params], jax.Array],
    config: Any,
    maps: Maps | None,
) -> Any:
    """Return a kernel that moves in coordinates and tells of weights.

    Args:
      own: The kernel file's ``build``.
      logdensity: Of weights. Its density in v differs by a constant, the determinant's.
      config: Settings of the kernel.
      maps: The coordinates; None: weights are their own.
    """
    if maps is None:
        return own(logdensity, config)
    kernel = own(lambda v: logdensity(apply(maps.to_weights, v)), config)
    return kernel._replace(
        init=lambda key, params: kernel.init(key, apply(maps.to_coordinates, params)),
        position=lambda state: apply(maps.to_weights, kernel.position(state)),
    )
