r"""The generalised Gauss-Newton matrix of a network's fit to data (Martens 2020, arXiv 1412.1193).

    H = sum_i J_i^T L_i L_i^T J_i,    J_i = d f(x_i, w) / d w

with L L^T the Hessian of ``-log p(y | f)`` in f, which does not depend on y: ``diag(p) - p p^T``
for a softmax, the identity for a unit Gaussian. It is the Hessian in w of the network linearised
around w. For a layer with inputs a (a last 1 for the bias) and outputs s, a column of L pulled back
to s, g = (ds / df)^T L_c, gives the gradient a g^T in its weights. Sums are over blocks of data.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from bnn_adv.compute import blocks
from bnn_adv.inference.densities import Data
from bnn_adv.networks import Params, get_apply_fn, take_patches
from bnn_adv.networks.layers import Layer, visit_layers


def _softmax_root(logits: jax.Array) -> jax.Array:
    """``diag(r) - p r^T`` with r = sqrt(p): times its transpose it is diag(p) - p p^T."""
    probs = jax.nn.softmax(logits)
    root = jnp.sqrt(probs)
    return jnp.eye(logits.shape[-1]) * root[:, None] - probs[:, :, None] * root[:, None, :]


def _identity_root(outputs: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(outputs.shape[-1]), (*outputs.shape, outputs.shape[-1]))


ROOTS = {"categorical": _softmax_root, "gaussian": _identity_root}
"""By likelihood: outputs [B, C] to L, [B, C, C], whose columns are pulled back."""


class Factors(NamedTuple):
    """The two factors of a layer's block of H, in sums over the data.

    inputs: ``sum_i sum_t a a^T``, [D, D]; t are the places of a convolution.
    outputs: ``sum_i sum_t sum_c g g^T``, [F, F].
    """

    inputs: jax.Array
    outputs: jax.Array


@functools.partial(jax.jit, static_argnames=("network", "likelihood"))
def diagonal(params: Params, data: Data, *, network: nn.Module, likelihood: str) -> Params:
    """Return the diagonal of H for every parameter, of any network, as a tree of its shape."""
    apply_fn = get_apply_fn(network)

    def one_example(x: jax.Array) -> Params:
        outputs, vjp = jax.vjp(lambda weights: apply_fn(weights, x[None]), params)
        columns = ROOTS[likelihood](outputs)[0].T

        def square(column: jax.Array) -> Params:
            return jax.tree.map(jnp.square, vjp(column)[0])

        # A column at a time: memory does not grow with the number of outputs.
        return blocks.sum_blocks(lambda rows: square(rows), columns, 1)

    def one_block(x: jax.Array) -> Params:
        return jax.tree.map(lambda h: h.sum(axis=0), jax.vmap(one_example)(x))

    each = 8 * sum(leaf.size for leaf in jax.tree.leaves(params))
    each += 2 * blocks.bytes_per_input(apply_fn, params, data.x)
    with jax.default_matmul_precision("highest"):
        found: Params = blocks.sum_blocks(
            one_block, data.x, blocks.choose_block(each, data.x.shape[0])
        )
    return found


@functools.partial(jax.jit, static_argnames=("network", "layers", "likelihood"))
def kronecker(
    params: Params, data: Data, *, network: nn.Module, layers: Sequence[Layer], likelihood: str
) -> dict[str, Factors]:
    """Return the factors of the layers' blocks of H, by name of layer.

    Of a dense layer the block is ``inputs (x) outputs / N`` in expectation (Ritter et al. 2018),
    of a convolution that over its number of places too (KFC, Grosse, Martens 2016).
    """

    def one_block(x: jax.Array) -> dict[str, Factors]:
        inputs, outputs = pull_back(params, x, network, layers, likelihood)
        return {
            name: Factors(
                jnp.einsum("btd,bte->de", a, a), jnp.einsum("cbtf,cbtg->fg", *2 * (outputs[name],))
            )
            for name, a in inputs.items()
        }

    found: dict[str, Factors] = _sum(one_block, params, data, network, 0)
    return found


@functools.partial(jax.jit, static_argnames=("network", "layers", "likelihood"))
def input_sides(
    params: Params, data: Data, *, network: nn.Module, layers: Sequence[Layer], likelihood: str
) -> dict[str, jax.Array]:
    """Return the mean over a layer's outputs f of the blocks ``H_ff``, [D, D], by name of layer.

    Of a convolution without the products of gradients at different places (as in KFC).
    """

    def one_block(x: jax.Array) -> dict[str, jax.Array]:
        inputs, outputs = pull_back(params, x, network, layers, likelihood)
        found = {}
        for name, a in inputs.items():
            weights = jnp.square(outputs[name]).mean(axis=-1).sum(axis=0)
            rows = (a * weights[..., None]).reshape(-1, a.shape[-1])
            found[name] = rows.T @ a.reshape(-1, a.shape[-1])
        return found

    found: dict[str, jax.Array] = _sum(one_block, params, data, network, 0)
    return found


@functools.partial(jax.jit, static_argnames=("network", "layer", "likelihood"))
def full(
    params: Params, data: Data, *, network: nn.Module, layer: Layer, likelihood: str
) -> jax.Array:
    """Return the block of H of one dense layer, [D F, D F]; a kernel's rows come one by one."""

    def one_block(x: jax.Array) -> jax.Array:
        inputs, outputs = pull_back(params, x, network, (layer,), likelihood)
        a, g = inputs[layer.name][:, 0], outputs[layer.name][:, :, 0]
        products = jnp.einsum("be,cbf,cbg->befg", a, g, g)
        found = a.T @ products.reshape(len(a), -1)
        return found.reshape(a.shape[1], a.shape[1], g.shape[-1], g.shape[-1])

    width, num_outputs = layer.inputs[-1] + layer.has_bias, layer.outputs[-1]
    found: jax.Array = _sum(one_block, params, data, network, 4 * width * num_outputs**2)
    return found.swapaxes(1, 2).reshape(width * num_outputs, width * num_outputs)


def pull_back(
    params: Params, x: jax.Array, network: nn.Module, layers: Sequence[Layer], likelihood: str
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Return what the layers' gradients are made of.

    Args:
      params: The weights.
      x: Inputs, [B, ...].
      network: The network.
      layers: Dense layers, and ``Convolve``.
      likelihood: A name in ``ROOTS``.

    Returns:
      By name of layer: inputs a, [B, places, D], with a last 1 where there is a bias; the columns
      of L pulled back to the outputs, g, [C, B, places, F].
    """
    chosen: Mapping[str, Layer] = {layer.name: layer for layer in layers}

    def run(added: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        seen: dict[str, jax.Array] = {}

        def visit(name: str, inputs: jax.Array, call: Any) -> jax.Array:
            outputs: jax.Array = call(inputs)
            if name not in chosen:
                return outputs
            layer = chosen[name]
            rows = inputs
            if layer.kernel_size:
                rows = take_patches(inputs, layer.kernel_size, layer.stride)
            rows = rows.reshape(len(x), -1, rows.shape[-1])
            one = jnp.ones((*rows.shape[:2], 1), rows.dtype)
            seen[name] = jnp.concatenate([rows, one], axis=-1) if layer.has_bias else rows
            return outputs + added[name]

        return visit_layers(visit, network, params, x), seen

    zeros = {name: jnp.zeros((len(x), *layer.outputs)) for name, layer in chosen.items()}
    outputs, vjp, seen = jax.vjp(run, zeros, has_aux=True)
    columns = jnp.moveaxis(ROOTS[likelihood](outputs), -1, 0)
    (pulled,) = jax.vmap(vjp)(columns)
    return seen, {
        name: g.reshape(len(columns), len(x), -1, g.shape[-1]) for name, g in pulled.items()
    }


def _sum(
    fn: Callable[[jax.Array], Any], params: Params, data: Data, network: nn.Module, extra: int
) -> Any:
    """Add up ``fn`` over blocks of inputs; ``extra`` are bytes of an input beside the network's."""
    apply_fn = get_apply_fn(network)
    two = jax.ShapeDtypeStruct((2, *data.x.shape[1:]), data.x.dtype)
    num_outputs = math.prod(jax.eval_shape(apply_fn, params, two).shape[1:])
    each = (1 + num_outputs) * blocks.bytes_per_input(apply_fn, params, data.x) + extra
    with jax.default_matmul_precision("highest"):
        return blocks.sum_blocks(fn, data.x, blocks.choose_block(each, data.x.shape[0]))
