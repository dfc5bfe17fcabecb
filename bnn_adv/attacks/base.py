"""What an attack is: a loss to climb, a place to stand, and two pure functions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bnn_adv.attacks.threat import Threat
from bnn_adv.compute.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True)
class Settings:
    """How something is computed; none of it changes what is computed.

    Args:
      batch_size: Images at once.
      sample_chunk: Draws at once, 1..S; None chooses from the size of the network.
      mesh: Devices to split the images over (its axis ``data``); ``shard_posterior`` splits the
        draws.
      checkpoints: Where to save progress and to continue from it.
    """

    batch_size: int = 128
    sample_chunk: int | None = None
    mesh: Mesh | None = None
    checkpoints: Checkpoints | None = None

    @classmethod
    def extend(cls, settings: Settings, **more: Any) -> Self:
        """Return a record of this class with the fields of another one that it shares, and more.

        Raises:
          TypeError: ``settings`` is no record of settings.
        """
        if not isinstance(settings, Settings):
            raise TypeError(
                f"settings must be {cls.__name__}(batch_size=..., ...), got "
                f"{type(settings).__name__}."
            )
        names = {field.name for field in dataclasses.fields(cls)}
        shared = {
            field.name: getattr(settings, field.name)
            for field in dataclasses.fields(settings)
            if field.name in names
        }
        return cls(**{**shared, **more})


class Loss(NamedTuple):
    """What an attack sees of the posterior at a batch of inputs.

    value: What the attacker maximises, [B].
    gradient: The direction to follow, [B, ...].
    success: Whether the posterior predictive is of another class, [B], see ``decision.is_fooled``.
    log_probs: Log of the posterior predictive, [B, C]; None where nobody ranks classes.
    """

    value: jax.Array
    gradient: jax.Array
    success: jax.Array
    log_probs: jax.Array | None = None


class LossFn(Protocol):
    """How an attack asks for the loss at its inputs."""

    def __call__(self, x: jax.Array, target: jax.Array | None = None) -> Loss:
        """Return the loss at ``x``, [B, ...], aiming at classes ``target``, [B], if given."""


class Best(NamedTuple):
    """The best inputs that an attack has visited.

    x: The inputs, [B, ...].
    success: Whether they are known to fool, [B].
    value: The objective there, [B].
    """

    x: jax.Array
    success: jax.Array
    value: jax.Array


def keep_better(best: Best, x: jax.Array, loss: Loss) -> Best:
    """Return the better of two inputs, for each of B.

    One that fools beats one that does not; then the larger objective decides.
    """
    same = loss.success == best.success
    better = (loss.success & ~best.success) | (same & (loss.value > best.value))
    return Best(
        select(better, x, best.x),
        jnp.where(better, loss.success, best.success),
        jnp.where(better, loss.value, best.value),
    )


def select(mask: jax.Array, x: jax.Array, otherwise: jax.Array) -> jax.Array:
    """Choose inputs by a mask, [B]: ``x`` where it holds, both [B, ...]."""
    return jnp.where(mask.reshape(-1, *(1,) * (x.ndim - 1)), x, otherwise)


def check_steps(num_steps: int, step_size: float | None = None) -> None:
    """Raise unless there is a step, of positive length where one is given.

    Raises:
      ValueError: The message names the setting and its value.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    if step_size is not None and not step_size > 0:
        raise ValueError(f"step_size must be positive, got {step_size}.")


@dataclasses.dataclass(frozen=True)
class Attack:
    """Bundle an attack's functions with its settings; equal settings give equal, hashable values.

    Args:
      name: Key in ``ATTACKS``.
      config: The attack's own frozen settings.
      init: ``(rng_keys [B], loss_fn, x [B, ...], threat, config) -> state``. A state has
        ``x_adv``, the adversarial inputs so far, [B, ...], and ``success``, those known to fool,
        [B]. Its leaves with axes have one entry an input on the leading one; what all inputs share
        is a scalar.
      step: ``(rng_keys [B], state, loss_fn, x, threat, config) -> state``.
      num_steps: Steps in all.
      stop_on_success: End a batch once all its inputs are fooled.
      norms: Norms for which it is defined; None: all.
      uses_gradient: False for black boxes, which see values (and predictions) only.
      minimises_norm: It looks for the nearest input that fools, not for the largest objective.
      aims: It aims at one class after the other: values along its way cannot be compared.
      as_data: Numbers among its settings that compiled programs take as data: one program serves
        all their values.
    """

    name: str
    config: Any
    init: Callable[[jax.Array, LossFn, jax.Array, Threat, Any], Any]
    step: Callable[[jax.Array, Any, LossFn, jax.Array, Threat, Any], Any]
    num_steps: int
    stop_on_success: bool = False
    norms: tuple[str, ...] | None = None
    uses_gradient: bool = True
    minimises_norm: bool = False
    aims: bool = False
    as_data: tuple[str, ...] = ()


@functools.cache
def by_value(attack: Attack) -> Attack:
    """Return an attack that keeps the input of the largest objective, whether or not it fools.

    For objectives that are not about the label. No input counts as fooling, so that the attack does
    not stop early either. Equal attacks give equal results.

    Args:
      attack: Any that compares objectives.
    """
    name, init, step = f"{attack.name}_by_value", _unaware(attack.init, 1), _unaware(attack.step, 2)
    return dataclasses.replace(attack, name=name, init=init, step=step, stop_on_success=False)


@functools.cache
def _unaware(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Return one of an attack's functions whose loss function, its argument ``place``, is blind."""

    def call(*arguments: Any) -> Any:
        loss_fn = arguments[place]

        def blind(x: jax.Array, target: jax.Array | None = None) -> Loss:
            loss: Loss = loss_fn(x, target)
            return loss._replace(success=jnp.zeros_like(loss.success))

        return function(*arguments[:place], blind, *arguments[place + 1 :])

    return call
