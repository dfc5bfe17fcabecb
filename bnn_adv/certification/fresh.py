r"""Certify a predictor that draws anew, from i.i.d. draws, at a stated confidence.

Nothing holds for certain of draws that nobody has seen. With ``g_k(x, w) = p_y - p_k`` of one draw
w at x, and per draw and input a lower bound ``m_k(w) <= min_{x in ball} g_k(x, w)``:

*The predictive in expectation*, ``argmax_k E_w p_k(x, w)``. Whatever x the attacker takes,

    min_x E_w g_k(x, w) >= E_w min_x g_k(x, w) >= E_w m_k(w),

and the mean of n i.i.d. numbers in [-1, 1] bounds the last one from below by empirical Bernstein,
each of the C - 1 other classes at ``delta / (C - 1)``. What float32 may add to a draw's
probabilities is taken off ``m_k(w)`` before the mean.

*A new draw by itself.* Whether a draw's own logits are right on the whole ball is yes or no; the
lower bound of its probability is Clopper's and Pearson's.

*Its accuracy over the N inputs*, ``mean_i 1(S_i)``, is a number in [0, 1] a draw: empirical
Bernstein again, once, whatever the number of inputs.
"""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks import threat as threats
from bnn_adv.attacks.validation import Problem, open_problem
from bnn_adv.bounds.balls import open_ball
from bnn_adv.bounds.graph import CertificationError
from bnn_adv.certification.certify import Network, check_norm, open_network
from bnn_adv.certification.concentration import bernstein_lower, clopper_pearson_lower
from bnn_adv.certification.fresh_certificate import FreshCertificate
from bnn_adv.certification.predictive import (
    LOG_ROUNDING,
    Sums,
    Way,
    bound_draw,
    conclude,
    mean_rounding,
)
from bnn_adv.certification.settings import FreshCertificationSettings
from bnn_adv.compute import arguments, parallel, programs
from bnn_adv.compute.leaves import is_key
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler


def certify_fresh(
    sampler: Sampler,
    x: Any,
    y: Any,
    *,
    threat: Any,
    num_samples: int = 1000,
    confidence: float = 0.95,
    rng_key: jax.Array,
    settings: FreshCertificationSettings = FreshCertificationSettings(),
) -> FreshCertificate:
    """Certify a predictor that draws anew, at a confidence, from i.i.d. draws.

    The draws must be independent of everything that chose the sampler, the inputs or the radius:
    take a key that nothing else has used, and do not try several keys, radii or numbers of draws to
    report the best. One draw at a time is in memory, whatever their number.

    What is claimed of what, with equations, is said field by field in ``FreshCertificate``. The
    predictive is that of infinitely many draws: one of S new draws varies around it.

    Args:
      sampler: The predictor; ``draw`` of independent keys must be independent draws.
      x: Clean inputs in the threat model's box, [N, ...].
      y: Labels, [N].
      threat: ``LInf``, ``L2`` or ``L1`` with radius (one, or one an input, [N]) and box.
      num_samples: Draws, n, at least 2. The predictive's margin is certified up to about
        ``5 log(2 N C / delta) / n`` and the draws' own spread.
      confidence: ``1 - delta``, in (0, 1).
      rng_key: Typed key; draw s follows from ``fold_in(rng_key, s)``.
      settings: How bounds are made.

    Raises:
      TypeError: ``sampler`` is none: draws of a ``Posterior`` are certified by ``certify``.
      CertificationError: A network through which bounds do not pass or that computes below
        float32, or the rule of mean logits.
      ValueError: A number out of range; inputs or labels that do not fit.
    """
    started = time.monotonic()
    check_sampler(sampler)
    arguments.check_key(rng_key)
    arguments.check_count("num_samples", num_samples, 2)
    _check_confidence(confidence)
    first = sampler.sample_each(jax.vmap(jax.random.fold_in, (None, 0))(rng_key, jnp.arange(2)))
    problem = open_problem(first, x, y, threat)
    check_norm(problem.threat.norm)
    network = open_network(first, problem.x.shape[1:])
    counted = _stream(sampler, network, problem, rng_key, num_samples, settings)
    epsilon = np.broadcast_to(np.asarray(problem.threat.epsilon, np.float32), (len(problem.x),))
    return FreshCertificate(
        x=problem.x,
        y=problem.y,
        norm=problem.threat.norm,
        epsilon=epsilon,
        box=(float(problem.threat.lower), float(problem.threat.upper)),
        confidence=float(confidence),
        num_samples=num_samples,
        rng_key=np.asarray(jax.random.key_data(rng_key)).tolist(),
        settings=settings.to_json(),
        **conclude_counts(counted, problem.y, num_samples, confidence),
        seconds=time.monotonic() - started,
    )


def check_sampler(sampler: Any) -> None:
    """Raise unless draws of something say, at a confidence, what a new one does.

    Raises:
      TypeError: It is no sampler.
      CertificationError: It averages logits, or rounds below float32.
    """
    if isinstance(sampler, Posterior):
        raise TypeError(
            "certify_fresh needs a bnn_adv.Sampler, whose draws are i.i.d. The draws of a "
            "Posterior are what they are: those of a Markov chain depend on each other and those "
            "of an ensemble are all there are, so that no confidence in a further draw follows "
            "from them. bnn_adv.certify certifies their mean, for certain."
        )
    if not isinstance(sampler, Sampler):
        raise TypeError(
            f"certify_fresh needs a bnn_adv.Sampler, got {type(sampler).__name__}. Make one by "
            "bnn_adv.Sampler(apply_fn, draw) with draw(rng_key) -> params."
        )
    if sampler.decision_rule == "mean_logits":
        raise CertificationError(
            "The sampler averages logits, which have no bounds: however many draws were seen, one "
            "that is not could outweigh them. Certify the rule mean_probabilities "
            '(decision_rule="mean_probabilities"), or a fixed set of draws: '
            "bnn_adv.certify(sampler.sample(key, S), ...)."
        )
    if sampler.precision != "highest":
        raise CertificationError(
            f"The sampler computes in {sampler.precision}, which rounds more than a certificate "
            'allows for: give it precision="highest".'
        )


def _check_confidence(confidence: Any) -> None:
    is_number = isinstance(confidence, int | float | np.number) and not isinstance(confidence, bool)
    if not is_number or not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, as 0.95; got {confidence!r}.")


class Totals(NamedTuple):
    """What is added up over draws, for each of N inputs.

    gaps: Sum of ``m_k``, [N, C].
    squares: Sum of their squares, [N, C].
    """

    gaps: Any
    squares: Any


class Counted(NamedTuple):
    """What all draws say.

    totals: See ``Totals``.
    num_safe: Draws that are right on the whole ball, [N].
    num_right: Draws that are right at the clean input, [N].
    per_draw: Inputs on whose whole ball the draw is right, [n].
    """

    totals: Totals
    num_safe: np.ndarray
    num_right: np.ndarray
    per_draw: np.ndarray


def conclude_counts(
    counted: Counted, y: np.ndarray, num_samples: int, confidence: float
) -> dict[str, Any]:
    """Return the bounds that sums and counts over draws give; fields of ``FreshCertificate``.

    Args:
      counted: Of n draws and N inputs.
      y: Labels, [N].
      num_samples: Draws, n.
      confidence: ``1 - delta``.
    """
    count, num_classes = counted.totals.gaps.shape
    delta = 1 - float(confidence)

    def margins(delta: float) -> np.ndarray:
        found = bernstein_lower(
            *counted.totals, num_samples, delta=delta / (num_classes - 1), width=2.0
        )
        found[np.arange(count), y] = np.inf
        return found

    alone, together = margins(delta), margins(delta / count)
    shares = counted.per_draw / count
    accuracy = bernstein_lower(shares.sum(), (shares**2).sum(), num_samples, delta=delta, width=1.0)
    return {
        "margin": np.maximum(alone.min(axis=1), -1.0),
        "margin_together": np.maximum(together.min(axis=1), -1.0),
        "nearest": alone.argmin(axis=1),
        "safe": clopper_pearson_lower(counted.num_safe, num_samples, delta=delta),
        "safe_together": clopper_pearson_lower(counted.num_safe, num_samples, delta=delta / count),
        "num_safe": counted.num_safe,
        "num_right": counted.num_right,
        "draw_accuracy": max(float(accuracy), 0.0),
    }


def _stream(
    sampler: Sampler,
    network: Network,
    problem: Problem,
    rng_key: jax.Array,
    num_samples: int,
    settings: FreshCertificationSettings,
) -> Counted:
    """Return sums and counts over all draws, a batch of inputs and a chunk of draws at a time."""
    programs.note(sampler.apply_fn)
    count, size = len(problem.x), min(settings.sample_chunk, num_samples)
    gaps, squares = np.zeros((2, count, problem.num_classes))
    num_safe, num_right = np.zeros((2, count), np.int64)
    per_draw = np.zeros(num_samples, np.int64)
    epsilon = np.broadcast_to(np.asarray(problem.threat.epsilon, np.float64), (count,))
    way = Way(problem.threat.norm, sampler.decision_rule, settings.method, settings.most_rows)
    done, all_pairs = 0, count * num_samples
    rows, width = np.arange(count), min(settings.batch_size, count)
    for first in range(0, count, width):
        kept = len(rows[first : first + width])
        batch = np.pad(rows[first : first + width], (0, width - kept), mode="edge")
        x, y = problem.x[batch], problem.y[batch]
        own = threats.with_radius(problem.threat, epsilon[batch])
        totals = Totals(*np.zeros((2, len(batch), problem.num_classes)))
        for start in range(0, num_samples, size):
            numbers = np.arange(start, start + size)
            is_new = numbers < num_samples
            drawn = _draw(sampler, rng_key, numbers.astype(np.uint32), x, y)
            with jax.enable_x64(True):
                totals, safe = _add(
                    totals,
                    (drawn.params, drawn.is_finite, is_new),
                    (x, y, own),
                    network=network,
                    way=way,
                    num_rounds=settings.num_rounds if way.method == "alpha-crown" else 0,
                    is_real=settings.arithmetic == "real",
                )
            safe, right = (parallel.to_host(a)[is_new][:, :kept] for a in (safe, drawn.is_right))
            num_safe[batch[:kept]] += safe.sum(axis=0)
            num_right[batch[:kept]] += right.sum(axis=0)
            per_draw[numbers[is_new]] += safe.sum(axis=1)
            done += safe.size
            if settings.progress is not None:
                settings.progress(done, all_pairs)
        found = parallel.to_host(totals)
        gaps[batch[:kept]], squares[batch[:kept]] = (values[:kept] for values in found)
    return Counted(Totals(gaps, squares), num_safe, num_right, per_draw)


class Drawn(NamedTuple):
    """A chunk of K draws.

    params: Parameters, a leading axis of K on every leaf.
    is_finite: Whether every number of the draw is finite, [K].
    is_right: Whether it is right at a batch's clean inputs, [K, B].
    """

    params: Any
    is_finite: jax.Array
    is_right: jax.Array


@programs.jit
def _draw(
    sampler: Sampler, rng_key: jax.Array, numbers: jax.Array, x: jax.Array, y: jax.Array
) -> Drawn:
    """Return the draws of these numbers, [K], and what they say of clean inputs."""

    # One by one: vmapped, sums in a draw could be of another order for another K.
    def one(number: jax.Array) -> Drawn:
        params = sampler.draw(jax.random.fold_in(rng_key, number))
        posterior = Posterior(sampler.apply_fn, params, precision=sampler.precision)
        with jax.default_matmul_precision(sampler.precision):
            logits = posterior.logits(params, x)
        numbers = [leaf for leaf in jax.tree.leaves(params) if not is_key(leaf)]
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in numbers]).all()
        return Drawn(params, finite, predicted_class(logits) == y)

    found: Drawn = jax.lax.map(one, numbers)
    return found


@functools.partial(programs.jit, static_argnames=("network", "way", "num_rounds", "is_real"))
def _add(
    totals: Totals,
    draws: tuple[Any, jax.Array, jax.Array],
    inputs: tuple[jax.Array, jax.Array, Any],
    *,
    network: Network,
    way: Way,
    num_rounds: int,
    is_real: bool,
) -> tuple[Totals, jax.Array]:
    """Add draws, one after the other, to what was added up; in float64.

    Args:
      totals: So far.
      draws: Parameters with a leading axis of K, whether all are finite, and whether the draw
        counts, [K].
      inputs: Clean inputs, labels and threat model of a batch.
      network: The network.
      way: How a draw is bounded.
      num_rounds: Times that lines are chosen anew.
      is_real: Whether rounding of float32 is left out.

    Returns:
      The new sums, and which draw is right on which input's whole ball, [K, B].
    """
    x, y, threat = inputs
    wide = x[:, None].astype(jnp.float64)

    def body(totals: Totals, drawn: tuple[Any, Any, Any]) -> tuple[Totals, jax.Array]:
        params, is_finite, counts = drawn
        graph = network.read(params)

        def one(own: jax.Array, y: jax.Array, threat: Any) -> tuple[jax.Array, jax.Array]:
            ball = open_ball(threat, own, threat.epsilon)

            def again(sums: Sums, _: None) -> tuple[Sums, None]:
                points = conclude(way.norm, ball, y, sums, 1)[1]
                new = bound_draw(graph, way, ball, y, points)
                gap, least = jnp.maximum(sums.gap, new.gap), jnp.maximum(sums.least, new.least)
                return new._replace(gap=gap, least=least), None

            sums = bound_draw(graph, way, ball, y)
            if num_rounds:
                sums = jax.lax.scan(again, sums, length=num_rounds)[0]
            lost = sums.error + mean_rounding(len(sums.gap), 1, sums.reach)
            gap = sums.gap if is_real else sums.gap - lost
            # What is no number is the worst.
            gap = jnp.where(is_finite & (gap >= -1.0), jnp.minimum(gap, 1.0), -1.0)
            return gap, is_finite & (sums.least > (0.0 if is_real else LOG_ROUNDING))

        gap, is_safe = jax.vmap(one)(wide, y, threat)
        added = Totals(totals.gaps + gap, totals.squares + gap**2)
        kept = jax.tree.map(lambda new, old: jnp.where(counts, new, old), added, totals)
        return kept, is_safe

    found: tuple[Totals, jax.Array] = jax.lax.scan(body, totals, draws)
    return found
