"""Train networks to convergence and watch loss and gradients on the way.

Supplement section 9 of Carbone et al. (2020): in the limit of many hidden units and novel examples
in every minibatch, stochastic gradient descent reaches zero loss. Here the three limits are
approached one at a time: width, number of examples, number of steps.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from bnn_adv.inference.densities import Data
from bnn_adv.networks import Params, get_apply_fn, init_params
from bnn_adv.theory.parts import LOSSES, input_gradient, split_gradient


class Probe(NamedTuple):
    """P points at which gradients are watched.

    x: [P, d].
    y: int32 [P].
    tangent: [P, d, k], see ``split_gradient``.
    normal: [P, d, d - k].
    """

    x: jax.Array
    y: jax.Array
    tangent: jax.Array
    normal: jax.Array


class Recipe(NamedTuple):
    """What is trained, and on what loss: a program of its own each.

    network: The network.
    loss: A name in ``LOSSES``.
    minibatch_size: Examples a step.
    """

    network: nn.Module
    loss: str = "cross_entropy"
    minibatch_size: int = 128


class Trace(NamedTuple):
    """What was seen at T steps in R trainings.

    train_loss: Mean loss on all training examples in use, [R, T].
    test_loss: Mean loss on the held-out examples, [R, T].
    test_error: Share of held-out examples that are misclassified, [R, T].
    loss_tangent: Norm of the tangent part of the loss gradient at each probe, [R, T, P].
    loss_normal: Norm of its normal part, [R, T, P].
    score_tangent: Norm of the tangent part of the gradient of the score, [R, T, P].
    score_normal: Norm of its normal part, [R, T, P].
    """

    train_loss: jax.Array
    test_loss: jax.Array
    test_error: jax.Array
    loss_tangent: jax.Array
    loss_normal: jax.Array
    score_tangent: jax.Array
    score_normal: jax.Array


def train(
    rng_keys: jax.Array,
    data: Data,
    num_data: jax.Array | int,
    test: Data,
    probe: Probe,
    steps: jax.Array,
    learning_rate: jax.Array | float,
    recipe: Recipe,
) -> tuple[Params, Trace]:
    """Train one network a key with Adam, whose rate falls to zero along a cosine.

    Minibatches run through the examples in their order, which is taken to be random, from a place
    that the key chooses: in the first pass every one holds novel examples, as section 9 asks.

    Args:
      rng_keys: Typed keys, [R]: initialisation and first example of each training.
      data: Training examples, x [N, d] and y [N].
      num_data: How many of the first ones are in use, 1..N; data, so that one program serves all.
      test: Held-out examples.
      probe: Points at which gradients are watched.
      steps: Gradient steps after which to look, int32 [T], rising; the last ends the training.
      learning_rate: Adam's first step size.
      recipe: Network, loss and size of the minibatches.

    Returns:
      Trained parameters, stacked on a leading axis of R; the trace.
    """
    # Apart from the training, so that initialising compiles once a network and not once a loss.
    params = _init(rng_keys, recipe.network, data.x.shape[1:])
    found: tuple[Params, Trace] = _train(
        rng_keys,
        params,
        data,
        num_data,
        test,
        probe,
        steps,
        learning_rate,
        **recipe._asdict(),
    )
    return found


@functools.partial(jax.jit, static_argnames=("network", "input_shape"))
def _init(rng_keys: jax.Array, network: nn.Module, input_shape: tuple[int, ...]) -> Params:
    return jax.vmap(lambda key: init_params(jax.random.fold_in(key, 0), network, input_shape))(
        rng_keys
    )


@functools.partial(jax.jit, static_argnames=("network", "loss", "minibatch_size"))
def _train(
    rng_keys: jax.Array,
    initial: Params,
    data: Data,
    num_data: jax.Array | int,
    test: Data,
    probe: Probe,
    steps: jax.Array,
    learning_rate: jax.Array | float,
    *,
    network: nn.Module,
    loss: str,
    minibatch_size: int,
) -> tuple[Params, Trace]:
    apply_fn, (loss_fn, score_fn) = get_apply_fn(network), LOSSES[loss]
    optimiser = optax.scale_by_adam()

    def one_step(index: jax.Array, carry: Any, first: jax.Array) -> Any:
        params, state = carry
        rows = (first + index * minibatch_size + jnp.arange(minibatch_size)) % num_data
        x, y = data.x[rows], data.y[rows]
        gradient = jax.grad(lambda p: loss_fn(apply_fn(p, x), y).mean())(params)
        updates, state = optimiser.update(gradient, state)
        rate = 0.5 * learning_rate * (1 + jnp.cos(jnp.pi * index / steps[-1]))
        return jax.tree.map(lambda p, u: p - rate * u, params, updates), state

    def look(params: Params) -> Trace:
        in_use = jnp.arange(len(data.y)) < num_data
        losses = jnp.where(in_use, loss_fn(apply_fn(params, data.x), data.y), 0.0)
        outputs = apply_fn(params, test.x)
        wrong = jnp.argmax(outputs, axis=-1) != test.y
        norms: list[jax.Array] = []
        for scalar in (loss_fn, score_fn):
            gradient = input_gradient(scalar, apply_fn, params, probe.x, probe.y)
            parts = split_gradient(gradient, probe.tangent, probe.normal)
            norms += [parts.tangent_norm, parts.normal_norm]
        return Trace(losses.sum() / num_data, loss_fn(outputs, test.y).mean(), wrong.mean(), *norms)

    def one_training(key: jax.Array, params: Params) -> tuple[Params, Trace]:
        first = jax.random.randint(jax.random.fold_in(key, 1), (), 0, num_data, jnp.int32)

        def advance(carry: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[Any, Trace]:
            carry = jax.lax.fori_loop(*ends, lambda i, c: one_step(i, c, first), carry)
            return carry, look(carry[0])

        starts = jnp.concatenate([jnp.zeros(1, steps.dtype), steps[:-1]])
        (params, _), trace = jax.lax.scan(
            advance, (params, optimiser.init(params)), (starts, steps)
        )
        return params, trace

    return jax.vmap(one_training)(rng_keys, initial)


@functools.partial(jax.jit, static_argnames=("network", "loss", "num_steps"))
def largest_fall(
    params: Params,
    x: jax.Array,
    y: jax.Array,
    radius: jax.Array | float,
    *,
    network: nn.Module,
    loss: str = "cross_entropy",
    num_steps: int = 40,
) -> tuple[jax.Array, jax.Array]:
    """Return how far the score falls in a ball around each point, under gradient descent on it.

    Steps along the normalised gradient of the score, ``2.5 radius / num_steps`` long, projected
    on the ball. They follow the score, which saturates less than the loss, and start at the point.

    Args:
      params: R networks, stacked on a leading axis.
      x: Points, [P, d].
      y: Labels, int32 [P].
      radius: Euclidean radius of the ball, positive.
      network: The network.
      loss: A name in ``LOSSES``; its score is attacked.
      num_steps: Steps.

    Returns:
      The largest fall, [R, P]; whether any step changed the predicted class, [R, P].
    """
    apply_fn, score_fn = get_apply_fn(network), LOSSES[loss][1]

    def one_network(one: Params) -> tuple[jax.Array, jax.Array]:
        clean = apply_fn(one, x)
        score, prediction = score_fn(clean, y), jnp.argmax(clean, axis=-1)

        def step(_: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            moved, fall, broken = carry
            gradient = input_gradient(score_fn, apply_fn, one, x + moved, y)
            moved = moved - 2.5 * radius / num_steps * _unit(gradient)
            moved = _unit(moved) * jnp.minimum(_norm(moved), radius)
            outputs = apply_fn(one, x + moved)
            fall = jnp.maximum(fall, score - score_fn(outputs, y))
            return moved, fall, broken | (jnp.argmax(outputs, axis=-1) != prediction)

        start = jnp.zeros_like(x), jnp.zeros_like(score), jnp.zeros(prediction.shape, bool)
        found: tuple[jax.Array, jax.Array] = jax.lax.fori_loop(0, num_steps, step, start)[1:]
        return found

    found: tuple[jax.Array, jax.Array] = jax.lax.map(one_network, params)
    return found


def _norm(vectors: jax.Array) -> jax.Array:
    found: jax.Array = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return found


def _unit(vectors: jax.Array) -> jax.Array:
    return vectors / jnp.maximum(_norm(vectors), 1e-30)
