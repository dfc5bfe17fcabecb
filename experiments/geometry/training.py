"""Stages of ``experiments.geometry`` that train single networks: sections 9, Lemmas 3 and 4."""

from __future__ import annotations

import dataclasses
import functools
import operator
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute.progress import progress
from bnn_adv.data.manifolds import Description, Manifold, sample_manifold
from bnn_adv.inference.densities import Data
from bnn_adv.networks import MLP, get_apply_fn
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.theory import mirror as mirrors
from bnn_adv.theory.convergence import Probe, Recipe, Trace, largest_fall, train
from bnn_adv.theory.parts import LOSSES, draw_gradients, log_odds, split_gradient
from experiments.geometry.config import Config
from experiments.launch.run_directory import RunDirectory
from experiments.launch.stages import cached, cached_arrays

TRAIN, TEST, PROBE, ANCHORS = range(4)
"""What points are for; each has a seed of its own."""


def stage_key(config: Config, name: str) -> jax.Array:
    """Return a stage's own key, which follows from the seed and the stage's name."""
    return jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(name.encode()))


def sample(config: Config, shape: Description, count: int, purpose: int) -> Manifold:
    """Draw points of a manifold; those for other purposes are independent."""
    seed = np.random.SeedSequence([config.seed, purpose]).generate_state(1)[0]
    return sample_manifold(shape, count, seed=int(seed))


def take_probe(points: Manifold) -> Probe:
    """Return points at which gradients are watched."""
    return Probe(*map(jnp.asarray, (points.x, points.y, points.tangent, points.normal)))


def to_data(points: Manifold) -> Data:
    """Return points as a data set."""
    return Data(jnp.asarray(points.x), jnp.asarray(points.y))


def measure_convergence(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """Train on the half moons for every width and number of examples; return a row each."""
    shape = Description("half_moons")
    largest = sample(config, shape, max(config.data_sizes), TRAIN)
    test = to_data(sample(config, shape, config.num_test, TEST))
    probe = take_probe(sample(config, shape, config.num_probe, PROBE))
    rows = []
    with progress("geometry: convergence", "trainings") as report:
        total = len(config.widths) * len(config.data_sizes)
        for width in config.widths:
            for size in config.data_sizes:
                name = f"convergence-{width}-{size}"

                def compute(width: int = width, size: int = size, name: str = name) -> Any:
                    _, trace = train(
                        jax.random.split(stage_key(config, name), config.num_seeds),
                        to_data(largest),
                        size,
                        test,
                        probe,
                        jnp.asarray(config.steps),
                        config.learning_rate,
                        Recipe(
                            MLP((width,), 2, config.activation), "squared", config.minibatch_size
                        ),
                    )
                    return {"width": width, "num_data": size, **_summarise(config, trace)}

                rows.append(cached(run, name, compute))
                report(len(rows), total)
    return rows


def list_supports(config: Config) -> dict[str, tuple[Description, Description]]:
    """Return the supports of Lemma 3: what is trained on, and where gradients are watched.

    On tubes gradients are watched at the curve inside, in its tangent and normal directions.
    """
    moons = Description("half_moons")
    thick = dataclasses.replace(moons, thickness=config.thickness)
    high, square = dataclasses.replace(moons, dim=config.dim), Description("square")
    return {
        "moons": (moons, moons),
        "moons-tube": (thick, moons),
        "moons-embedded": (high, high),
        "moons-embedded-tube": (dataclasses.replace(high, thickness=config.thickness), high),
        "circle": (Description("circle"), Description("circle")),
        "square": (square, square),
        "square-embedded": (Description("square", 3), Description("square", 3)),
    }


def measure_dimension(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """Train on supports of full and of lower dimension with both losses; return a row each."""
    rows, supports = [], {name: list_supports(config)[name] for name in config.supports}
    network = MLP((config.dimension_width,) * 2, 2, config.activation)
    with progress("geometry: dimension", "trainings") as report:
        for support, (shape, watched) in supports.items():
            data = to_data(sample(config, shape, config.dimension_data, TRAIN))
            test = to_data(sample(config, shape, config.num_test, TEST))
            points = _inner(sample(config, watched, 4 * config.num_probe, PROBE), config.num_probe)
            for loss in LOSSES:
                name = f"dimension-{support}-{loss}"

                def compute(
                    name: str = name,
                    loss: str = loss,
                    data: Data = data,
                    test: Data = test,
                    points: Manifold = points,
                ) -> Any:
                    params, trace = train(
                        jax.random.split(stage_key(config, name), config.num_seeds),
                        data,
                        len(data.y),
                        test,
                        take_probe(points),
                        jnp.asarray(config.steps),
                        config.learning_rate,
                        Recipe(network, loss, config.minibatch_size),
                    )
                    fall, broken = largest_fall(
                        params,
                        jnp.asarray(points.x),
                        jnp.asarray(points.y),
                        config.thickness,
                        network=network,
                        loss=loss,
                    )
                    return {
                        **_summarise(config, trace),
                        "fall": np.median(fall, axis=1).tolist(),
                        "broken": np.mean(broken, axis=1).tolist(),
                    }

                rows.append(
                    {
                        "support": support,
                        "loss": loss,
                        "dim": shape.dim,
                        "has_full_dimension": bool(
                            shape.thickness or (shape.name == "square" and shape.dim == 2)
                        ),
                        **cached(run, name, compute),
                    }
                )
                report(len(rows), len(LOSSES) * len(supports))
    return rows


def list_mirrored(config: Config) -> dict[str, Description]:
    """Return the manifolds of Lemma 4."""
    return {
        "moons": Description("half_moons"),
        "circle": Description("circle"),
        "s-curve": Description("s_curve"),
        "s-surface": Description("s_surface", 3),
        "moons-embedded": Description("half_moons", config.dim),
    }


def measure_mirror(config: Config, run: RunDirectory) -> dict[str, Any]:
    """Construct the weights of Lemma 4 for several networks and points of every manifold.

    Returns:
      ``rows``: one a manifold, with lists over networks and points; ``field``: gradients of
      one network on the first manifold, before and after, for a picture.
    """
    settings = mirrors.Config(
        num_stages=max(1, config.mirror_steps // 4), num_steps=config.mirror_steps
    )
    rows, manifolds = [], {name: list_mirrored(config)[name] for name in config.mirrored}
    field: dict[str, Any] = {}
    with progress("geometry: Lemma 4", "manifolds") as report:
        for name, shape in manifolds.items():
            stage = f"mirror-{name}"
            arrays = cached_arrays(
                run, stage, functools.partial(_mirror, config, shape, settings, stage)
            )
            is_success = (arrays["max_difference"] < settings.tolerance) & (
                arrays["cosine"] < settings.cosine
            )
            numbers = {key: value for key, value in arrays.items() if value.ndim == 1}
            rows.append(
                {
                    "manifold": name,
                    "dim": shape.dim,
                    "success": is_success.tolist(),
                    **{key: value.astype(float).tolist() for key, value in numbers.items()},
                }
            )
            if name == config.mirrored[0]:
                field = {
                    key.removeprefix("field_"): value.tolist()
                    for key, value in arrays.items()
                    if key.startswith("field_")
                }
            report(len(rows), len(manifolds))
    return {"rows": rows, "field": field}


def _mirror(
    config: Config, shape: Description, settings: mirrors.Config, stage: str
) -> dict[str, np.ndarray]:
    network = MLP((config.mirror_width,) * 2, 2, config.activation)
    apply_fn, count = get_apply_fn(network), config.mirror_points
    data = to_data(sample(config, shape, config.dimension_data, TRAIN))
    test = to_data(sample(config, shape, config.num_test, TEST))
    points = sample(config, shape, config.num_probe, PROBE)
    probe, anchors = take_probe(points), sample(config, shape, config.mirror_anchors, ANCHORS)
    params, _ = train(
        jax.random.split(stage_key(config, stage), count),
        data,
        len(data.y),
        test,
        probe,
        jnp.asarray(config.steps),
        config.learning_rate,
        Recipe(network, minibatch_size=config.minibatch_size),
    )
    # On the host: indexing on the device would compile a program a shape.
    weights, (x, y, _, normal) = jax.tree.map(np.asarray, (params, tuple(probe)))
    found: dict[str, list[Any]] = {}
    for member in range(count):
        one = jax.tree.map(operator.itemgetter(member), weights)
        for point in range(count):
            result = mirrors.mirror(
                one,
                *(leaf[point] for leaf in (x, y, normal)),
                anchors.x,
                test.x,
                apply_fn=apply_fn,
                config=settings,
            )
            for key, value in result._asdict().items():
                if key not in ("params", "before", "after"):
                    found.setdefault(key, []).append(np.asarray(value))
            found.setdefault("norm", []).append(np.linalg.norm(result.before))
            # For the picture: the point of the first network with the steepest loss.
            if member == 0 and found["norm"][-1] >= max(found["norm"]):
                shown, attacked = (result.params, one), point
    arrays = {key: np.stack(value) for key, value in found.items()}
    both = Posterior.stack(apply_fn, shown)
    gradients = draw_gradients(log_odds, both, probe.x, probe.y)
    parts = jax.tree.map(np.asarray, split_gradient(gradients, probe.tangent, probe.normal))
    vectors = {
        "x": points.x,
        "labels": points.y[:, None],
        "tangent": parts.tangent[1],
        "before": parts.normal[1],
        "after": parts.normal[0],
        "attacked": np.full((1, 1), attacked),
    }
    return arrays | {f"field_{key}": np.asarray(value) for key, value in vectors.items()}


def _inner(points: Manifold, count: int) -> Manifold:
    """Return points farthest from the edge of the support; of a curve, the first ones."""
    order = np.argsort(-points.interior, kind="stable")[:count]
    return Manifold(*(array[order] for array in points))


def _summarise(config: Config, trace: Trace) -> dict[str, Any]:
    """Return losses and medians over points as lists [seeds, steps]."""
    medians = {
        name: np.median(getattr(trace, name), axis=-1).tolist()
        for name in ("loss_tangent", "loss_normal", "score_tangent", "score_normal")
    }
    losses = {
        name: np.asarray(getattr(trace, name)).tolist()
        for name in ("train_loss", "test_loss", "test_error")
    }
    return {"steps": list(config.steps), **losses, **medians}
