"""Stage of ``experiments.geometry`` that averages normal gradients over posteriors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute.progress import progress
from bnn_adv.data.manifolds import Description, Manifold, embedding_frame
from bnn_adv.evaluation.metrics import accuracy
from bnn_adv.inference import InferenceResult, RunOptions, hmc, sgd, svi
from bnn_adv.inference.diagnostics import MIXING_KEYS
from bnn_adv.networks import MLP, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from bnn_adv.theory.averages import mean_gradient
from bnn_adv.theory.gradients import prior_control
from bnn_adv.theory.parts import LOSSES, draw_gradients
from experiments.geometry.config import Config
from experiments.geometry.training import PROBE, TEST, TRAIN, sample, stage_key, to_data
from experiments.launch.run_directory import RunDirectory
from experiments.launch.stages import cached, cached_posterior

_SWEPT = "moons-embedded"
"""The manifold on which width and number of examples are varied."""


def list_settings(config: Config) -> list[tuple[str, str, int, int, int]]:
    """Return (manifold, method, width, number of examples, repetition) of every posterior.

    The base width and size on all manifolds; the others one at a time, on the embedded moons.
    """
    width, size = config.posterior_widths[0], config.posterior_data[0]
    methods = (*config.methods, "prior")
    cells = [(name, m, width, size) for name in config.posterior_manifolds for m in methods]
    if _SWEPT in config.posterior_manifolds:
        chains = [m for m in methods if m != "ensemble"]
        cells += [(_SWEPT, m, w, size) for w in config.posterior_widths[1:] for m in chains]
        sampled = [m for m in chains if m != "prior"]
        cells += [(_SWEPT, m, width, n) for n in config.posterior_data[1:] for m in sampled]
    return [(*cell, seed) for cell in cells for seed in range(config.num_seeds)]


def list_shapes(config: Config) -> dict[str, Description]:
    """Return the manifolds: in the plane, and embedded."""
    return {
        "moons": Description("half_moons"),
        "circle": Description("circle"),
        "moons-embedded": Description("half_moons", config.dim),
        # The first two axes as the plane of the moons: Adam works coordinate by coordinate.
        "moons-axes": Description("half_moons", config.dim, frame_seed=None),
    }


def measure_posteriors(config: Config, run: RunDirectory) -> list[dict[str, Any]]:
    """Sample every posterior and describe its mean gradients; return a row each."""
    settings, rows = list_settings(config), []
    with progress("geometry: posteriors", "posteriors") as report:
        for manifold, method, width, size, seed in settings:
            name = f"posterior-{manifold}-{method}-{width}-{size}-{seed}"
            labels = {"manifold": manifold, "method": method, "width": width, "num_data": size}

            posterior, diagnostics = _sample(config, run, manifold, method, width, size, seed, name)

            def compute(
                manifold: str = manifold,
                seed: int = seed,
                posterior: Posterior = posterior,
                diagnostics: dict[str, Any] = diagnostics,
            ) -> dict[str, Any]:
                return _measure(config, manifold, seed, posterior, diagnostics)

            summary = cached(run, f"{name}-means", compute)
            rows.append({**labels, "seed": seed, **summary})
            report(len(rows), len(settings))
    return rows


def _points(config: Config, manifold: str, count: int, purpose: int, seed: int) -> Manifold:
    """Return points of a repetition: each has other data, other probes and other chains."""
    return sample(config, list_shapes(config)[manifold], count, 10 * seed + 10 + purpose)


def _sample(
    config: Config,
    run: RunDirectory,
    manifold: str,
    method: str,
    width: int,
    size: int,
    seed: int,
    name: str,
) -> tuple[Posterior, dict[str, Any]]:
    """Return a posterior's draws, trained or read back, and its diagnostics."""
    dim = list_shapes(config)[manifold].dim
    network, key = MLP((width,), 2, config.activation), stage_key(config, name)
    if method == "prior":
        template = init_params(key, network, (dim,))
        one = Posterior(get_apply_fn(network), jax.tree.map(lambda w: w[None], template))
        return prior_control(key, one, config.posterior_samples), {}

    def train() -> InferenceResult:
        checkpoints = run.checkpoints(name, config.checkpoint_every)
        module, settings = _method(config, method, size)
        data, held_out = (
            to_data(_points(config, manifold, count, purpose, seed))
            for count, purpose in ((size, TRAIN), (config.num_test, TEST))
        )
        options = RunOptions(held_out=held_out, checkpoints=checkpoints)
        result = module.run(key, network, data, settings, options)
        # A wrong prediction without doubt has an infinite loss, which JSON does not know.
        return result._replace(diagnostics=_finite(result.diagnostics))

    return cached_posterior(run, name, network, (dim,), train)


def _measure(
    config: Config,
    manifold: str,
    seed: int,
    posterior: Posterior,
    diagnostics: dict[str, Any],
) -> dict[str, Any]:
    """Return accuracy, diagnostics, and the mean gradients of both kinds in all directions."""
    shape = list_shapes(config)[manifold]
    points = _points(config, manifold, config.num_probe, PROBE, seed)
    test = to_data(_points(config, manifold, config.num_test, TEST, seed))
    x, y = jnp.asarray(points.x), jnp.asarray(points.y)
    frame = embedding_frame(shape)
    # Normal directions inside the subspace that holds the manifold, and those across it.
    inside = frame - points.tangent @ (np.swapaxes(points.tangent, 1, 2) @ frame)
    within = np.linalg.svd(inside, full_matrices=False)[0][..., :1]
    across = np.linalg.qr(frame, mode="complete").Q[:, frame.shape[1] :]
    bases = {"tangent": points.tangent, "within": within}
    if across.shape[1]:
        bases["across"] = np.broadcast_to(across, (len(y), *across.shape))
    record: dict[str, Any] = {
        "accuracy": accuracy(predict_log_probs(posterior, test.x), test.y),
        "diagnostics": {key: diagnostics[key] for key in MIXING_KEYS if key in diagnostics},
    }
    counts = _counts(posterior.num_samples)
    for kind, scalar in zip(("loss", "score"), LOSSES["cross_entropy"], strict=True):
        gradients = np.asarray(draw_gradients(scalar, posterior, x, y))
        for part, basis in bases.items():
            projected = np.einsum("snd,ndk->snk", gradients, basis)
            found = mean_gradient(projected, config.hmc_chains, counts, seed=config.seed)
            # Four digits: this goes into the results once a posterior, part and kind.
            numbers = {key: _round(getattr(found, key)) for key in ("square", "typical", "zeros")}
            if part != "tangent":
                numbers |= {"counts": counts, "norms": _round(found.norms)}
            record[f"{kind}_{part}"] = numbers
    return record


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in values.items()
    }


def _round(values: Any) -> Any:
    digits = [float(f"{value:.4g}") for value in np.atleast_1d(values)]
    return digits if np.ndim(values) else digits[0]


def _counts(total: int) -> list[int]:
    """Return 1, 3, 10, 30, ... and the number of draws itself."""
    ladder = [step * 10**power for power in range(7) for step in (1, 3)]
    return [count for count in ladder if count < total] + [total]


def _method(config: Config, method: str, size: int) -> tuple[Any, Any]:
    """Return a method's module and settings."""
    if method == "hmc":
        return hmc, hmc.Config(
            num_samples=config.posterior_samples // config.hmc_chains,
            num_warmup=config.hmc_warmup,
            thinning=config.hmc_thinning,
            num_chains=config.hmc_chains,
            num_integration_steps=config.hmc_leapfrog,
            step_size=0.01,
        )
    batch = min(size, config.minibatch_size)
    if method == "vi":
        return svi, svi.Config(
            num_samples=config.posterior_samples,
            num_epochs=config.vi_epochs,
            learning_rate=0.01,
            minibatch_size=batch,
        )
    return sgd, sgd.Config(
        num_members=config.ensemble_members,
        num_epochs=config.ensemble_epochs,
        learning_rate=0.01,
        minibatch_size=batch,
    )
