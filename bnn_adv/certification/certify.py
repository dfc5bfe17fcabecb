"""Certify a posterior's predictions: a lower bound of what no attack can break."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core

from bnn_adv.attacks import threat as threats
from bnn_adv.attacks.subject import describe
from bnn_adv.attacks.validation import Problem, open_problem
from bnn_adv.bounds.affine import AFFINE
from bnn_adv.bounds.balls import MINIMISERS
from bnn_adv.bounds.graph import CertificationError, Graph
from bnn_adv.bounds.reading import read, trace
from bnn_adv.bounds.relaxations import RELAXATIONS
from bnn_adv.certification import places
from bnn_adv.certification.certificate import Certificate
from bnn_adv.certification.journal import Journal
from bnn_adv.certification.places import Places
from bnn_adv.certification.predictive import Margin, Way
from bnn_adv.certification.rounds import Rounds, bound_batch
from bnn_adv.certification.settings import CertificationSettings, Progress
from bnn_adv.compute import blocks, effort, parallel
from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.disk import DiskDraws
from bnn_adv.compute.identity import identify
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior, hash_draws, one_draw, predict_log_probs
from bnn_adv.posteriors.sampler import Sampler


def certify(
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    threat: Any,
    settings: CertificationSettings = CertificationSettings(),
    progress: Progress | None = None,
) -> Certificate:
    """Certify that predictions do not change within a ball, whatever the attack.

    The predictor is the mean over the posterior's draws, or what its decision rule says. An input
    is certified where the label's probability stays above every other class's on the whole ball by
    more than rounding. What is not certified may still be robust.

    Args:
      posterior: S draws, which are those that predict.
      x: Clean inputs in the threat model's box, [N, ...].
      y: Labels, [N].
      threat: ``LInf``, ``L2`` or ``L1`` with radius (one, or one an input, [N]) and box.
      settings: How bounds are made.
      progress: Called with the inputs done and all, over all radii that are looked at.

    Returns:
      A certificate of N inputs.

    Raises:
      TypeError: ``posterior`` is none: see ``certify_fresh`` for a ``Sampler``.
      CertificationError: The network applies a primitive that bounds do not pass through, or
        computes below float32.
      ValueError: Posterior, inputs or labels do not fit together, or checkpoints of something
        else.
    """
    started = time.monotonic()
    check_posterior(posterior)
    problem = open_problem(posterior, x, y, threat)
    shape = problem.x.shape[1:]
    norm = problem.threat.norm
    check_norm(norm)
    network = open_network(posterior, shape)
    epsilon = np.broadcast_to(np.asarray(problem.threat.epsilon, np.float32), (len(problem.x),))
    images = parallel.replicate(problem.x, settings.mesh)
    log_probs = parallel.to_host(predict_log_probs(posterior, images))
    correct = predicted_class(np.asarray(log_probs)) == problem.y
    keeper = settings.checkpoints or NoCheckpoints()
    brief = _is_brief(network, posterior, problem, settings)
    session = keeper.session(lambda: _identify(posterior, problem, settings))
    with effort.lower(brief), session as saved:
        run = Run(posterior, network, problem, settings, Journal(keeper, saved), progress)
        found, used = run(epsilon, np.flatnonzero(correct), 0)
        radius = np.where(found["certified"], epsilon, 0.0)
        at_radius: Places = {}
        if settings.num_halvings:
            radius, at_radius = _bisect(run, radius, epsilon, correct)
    points, rounds = places.join(used, len(problem.x))
    radius_points, radius_rounds = places.join(at_radius, len(problem.x))
    if progress is not None:
        progress(run.total, run.total)
    ours = time.monotonic() - started
    return Certificate(
        x=problem.x,
        y=problem.y,
        norm=norm,
        epsilon=epsilon,
        box=(float(problem.threat.lower), float(problem.threat.upper)),
        clean_correct=correct,
        radius=radius,
        rounds=rounds,
        points=points,
        radius_rounds=radius_rounds,
        radius_points=radius_points,
        draws_hash=hash_draws(posterior),
        decision_rule=posterior.decision_rule,
        num_samples=posterior.num_samples,
        settings=settings.to_json(),
        seconds=ours if settings.checkpoints is None else settings.checkpoints.seconds,
        **found,
    )


def _is_brief(
    network: Network, posterior: Posterior, problem: Problem, settings: CertificationSettings
) -> bool:
    """Return whether compiling would take longer than all that is computed.

    By what is certified alone, never by how it goes: resumed, it is compiled as before.
    """
    if settings.mesh is not None or posterior.shards > 1:
        return False
    if isinstance(posterior.samples, DiskDraws):
        return False
    is_linear = settings.method in ("crown", "alpha-crown")
    tightened = [size for size in network.sizes if size <= settings.most_rows] if is_linear else []
    # Both ends of every unit that has linear bounds, and three bounds of every class: each costs
    # about what the network costs, in numbers of twice the size.
    rows = 2 * sum(tightened) + 3 * network.num_classes
    rounds = 1 + (settings.num_rounds if settings.method == "alpha-crown" else 0)
    each = 2 * blocks.bytes_per_input(posterior.apply_fn, one_draw(posterior), problem.x)
    passes = rows * rounds * (1 + settings.num_halvings) * posterior.num_samples
    return passes * len(problem.x) * each <= effort.MOST_BYTES


def _identify(
    posterior: Posterior, problem: Problem, settings: CertificationSettings
) -> dict[str, str]:
    """Return what a certificate follows from: a checkpoint of anything else is refused."""
    return identify(
        "certify",
        **describe(posterior),
        inputs=problem.x,
        labels=problem.y,
        threat=problem.threat,
        rules=(AFFINE, RELAXATIONS),
        mesh=settings.mesh,
        **settings.to_json(),
    )


def check_posterior(posterior: Any) -> None:
    """Raise unless something is a posterior whose numbers a certificate can speak of.

    Raises:
      TypeError: It is no posterior.
      CertificationError: Its matrix products are rounded below float32.
    """
    if isinstance(posterior, Sampler):
        raise TypeError(
            "certify needs a bnn_adv.Posterior, whose draws are those that predict; a Sampler "
            "draws anew at every prediction: use bnn_adv.certify_fresh."
        )
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"certify needs a bnn_adv.Posterior, got {type(posterior).__name__}. Make one by "
            "bnn_adv.Posterior(apply_fn, samples)."
        )
    if posterior.precision != "highest":
        raise CertificationError(
            f"The posterior computes in {posterior.precision}, which rounds more than a "
            'certificate allows for: give it precision="highest".'
        )


def check_norm(norm: str) -> None:
    """Raise unless linear functions have a minimum in a norm's balls that is known here.

    Raises:
      CertificationError: They have none.
    """
    if norm not in MINIMISERS:
        raise CertificationError(
            f"Certificates know the norms {', '.join(MINIMISERS)}, not {norm!r}."
        )


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as JAX traced it; equal where the function and all shapes are.

    Args:
      key: Function, structure and shapes of a draw, and the input's shape.
      traced: The equations for one input.
      sizes: Units of every activation, in order.
      num_classes: Logits.
    """

    key: Any
    traced: core.ClosedJaxpr = dataclasses.field(compare=False)
    sizes: tuple[int, ...] = dataclasses.field(default=(), compare=False)
    num_classes: int = dataclasses.field(default=0, compare=False)

    def read(self, draw: Any) -> Graph:
        """Return its graph with the weights of one draw."""
        return read(self.traced, draw, self.key[-1])


def open_network(posterior: Posterior, shape: tuple[int, ...]) -> Network:
    """Trace a posterior's network, and check that bounds pass through it.

    Raises:
      CertificationError: They do not; the message names the primitive.
    """
    draw = one_draw(posterior)
    leaves, structure = jax.tree.flatten(draw)
    kinds = tuple((tuple(leaf.shape), str(leaf.dtype)) for leaf in leaves)
    traced = trace(lambda params, x: posterior.logits(params, x), draw, shape)
    network = Network((posterior.apply_fn, structure, kinds, tuple(shape)), traced)
    graphs: list[Graph] = []
    with jax.enable_x64(True):
        jax.eval_shape(lambda draw: graphs.append(network.read(draw)), draw)
    (graph,) = graphs
    sizes = tuple(math.prod(node.input.shape) for node in graph.nodes)
    return dataclasses.replace(network, sizes=sizes, num_classes=graph.output.shape[1])


@dataclasses.dataclass(frozen=True)
class Run:
    """One posterior and one set of inputs, at any radius.

    Args:
      posterior: S draws.
      network: Its network.
      problem: Inputs, labels, norm and box.
      settings: How bounds are made.
      journal: Batches that are finished.
      progress: Told how far the work is.
    """

    posterior: Posterior
    network: Network
    problem: Problem
    settings: CertificationSettings
    journal: Journal
    progress: Progress | None = None

    @property
    def total(self) -> int:
        """How often an input is looked at, at most, over all inputs."""
        return len(self.problem.x) * (1 + self.settings.num_halvings)

    def __call__(
        self, epsilon: np.ndarray, rows: np.ndarray, number: int
    ) -> tuple[dict[str, np.ndarray], Places]:
        """Return what is certified of the inputs ``rows`` within radii, [N]; of others nothing.

        Args:
          epsilon: Radii, [N].
          rows: Indices of the inputs.
          number: How many radii were looked at before.

        Returns:
          The fields of ``Margin`` and ``certified``, [N] each; the places that bounds need.
        """
        count, settings = len(self.problem.x), self.settings
        worst = -np.inf if self.posterior.decision_rule == "mean_logits" else -1.0
        found = {
            "margin": np.full(count, worst),
            "rounding": np.zeros(count),
            "alone": np.full(count, worst),
            "cancellation": np.ones(count),
            "nearest": np.full(count, -1),
            "least": np.full(count, -np.inf),
        }
        way = Way(
            self.problem.threat.norm,
            self.posterior.decision_rule,
            settings.method,
            settings.most_rows,
        )
        used: Places = {}
        parts = 1 if settings.mesh is None else settings.mesh.shape["data"]
        for start, batch in _batches(rows, settings.batch_size, parts):
            part, radii = f"certify/{number}/{start}", epsilon[batch].astype(np.float64)
            values = self.journal.recall(part, batch, radii)
            if values is None:
                values = self._bound(batch, radii, way)
                self.journal.keep(part, batch, radii, values)
            used |= places.split(values["points"], values["rounds"], batch)
            for name, value in found.items():
                value[batch] = values[name]
            if self.progress is not None:
                done = min(start + settings.batch_size, len(rows))
                self.progress(number * count + count * done // len(rows), self.total)
        found["certified"] = self._judge(found)
        return found, used

    def _bound(self, batch: np.ndarray, radii: np.ndarray, way: Way) -> dict[str, np.ndarray]:
        settings = self.settings
        with jax.enable_x64(True):
            own = threats.with_radius(self.problem.threat, radii)
            examples = self.problem.x[batch], self.problem.y[batch], own
            rounds = bound_batch(
                self.posterior,
                *parallel.shard_examples(examples, settings.mesh),
                network=self.network,
                way=way,
                num_rounds=settings.num_rounds if way.method == "alpha-crown" else 0,
            )
            rounds = parallel.to_host(rounds)
        return self._keep(rounds)

    def _keep(self, rounds: Rounds) -> dict[str, np.ndarray]:
        """Return margins, and the places of rounds without which nothing would be certified."""
        first, best = rounds.first._asdict(), rounds.best._asdict()
        enough = self._judge(first)
        found: dict[str, np.ndarray] = {
            name: np.where(enough, np.asarray(first[name]), np.asarray(best[name]))
            for name in Margin._fields
        }
        counted = rounds.counted if self.settings.rule == "every_draw" else rounds.counted[:, :1]
        claims = ~enough & (self._judge(best) | (best["margin"] > 0))
        needed = np.where(claims, counted.max(axis=1), 0)
        return {**found, "rounds": needed, "points": places.cut(rounds.shares, needed)}

    def _judge(self, found: dict[str, np.ndarray]) -> np.ndarray:
        name = "least" if self.settings.rule == "every_draw" else "margin"
        # Each log-odds above what their mean over draws may lose keeps that mean's sign as well.
        needed = 0.0 if self.settings.arithmetic == "real" else found["rounding"]
        judged: np.ndarray = found[name] > needed
        return judged


def _batches(rows: np.ndarray, size: int, parts: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield batches of one length, the last filled up by repeating its last row, with its start."""
    width = min(size, -(-len(rows) // parts) * parts)
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        yield start, np.pad(batch, (0, width - len(batch)), mode="edge")


def _bisect(
    run: Run, radius: np.ndarray, epsilon: np.ndarray, correct: np.ndarray
) -> tuple[np.ndarray, Places]:
    """Return the largest radius that was certified of every input, and what its bound needs."""
    largest = threats.box_radius(run.problem.threat, run.problem.x.shape[1:])
    # At radius zero nothing is said of any larger one.
    is_open = (radius > 0) | (epsilon == 0)
    low, high = radius.astype(np.float64), np.where(is_open, largest, epsilon)
    used: Places = {}
    # From a certified radius upwards by doubling, then between the two by halving.
    for number in range(run.settings.num_halvings):
        can_grow = correct & (high > low)
        rows = np.flatnonzero(can_grow)
        if not len(rows):
            break
        middle = np.where((low > 0) & (high > 4 * low), 2 * low, (low + high) / 2)
        middle = middle.astype(np.float32).astype(np.float64)
        found, own = run(middle, rows, number + 1)
        is_certified = found["certified"] & can_grow
        low = np.where(is_certified, middle, low)
        high = np.where(can_grow & ~is_certified, middle, high)
        kept = {row: part for row, part in used.items() if not is_certified[row]}
        used = kept | {row: part for row, part in own.items() if is_certified[row]}
    return low, used
