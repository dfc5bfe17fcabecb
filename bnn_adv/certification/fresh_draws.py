"""Draw, bound and count: sums over i.i.d. draws, by batches of inputs and chunks of draws."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks import threat as threats
from bnn_adv.attacks.validation import Problem
from bnn_adv.bounds.balls import open_ball
from bnn_adv.certification.certify import Network
from bnn_adv.certification.journal import Journal
from bnn_adv.certification.predictive import (
    LOG_ROUNDING,
    Sums,
    Way,
    bound_draw,
    conclude,
    mean_rounding,
)
from bnn_adv.certification.settings import FreshCertificationSettings
from bnn_adv.compute import parallel, programs
from bnn_adv.compute.leaves import is_key
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler


class Work(NamedTuple):
    """What is certified, and how.

    sampler: The predictor.
    network: Its network.
    problem: Inputs, labels and threat model.
    rng_key: Typed key; draw s follows from ``fold_in(rng_key, s)``.
    num_samples: Draws, n.
    settings: How bounds are made.
    """

    sampler: Sampler
    network: Network
    problem: Problem
    rng_key: jax.Array
    num_samples: int
    settings: FreshCertificationSettings


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


def count_draws(work: Work, journal: Journal) -> Counted:
    """Return sums and counts over all draws.

    Args:
      work: What is certified.
      journal: Batches of inputs that are finished.
    """
    programs.note(work.sampler.apply_fn)
    settings, count = work.settings, len(work.problem.x)
    gaps, squares = np.zeros((2, count, work.problem.num_classes))
    num_safe, num_right = np.zeros((2, count), np.int64)
    per_draw = np.zeros(work.num_samples, np.int64)
    epsilon = np.broadcast_to(np.asarray(work.problem.threat.epsilon, np.float64), (count,))
    parts = 1 if settings.mesh is None else settings.mesh.shape["data"]
    width = min(settings.batch_size, -(-count // parts) * parts)
    for first in range(0, count, width):
        rows = np.arange(first, min(first + width, count))
        part, radii = f"fresh/{first}", epsilon[rows]
        values = journal.recall(part, rows, radii)
        if values is None:
            values = _count_batch(work, rows, radii, width)
            journal.keep(part, rows, radii, values)
        gaps[rows], squares[rows] = values["gaps"], values["squares"]
        num_safe[rows], num_right[rows] = values["num_safe"], values["num_right"]
        per_draw += values["per_draw"]
        if settings.progress is not None:
            settings.progress(int(rows[-1] + 1) * work.num_samples, count * work.num_samples)
    return Counted(Totals(gaps, squares), num_safe, num_right, per_draw)


def _count_batch(
    work: Work, rows: np.ndarray, radii: np.ndarray, width: int
) -> dict[str, np.ndarray]:
    """Return sums and counts of a batch of inputs, which is filled up to a width."""
    sampler, problem, settings = work.sampler, work.problem, work.settings
    kept, size = len(rows), min(settings.sample_chunk, work.num_samples)
    batch = np.pad(rows, (0, width - kept), mode="edge")
    radii = np.pad(radii, (0, width - kept), mode="edge")
    x, y = parallel.shard_examples((problem.x[batch], problem.y[batch]), settings.mesh)
    way = Way(problem.threat.norm, sampler.decision_rule, settings.method, settings.most_rows)
    counts = np.zeros((2, kept), np.int64)
    per_draw = np.zeros(work.num_samples, np.int64)
    totals = Totals(*np.zeros((2, width, problem.num_classes)))
    for start in range(0, work.num_samples, size):
        numbers = np.arange(start, start + size)
        is_new = numbers < work.num_samples
        drawn = _draw(sampler, work.rng_key, numbers.astype(np.uint32), x, y)
        with jax.enable_x64(True):
            own = threats.with_radius(problem.threat, radii)
            totals, safe = _add(
                totals,
                (drawn.params, drawn.is_finite, is_new),
                (x, y, parallel.shard_examples(own, settings.mesh)),
                network=work.network,
                way=way,
                num_rounds=settings.num_rounds if way.method == "alpha-crown" else 0,
                is_real=settings.arithmetic == "real",
            )
        found = [parallel.to_host(a)[is_new][:, :kept] for a in (safe, drawn.is_right)]
        counts += np.stack([each.sum(axis=0) for each in found])
        per_draw[numbers[is_new]] = found[0].sum(axis=1)
        if settings.progress is not None:
            before = int(rows[0]) * work.num_samples
            now = int(numbers[is_new][-1] + 1) * kept
            settings.progress(before + now, len(problem.x) * work.num_samples)
    gaps, squares = (values[:kept] for values in parallel.to_host(totals))
    return {
        **{"gaps": gaps, "squares": squares, "num_safe": counts[0], "num_right": counts[1]},
        "per_draw": per_draw,
    }


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
                kept = ("gap", "rounded", "least")
                best = {k: jnp.maximum(getattr(sums, k), getattr(new, k)) for k in kept}
                return new._replace(**best), None

            sums = bound_draw(graph, way, ball, y)
            if num_rounds:
                sums = jax.lax.scan(again, sums, length=num_rounds)[0]
            averaging = mean_rounding(len(sums.gap), 1, sums.reach)
            left = jnp.maximum(sums.gap - sums.error, sums.rounded) - averaging
            gap = sums.gap if is_real else left
            # What is no number is the worst.
            gap = jnp.where(is_finite & (gap >= -1.0), jnp.minimum(gap, 1.0), -1.0)
            return gap, is_finite & (sums.least > (0.0 if is_real else LOG_ROUNDING))

        gap, is_safe = jax.vmap(one)(wide, y, threat)
        added = Totals(totals.gaps + gap, totals.squares + gap**2)
        kept = jax.tree.map(lambda new, old: jnp.where(counts, new, old), added, totals)
        return kept, is_safe

    found: tuple[Totals, jax.Array] = jax.lax.scan(body, totals, draws)
    return found
