r"""Likelihoods of the worst case in a ball around every example, for any method that has one.

``form="mixture"`` (Wicker et al. 2021, AISTATS):

    log( lambda p_y(x) + (1 - lambda) p_y^worst(x) ),    p_y^worst(x) = min_{x' in ball} p_y(x').

``worst`` says what stands for the minimum:

- ``interval``, ``crown_ibp``: a lower bound of it, see ``bounds.intervals``. It is a function of
  the weights alone: with a prior a density that HMC, NUTS and MCLMC may sample. That is no
  posterior by Bayes' rule, as the ball's worst case is no probability of the data, but a
  generalised one (Bissiri, Holmes, Walker 2016, arXiv 1306.6430), its loss minus this function.
- ``fgsm``, ``pgd``: the value at an input that this attack finds from a random start on the weights
  as they are now (adversarial training: Madry et al. 2018, arXiv 1706.06083; of a Bayesian network
  Adv-BNN, Liu et al. 2019, arXiv 1810.01279). It depends on the starts' key, and no gradient goes
  through the way to that input.

``form="trades"`` (Zhang et al. 2019, arXiv 1901.08573, eq. 5) is the clean example's log likelihood
less beta times a divergence, whose largest value an attack looks for:

    log p_y(x) - beta KL( p(x) || p(x') ).

While a method optimises, the radius may grow from zero (``warmup``): linearly, or as the fourth
power first (``smooth``: Xu et al. 2020, arXiv 2002.12920; Shi et al. 2021, arXiv 2103.17268).
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from bnn_adv.compute.settings import SettingError, Settings, setting
from bnn_adv.networks import Params, init_params

BOUNDS = ("interval", "crown_ibp")
"""Worst cases that depend on the weights alone."""

_STARTS, _WEIGHTS = zlib.crc32(b"random starts"), zlib.crc32(b"interval initialisation")
"""Folded into a step's key, and into that of the initialisation."""

_BEND = 0.25
"""Share of the warm-up in which ``smooth`` is a power."""

_POWER = 4


@dataclasses.dataclass(frozen=True)
class Robust(Settings):
    """Which worst case a likelihood counts, see ``bnn_adv.inference.robust``.

    Args:
      worst: "none": the plain likelihood; "interval" or "crown_ibp": a bound of the worst case in
        the ball, a function of the weights alone, of which chains sample a generalised posterior;
        "fgsm" or "pgd": what this attack finds from a random start on the current weights, for
        methods that see minibatches.
      weight: Weight lambda of the clean example, of the mixture; 1 is the plain likelihood.
      epsilon: Radius of the ball.
      norm: Its norm; bounds know linf.
      lower: Smallest valid input value.
      upper: Largest valid input value.
      num_steps: Steps of pgd.
      step_size: Length of pgd's steps as a share of the radius; None takes 2.5 / num_steps.
      form: "mixture" of clean and worst likelihood, or "trades": the clean one less a divergence
        that an attack makes large.
      beta: Weight of that divergence.
      warmup: Share of the epochs in which the radius grows from zero, of methods that optimise.
      schedule: How it grows: "linear", or "smooth": as a fourth power first.
      init: Weights that training starts at, of methods that optimise and of the networks at which
        chains may start: the "network"'s own, or "ibp": so small that intervals keep their width
        from layer to layer.
    """

    worst: Literal["none", "interval", "crown_ibp", "fgsm", "pgd"] = "none"
    weight: float = setting(0.5, least=0, most=1)
    epsilon: float = setting(0.1, least=0)
    norm: Literal["linf", "l2", "l1"] = "linf"
    lower: float = setting(0.0)
    upper: float = setting(1.0)
    num_steps: int = setting(7, least=1)
    step_size: float | None = setting(None, above=0)
    form: Literal["mixture", "trades"] = "mixture"
    beta: float = setting(6.0, least=0)
    warmup: float = setting(0.0, least=0, most=1)
    schedule: Literal["linear", "smooth"] = "linear"
    init: Literal["network", "ibp"] = "network"

    switch: ClassVar[str] = "worst"
    """The field without which, on a command line, the others change nothing."""

    def __post_init__(self) -> None:
        """Check every field, and that the worst case knows norm and form."""
        super().__post_init__()
        if not self.lower < self.upper:
            raise SettingError("lower", f"must be below upper ({self.upper}), got {self.lower}.")
        if self.worst in BOUNDS and self.norm != "linf":
            problem = f"must be linf where worst is {self.worst}, got {self.norm!r}: give an attack"
            raise SettingError("norm", f"{problem} (fgsm, pgd), which knows any norm.")
        if self.worst in BOUNDS and self.form == "trades":
            problem = f"trades needs an attack (fgsm, pgd), and worst is {self.worst}: of the"
            raise SettingError("form", f"{problem} divergence no bound is known.")

    @property
    def is_off(self) -> bool:
        """Whether it is the plain likelihood, of which records and identities say nothing."""
        is_plain = self.beta == 0 if self.form == "trades" else self.weight == 1
        return self.worst == "none" or is_plain

    @property
    def attacks(self) -> bool:
        """Whether an attack with random starts looks for the worst case."""
        return not self.is_off and self.worst not in BOUNDS


OFF = Robust()
"""The plain likelihood."""


class Step(NamedTuple):
    """What a minibatch has from the training's step.

    rng_key: Key of the random starts.
    share: Share of the radius that the warm-up has reached, in [0, 1].
    """

    rng_key: jax.Array
    share: jax.Array | float


def get_robust(config: Any) -> Robust:
    """Return the settings of a method's ``Config``; off where it has none."""
    found: Robust = getattr(config, "robust", OFF)
    return found


def make_step(
    config: Any, rng_key: jax.Array, done: jax.Array | int = 1, total: int = 1
) -> Step | None:
    """Return what a robust likelihood takes from a step; None where it is off.

    Args:
      config: A method's settings.
      rng_key: The step's key, from which one for the random starts is derived.
      done: Minibatches that were trained on before.
      total: Minibatches over which ``warmup`` is a share; ``done = total`` is after it.
    """
    robust = get_robust(config)
    if robust.is_off:
        return None
    return Step(jax.random.fold_in(rng_key, _STARTS), share_of_radius(robust, done, total))


def share_of_radius(robust: Robust, done: jax.Array | int, total: int) -> jax.Array | float:
    r"""Return the share of the radius after ``done`` of ``total`` minibatches, in [0, 1].

    With u the share of the warm-up that is done, ``linear`` is u; ``smooth`` is ``a u^4`` up to
    u = 1/4 and the tangent there from then on, with a such that it ends at 1.
    """
    if not robust.warmup or not total:
        return 1.0
    u = jnp.clip(jnp.asarray(done, jnp.float32) / (robust.warmup * total), 0.0, 1.0)
    if robust.schedule == "linear":
        return u
    slope = _POWER * _BEND ** (_POWER - 1)
    scale = 1 / (_BEND**_POWER + slope * (1 - _BEND))
    tangent = _BEND**_POWER + slope * (u - _BEND)
    return jnp.minimum(scale * jnp.where(u < _BEND, u**_POWER, tangent), 1.0)


def start_params(
    rng_key: jax.Array, network: nn.Module, input_shape: tuple[int, ...], config: Any
) -> Params:
    r"""Return the weights that training starts at.

    ``init="ibp"`` draws all kernels but the last anew from N(0, 2 pi / n^2), with n their inputs
    (Shi et al. 2021, arXiv 2103.17268): the mean absolute weight is then 2 / n, so that a layer
    behind relu, half of whose units are on, keeps the mean width of intervals.

    Args:
      rng_key: Typed key.
      network: The network.
      input_shape: Shape of one input.
      config: A method's settings.
    """
    params, robust = init_params(rng_key, network, input_shape), get_robust(config)
    if robust.is_off or robust.init == "network":
        return params
    flat = dict(flatten_dict(params))
    kernels = [name for name, leaf in flat.items() if leaf.ndim > 1]
    for number, name in enumerate(kernels[:-1]):
        leaf = flat[name]
        key = jax.random.fold_in(jax.random.fold_in(rng_key, _WEIGHTS), number)
        scale = math.sqrt(2 * math.pi) / (leaf.size // leaf.shape[-1])
        flat[name] = scale * jax.random.normal(key, leaf.shape, leaf.dtype)
    return unflatten_dict(flat)
