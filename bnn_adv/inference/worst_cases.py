"""The robust likelihood of examples: by bounds of their worst case, or by attacks, see ``robust``.

Nothing here adds up over examples: ``densities`` does, in blocks, so that memory does not grow.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks import ATTACKS, Loss
from bnn_adv.attacks.threat import THREATS, per_input, radius_of
from bnn_adv.bounds.intervals import Box, bound_differences
from bnn_adv.compute.singular import finite_gradient
from bnn_adv.inference.robust import Robust, Step
from bnn_adv.networks import ApplyFn, Params


class Examples(NamedTuple):
    """What a robust likelihood is of; every leaf has one entry an example.

    x: Inputs, float32 [B, *D].
    y: Labels, int32 [B].
    epsilon: Radius, float32 [B].
    keys: Keys of the random starts, [B]; None where nothing is random.
    """

    x: jax.Array
    y: jax.Array
    epsilon: jax.Array
    keys: jax.Array | None


def open_examples(x: jax.Array, y: jax.Array, step: Step | None, robust: Robust) -> Examples:
    """Return examples with a radius and a key each.

    Args:
      x: Inputs.
      y: Labels.
      step: Of the training; None: the radius is the whole one, and nothing may be random.
      robust: What is counted.

    Raises:
      ValueError: An attack needs keys, and there is no step.
    """
    share = 1.0 if step is None else step.share
    epsilon = jnp.full(x.shape[:1], robust.epsilon, x.dtype) * jnp.asarray(share, x.dtype)
    if not robust.attacks:
        return Examples(x, y, epsilon, None)
    if step is None:
        raise ValueError(
            f"robust.worst={robust.worst} starts at random, and this density has no key for that: "
            "give its data a step (robust.make_step), or take worst=interval or crown_ibp."
        )
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    return Examples(x, y, epsilon, fold(step.rng_key, jnp.arange(x.shape[0])))


def robust_log_likelihood(
    params: Params, examples: Examples, apply_fn: ApplyFn, robust: Robust
) -> jax.Array:
    """Return the robust log likelihood of every example, in nats, [B]; see ``robust``.

    Args:
      params: One draw.
      examples: B examples.
      apply_fn: The network's function.
      robust: What is counted; not off.
    """
    x, y = examples.x, examples.y
    clean = jax.nn.log_softmax(apply_fn(params, x))
    if robust.form == "trades":
        fixed = jax.lax.stop_gradient(clean)
        found = attack(params, examples, apply_fn, robust, lambda moved: _divergence(fixed, moved))
        there = jax.nn.log_softmax(apply_fn(params, found))
        return _pick(clean, y) - robust.beta * _divergence(clean, there)
    if robust.attacks:
        found = attack(params, examples, apply_fn, robust, lambda moved: -_pick(moved, y))
        worst = _pick(jax.nn.log_softmax(apply_fn(params, found)), y)
    else:
        box = Box(examples.epsilon, robust.lower, robust.upper)
        method: Any = robust.worst
        differences = bound_differences(apply_fn, params, x, y, box, method=method)
        worst = -jax.nn.logsumexp(differences, axis=-1)
    if robust.weight == 0:
        return worst
    return jnp.logaddexp(
        math.log(robust.weight) + _pick(clean, y), math.log1p(-robust.weight) + worst
    )


def attack(
    params: Params, examples: Examples, apply_fn: ApplyFn, robust: Robust, loss: Any
) -> jax.Array:
    """Return where an attack from random starts ends, on these weights, [B, *D].

    Args:
      params: One draw; no gradient goes through the attack.
      examples: B examples.
      apply_fn: The network's function.
      robust: The attack's name, norm and steps.
      loss: Maps log probabilities, [B, C], to what the attack makes large, [B].
    """
    weights, (x, y, epsilon, keys) = jax.lax.stop_gradient(params), examples
    assert keys is not None
    threat = THREATS[robust.norm](epsilon, robust.lower, robust.upper)
    method, config = _configure(robust, threat, x)

    def loss_fn(moved: jax.Array, target: jax.Array | None = None) -> Loss:
        def values(inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            log_probs = jax.nn.log_softmax(apply_fn(weights, inputs))
            each = loss(log_probs)
            return each.sum(), (each, log_probs)

        gradient, (each, log_probs) = jax.grad(values, has_aux=True)(moved)
        return Loss(each, finite_gradient(gradient), log_probs.argmax(axis=-1) != y, log_probs)

    def start(key: jax.Array, row: jax.Array, own: Any) -> jax.Array:
        found: jax.Array = own.random_start(key, row[None])[0]
        return found

    each = per_input(threat, x.shape[0], x.dtype)
    starts = jax.vmap(start)(keys, x, each)
    state = method.init(keys, loss_fn, starts, threat, config)
    state = jax.lax.fori_loop(
        0,
        method.num_steps,
        lambda _, now: method.step(keys, now, loss_fn, x, threat, config),
        state,
    )
    found: jax.Array = jax.lax.stop_gradient(state.x_adv)
    return found


def _configure(robust: Robust, threat: Any, x: jax.Array) -> tuple[Any, Any]:
    """Return an attack, and its settings with a step in units of the radius as it is now."""
    if robust.worst != "pgd":
        method = ATTACKS[robust.worst].build()
        return method, method.config
    # The last iterate: the best one would cost another look at all of them.
    method = ATTACKS["pgd"].build(num_steps=robust.num_steps, random_start=False, keep="last")
    share = 2.5 / robust.num_steps if robust.step_size is None else robust.step_size
    step_size: Any = share * radius_of(threat, x)
    return method, method.config.__class__(robust.num_steps, step_size, False, "last")


def _divergence(log_probs: jax.Array, others: jax.Array) -> jax.Array:
    """Return ``KL(p || q)`` of log probabilities [B, C], in nats, [B]."""
    return (jnp.exp(log_probs) * (log_probs - others)).sum(axis=-1)


def _pick(log_probs: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.take_along_axis(log_probs, y[:, None], axis=-1)[:, 0]


def as_apply_fn(each: Any, examples: Examples) -> ApplyFn:
    """Return a function of weights and inputs alone, whose intermediate values can be counted.

    Args:
      each: ``(params, examples) -> [B]``.
      examples: Of these the dtypes and one key matter.
    """
    key = None if examples.keys is None else examples.keys[:1]

    def apply_fn(params: Params, x: jax.Array) -> jax.Array:
        count = x.shape[0]
        keys = None if key is None else jnp.broadcast_to(key, (count,))
        blank = Examples(x, jnp.zeros(count, jnp.int32), jnp.zeros(count, x.dtype), keys)
        found: jax.Array = each(params, blank)
        return found

    return apply_fn
