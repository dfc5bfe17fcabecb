r"""Fast gradient sign method.

Goodfellow, Shlens, Szegedy 2015, arXiv 1412.6572, section 4. Over a posterior (Carbone et al.
2020, eq. 3), with the gradient of the expected loss:

    x_adv = clip_[0,1]( x + epsilon sign( E_w[ grad_x L(x, w) ] ) )

For other norms, the point of ball and box where the linearised loss is largest.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks.base import Attack, LossFn
from bnn_adv.attacks.threat import Threat
from bnn_adv.compute.types import Images, RngKeys


@dataclasses.dataclass(frozen=True)
class Config:
    """FGSM has no settings."""


class State(NamedTuple):
    """The attack's state.

    x_adv: Adversarial inputs, [B, ...].
    success: Inputs known to be fooled, [B]; only the clean inputs are looked at.
    gradient: Gradient at the clean inputs, [B, ...].
    """

    x_adv: jax.Array
    success: jax.Array
    gradient: jax.Array


def init(rng_keys: RngKeys, loss_fn: LossFn, x: Images, threat: Threat, config: Config) -> State:
    """Evaluate the gradient at the clean inputs."""
    loss = loss_fn(x)
    return State(x, loss.success, loss.gradient)


def step(
    rng_keys: RngKeys,
    state: State,
    loss_fn: LossFn,
    x: Images,
    threat: Threat,
    config: Config,
) -> State:
    """Move to the maximum of the linearised loss; an exactly zero gradient does not move."""
    x_adv = threat.maximise_linear(state.gradient, x)
    return State(x_adv, jnp.zeros_like(state.success), state.gradient)


def build() -> Attack:
    """Return the attack."""
    return Attack("fgsm", Config(), init, step, num_steps=1)
