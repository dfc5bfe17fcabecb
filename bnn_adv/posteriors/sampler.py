"""Distributions over networks that can be drawn from again and again: "fresh" predictors.

A ``Posterior`` holds draws, a ``Sampler`` makes them. A predictor that draws new parameters at
every prediction (variational inference, dropout, randomised defences) is one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax.tree_util import Partial

from bnn_adv.compute import arguments
from bnn_adv.compute.types import RngKey, RngKeys
from bnn_adv.networks import ApplyFn, Params
from bnn_adv.posteriors.decision import DecisionRule, check_rule
from bnn_adv.posteriors.posterior import Posterior


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["draw"],
    meta_fields=["apply_fn", "precision", "decision_rule"],
)
@dataclasses.dataclass(frozen=True, repr=False)
class Sampler:
    """Draw networks; a pytree, and callable as ``sampler(rng_key, num_samples)``, see ``sample``.

    Dropout that stays on at predictions (Gal, Ghahramani 2016, arXiv 1506.02142) is a draw of the
    key from which a network makes its masks, beside weights that all draws share:

        def draw(params, rng_key):
            return {"params": params, "key": rng_key}

        def apply_fn(draw, x):
            rngs = {"dropout": draw["key"]}
            return network.apply({"params": draw["params"]}, x, train=True, rngs=rngs)

        sampler = Sampler(apply_fn, jax.tree_util.Partial(draw, params))

    Args:
      apply_fn: Pure function ``(params, x) -> logits``, shapes ``[B, ...] -> [B, classes]``.
      draw: Pure function ``rng_key -> params``, one draw. What a ``jax.tree_util.Partial`` binds is
        data: an argument of compiled programs, which then serve other values too. What any other
        function closes over is a constant of the programs.
      precision: See ``Posterior``.
      decision_rule: See ``Posterior``.

    Raises:
      ValueError: An unknown decision rule.
    """

    apply_fn: ApplyFn
    draw: Callable[[jax.Array], Params]
    precision: str = "highest"
    decision_rule: DecisionRule = "mean_probabilities"

    def __post_init__(self) -> None:
        check_rule(self.decision_rule)
        # JAX rebuilds samplers around placeholders that are no functions.
        if callable(self.draw) and not isinstance(self.draw, Partial):
            object.__setattr__(self, "draw", Partial(self.draw))

    def __repr__(self) -> str:
        """Return in one line what it is, without the numbers that it binds."""
        draw = self.draw.func if isinstance(self.draw, Partial) else self.draw
        name = getattr(draw, "__name__", type(draw).__name__)
        return f"Sampler({name}, {self.decision_rule})"

    def sample(self, rng_key: RngKey, num_samples: int) -> Posterior:
        """Return a posterior of new draws; pure, so that it works inside ``jit``.

        Args:
          rng_key: Typed key; the draws use ``split(rng_key, num_samples)``.
          num_samples: Draws, S, at least 1.

        Raises:
          ValueError: ``num_samples`` is below one.
        """
        check_num_samples("num_samples", num_samples)
        return self.sample_each(jax.random.split(rng_key, num_samples))

    def sample_each(self, rng_keys: RngKeys) -> Posterior:
        """Return a posterior of one draw a key, [S]."""
        draws = jax.vmap(self.draw)(rng_keys)
        return Posterior(
            self.apply_fn, draws, precision=self.precision, decision_rule=self.decision_rule
        )

    __call__ = sample

    def shapes(self, num_samples: int) -> Posterior:
        """Return a posterior of ``num_samples`` draws with shapes and dtypes in place of arrays."""
        found: Posterior = jax.eval_shape(
            lambda key: self.sample(key, num_samples), jax.random.key(0)
        )
        return found


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["sampler", "held_out"],
    meta_fields=["num_samples"],
)
@dataclasses.dataclass(frozen=True)
class FreshDraws:
    """What an attacker of a fresh predictor knows: how to draw, not what will be drawn.

    Gradients are expectations over the predictor's randomness (Athalye et al. 2018,
    arXiv 1802.00420, section 4.2), estimated by new draws at every step. An attack chooses among
    the points that it has visited: by draws that made the gradients it would choose those at which
    these draws err, so value, success and log-probabilities come from others.

    What asks for values only (random search) never uses the new draws: it attacks the held-out
    ones, and only predictions from yet other draws say what it found.

    Args:
      sampler: The predictor.
      num_samples: New draws that make the gradient of a step, at least 1.
      held_out: Draws that judge; they never make a gradient.

    Raises:
      ValueError: ``num_samples`` is below one.
    """

    sampler: Sampler
    num_samples: int
    held_out: Posterior

    def __post_init__(self) -> None:
        check_num_samples("num_samples", self.num_samples)


def check_num_samples(name: str, value: int) -> None:
    """Raise unless a number of draws is at least one.

    Raises:
      ValueError: The message names the setting and its value.
    """
    try:
        arguments.check_count(name, value, 1)
    except ValueError as error:
        raise ValueError(f"{error} Every draw is one network.") from None
