"""The input gradient of an objective over a posterior: one pass over the draws, or two.

Where the head is linear in the mean, the gradient is the mean of the draws' gradients. Else the
cotangent that all draws share is known once all were reduced. Each draw's vector-Jacobian product
then takes what its forward pass has left behind, where that is small enough to be kept for all
draws, and a forward pass of its own where it is not. The results are equal.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.attacks import threat as threats
from bnn_adv.attacks.objective_checks import check_statistic
from bnn_adv.compute import programs
from bnn_adv.compute.blocks import budget
from bnn_adv.compute.singular import finite_gradient, with_finite_steps
from bnn_adv.compute.streaming import fold_and_map, fold_samples
from bnn_adv.networks import Params
from bnn_adv.posteriors.decision import contribution, folding, log_predictive
from bnn_adv.posteriors.posterior import Posterior, one_draw

if TYPE_CHECKING:
    from bnn_adv.attacks.objectives import Objective

_MOST_AN_INPUT = 2**16
"""Bytes: dense layers and small convolutions leave less, the paper's convolutions more."""

Draw = tuple[Params, jax.Array]
"""A draw's parameters, and its scales, [B]."""


class Aim(NamedTuple):
    """Where an attacker wants a prediction to go.

    y: The label, from which it wants to get away, int32 [B].
    target: The class that it wants, int32 [B]; None: any other.
    """

    y: jax.Array
    target: jax.Array | None = None


class ObjectiveValue(NamedTuple):
    """An objective at a batch of inputs.

    value: The objective, [B].
    gradient: The direction to follow, [B, ...]: the gradient of ``value`` with respect to the
      input, or for the normalised vote the mean of the draws' unit gradients.
    log_probs: Log of the posterior's prediction by its decision rule, [B, C].
    """

    value: jax.Array
    gradient: jax.Array
    log_probs: jax.Array


_known_sizes = programs.memory()


class Problem(NamedTuple):
    """What is differentiated.

    objective: With the statistic that the decision rule gives it, see ``follow_rule``.
    posterior: S draws.
    x: Inputs, [B, ...].
    aim: Labels and targets, [B].
    scales: Every draw's scale, [S, B].
    chunk: Draws at once.
    finite_steps: Whether steps of the chain rule that are NaN count as zero.
    """

    objective: Objective
    posterior: Posterior
    x: jax.Array
    aim: Aim
    scales: jax.Array
    chunk: int
    finite_steps: bool

    @property
    def draws(self) -> tuple[Any, jax.Array]:
        """What is mapped over: parameters and scales of all draws."""
        return self.posterior.samples, self.scales

    def statistic(self, draw: Draw) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
        """Return a function of inputs: the scaled statistic, and what the draw adds."""
        (params, scale), name = draw, self.objective.name
        of_logits = self.objective.statistic
        assert of_logits is not None  # Since ``follow_rule``.
        network: Callable[[jax.Array], jax.Array]
        network = functools.partial(self.posterior.logits, params)
        if self.finite_steps:
            network = with_finite_steps(network)

        def statistic(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = network(x)
            values = check_statistic(name, of_logits(logits, self.aim), len(x)) / scale[:, None]
            return values, contribution(self.posterior.decision_rule, logits)

        return statistic


def differentiate(problem: Problem) -> ObjectiveValue:
    """Return value, gradient and prediction, by as few passes as memory allows."""
    if problem.objective.linear_head:
        return one_pass(problem)
    return two_passes(problem, keep=is_worth_keeping(problem))


def one_pass(problem: Problem) -> ObjectiveValue:
    """Return the mean of the draws' values and gradients; the head is linear."""
    objective, posterior, x, aim = problem[:4]

    def of_draw(draw: Draw) -> ObjectiveValue:
        statistic = problem.statistic(draw)

        def total(inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            values, own = statistic(inputs)
            values = objective.value(values, aim)
            return values.sum(), (values, own)

        gradient, (value, own) = jax.grad(total, has_aux=True)(x)
        if objective.normalise:
            # A component that is not finite stays one, for the masking checks, and spoils no other.
            direction = threats.unit(finite_gradient(gradient))
            gradient = jnp.where(jnp.isfinite(gradient), direction, gradient)
        return ObjectiveValue(value, gradient, own)

    rule, size = posterior.decision_rule, posterior.num_samples
    how = ObjectiveValue("sum", "sum", folding(rule))  # type: ignore[arg-type]
    total = fold_samples(of_draw, problem.draws, how, chunk=problem.chunk, shards=posterior.shards)
    return ObjectiveValue(
        total.value / size, total.gradient / size, log_predictive(rule, total.log_probs, size)
    )


def two_passes(problem: Problem, *, keep: bool) -> ObjectiveValue:
    """Reduce over the draws, then add up their vector-Jacobian products.

    Args:
      problem: What is differentiated.
      keep: Whether the second pass takes what the first one has left behind, or computes it anew.
    """
    objective, posterior, x, aim = problem[:4]
    size, is_mean = posterior.num_samples, objective.reduce == "mean"
    rule = posterior.decision_rule
    how = ("sum" if is_mean else "log_sum_exp", folding(rule))
    options = {"chunk": problem.chunk, "shards": posterior.shards}
    left = _Left(problem)
    if keep:
        (reduced, contributions), kept = fold_and_map(
            left.forward, problem.draws, how, chunk=problem.chunk
        )
        draws: Any = (problem.draws, kept)
    else:
        (reduced, contributions), draws = (
            fold_samples(lambda draw: problem.statistic(draw)(x), problem.draws, how, **options),
            problem.draws,
        )
    reduced = reduced / size if is_mean else reduced - jnp.log(size)
    value, head_vjp = jax.vjp(lambda r: objective.value(r, aim), reduced)
    (cotangent,) = head_vjp(jnp.ones_like(value))

    def backward(draw: Any) -> jax.Array:
        if keep:
            values, vjp = left.backward(*draw)
        else:
            values, vjp, _ = jax.vjp(problem.statistic(draw), x, has_aux=True)
        # d reduced / d statistic_s: 1/S for the mean, the draw's responsibility for log-mean-exp.
        weight = 1.0 if is_mean else jnp.exp(values - reduced)
        return jnp.asarray(vjp(cotangent * weight / size)[0])

    gradient = fold_samples(backward, draws, "sum", **options)
    return ObjectiveValue(value, gradient, log_predictive(rule, contributions, size))


def is_worth_keeping(problem: Problem) -> bool:
    """Return whether the second pass is to take what the first one has left behind.

    Not on several devices, and not where it is large: memory does not grow with the draws beyond a
    fixed size, and on a CPU what convolutions with pooling leave takes longer to write and to read
    than to compute again.
    """
    if problem.posterior.shards > 1:
        return False
    each = bytes_left(problem)
    if jax.default_backend() == "cpu" and each > _MOST_AN_INPUT * len(problem.x):
        return False
    return each * problem.posterior.num_samples <= _most_kept()


def _most_kept() -> int:
    # Of all draws together: more than a CPU's caches, as each is written and read once.
    return 2**26 if jax.default_backend() == "cpu" else budget()


def bytes_left(problem: Problem) -> int:
    """Return the size of what the forward pass of one draw leaves behind, beside its weights."""
    objective, posterior, *arrays, _, finite_steps = problem
    leaves, structure = jax.tree.flatten((posterior.samples, arrays))
    # What NumPy holds is copied into the program, and so left behind.
    shapes = tuple((jax.typeof(leaf), isinstance(leaf, jax.Array)) for leaf in leaves)
    network = posterior.apply_fn, posterior.decision_rule
    key = (objective, *network, finite_steps, structure, shapes, jnp.result_type(float))
    try:
        # Several programs of an evaluation ask for the same, and each answer traces the network.
        known: int | None = _known_sizes.get(key)
    except TypeError:
        # An objective whose weights are traced.
        return _measure_left(problem)
    if known is None:
        known = _known_sizes[key] = _measure_left(problem)
    return known


def _measure_left(problem: Problem) -> int:
    draw = one_draw(problem.posterior), jax.eval_shape(lambda scales: scales[0], problem.scales)
    _, kept = jax.eval_shape(_Left(problem).forward, draw)
    return int(sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)))


class _Left:
    """What a forward pass leaves for the backward one, without the draw and the inputs itself."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._structure: Any = None
        self._places: list[int | None] = []

    def forward(self, draw: Draw) -> tuple[tuple[jax.Array, jax.Array], Any]:
        """Return what is reduced; and the statistic with what else is kept."""
        values, vjp, own = jax.vjp(self._problem.statistic(draw), self._problem.x, has_aux=True)
        leaves, self._structure = jax.tree.flatten(vjp)
        # Weights are there already: each is recognised by being the same object.
        known = self._known(draw)
        self._places = [
            next((place for place, other in enumerate(known) if leaf is other), None)
            for leaf in leaves
        ]
        new = [leaf for leaf, place in zip(leaves, self._places, strict=True) if place is None]
        return (values, own), (values, new)

    def backward(self, draw: Draw, kept: Any) -> tuple[jax.Array, Callable[..., Any]]:
        """Return the statistic and the vector-Jacobian product of the draw's forward pass."""
        (values, new), known = kept, self._known(draw)
        rest = iter(new)
        leaves = [next(rest) if place is None else known[place] for place in self._places]
        return values, jax.tree.unflatten(self._structure, leaves)

    def _known(self, draw: Draw) -> list[Any]:
        return [*jax.tree.leaves(draw), self._problem.x]
