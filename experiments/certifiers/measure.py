"""Bound single networks by both sides, and try every tool on cases with known answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from bnn_adv.attacks.threat import LInf
from bnn_adv.certification import CertificationSettings, certify
from bnn_adv.certification.referee_balls import open_ball
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from experiments.certifiers.children import call, find_python
from experiments.certifiers.config import Config
from experiments.certifiers.networks import NETWORKS, export, make_trap, train, trap_posterior
from experiments.launch import stages
from experiments.launch.run_directory import RunDirectory

METHODS: tuple[Literal["ibp", "crown", "alpha-crown"], ...] = ("ibp", "crown", "alpha-crown")
"""Of both sides."""


def measure_all(config: Config, run: RunDirectory) -> dict[str, Any]:
    """Return all that the report shows, as JSON values; every part is a stage."""
    dataset = load_dataset(
        "digits", num_train=config.num_train or None, num_test=config.num_images, seed=config.seed
    )
    stages.note_data(run, dataset)
    return {
        "networks": [_margins(config, run, dataset, name) for name in NETWORKS],
        "trap": stages.cached(run, "trap", lambda: _trap(config)),
        "jax": stages.cached(run, "jax", lambda: _jax(config)),
    }


def _margins(config: Config, run: RunDirectory, dataset: Dataset, name: str) -> dict[str, Any]:
    number = list(NETWORKS).index(name)
    key = jax.random.fold_in(jax.random.key(config.seed), number)

    def compute() -> dict[str, Any]:
        posterior = train(key, name, dataset, config.num_epochs)
        pairs = [
            _compare(config, posterior, dataset.x_test, dataset.y_test, epsilon)
            for epsilon in config.epsilons
        ]
        return {"network": name, "radii": pairs}

    return stages.cached(run, f"margins-{number}", compute)


def _compare(
    config: Config, posterior: Posterior, x: np.ndarray, y: np.ndarray, epsilon: float
) -> dict[str, Any]:
    """Return margins of one network by both sides, of the inputs that it classifies correctly."""
    logits = np.asarray(predict_log_probs(posterior, x))
    x, y = (values[logits.argmax(axis=1) == y] for values in (x, y))
    if not len(x):
        raise ValueError(
            "A network classifies none of the images correctly, and none is bounded: give a larger "
            "--num_epochs or --num_images."
        )
    ours: dict[str, Any] = {}
    for method in METHODS:
        settings = CertificationSettings(method=method, num_rounds=config.num_iterations)
        found = certify(posterior, x, y, threat=LInf(epsilon), settings=settings)
        ours[method] = found.margin.tolist()
    record = {"epsilon": epsilon, "num_images": len(x), "ours": ours, "theirs": None}
    python = find_python(config.venvs, "auto_lirpa")
    if python is None:
        return record
    # The very boxes that ours are about, which allow for the rounding of inputs.
    ball = open_ball("linf", x, np.full(len(x), epsilon), (0.0, 1.0))
    boxes = {"lower": ball.x + ball.low, "upper": ball.x + ball.high}
    with tempfile.TemporaryDirectory() as folder:
        asked = {"y": y, "iterations": np.asarray(config.num_iterations)}
        arrays: dict[str, Any] = {**export(posterior.samples), **boxes, **asked}
        np.savez(Path(folder, "network.npz"), **arrays)
        said = call(python, "auto_lirpa", f"{folder}/network.npz", f"{folder}/bounds.npz")
        with np.load(Path(folder, "bounds.npz"), allow_pickle=False) as stored:
            theirs = {method: stored[method].tolist() for method in METHODS}
    return record | {"theirs": theirs, "versions": said["versions"]}


def _trap(config: Config) -> dict[str, Any]:
    """Return what is reachable of the two draws, what we say, and what deepbayes says."""
    trap = make_trap()
    posterior, x = trap_posterior(trap), trap["x"]
    epsilon = float(trap["epsilon"])
    grid = np.linspace(0.0, x[0, 0] + epsilon, 601, dtype=np.float32)[:, None]
    probabilities = np.exp(np.asarray(predict_log_probs(posterior, grid), np.float64))
    worst = int((probabilities[:, 0] - probabilities[:, 1]).argmin())
    found = certify(posterior, x, np.zeros(1, np.int64), threat=LInf(epsilon))
    logits = np.einsum("nd,sdc->snc", grid, trap["w"]) + trap["b"][:, None]
    differences = (logits[..., 2] - logits[..., 0]).sum(axis=0)
    record = {
        "clean": np.exp(np.asarray(predict_log_probs(posterior, x)))[0, :3].tolist(),
        "reached_at": float(grid[worst, 0]),
        "reached": probabilities[worst, :3].tolist(),
        "certified": bool(found.certified[0]),
        "reached_difference": float(differences.min()),
        "deepbayes": None,
    }
    python = find_python(config.venvs, "deepbayes")
    if python is not None:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder, "two_draws.npz"), **trap)  # type: ignore[arg-type]
            record["deepbayes"] = call(python, "deepbayes", folder)
    return record


def _jax(config: Config) -> dict[str, Any]:
    python = find_python(config.venvs, "jax")
    return {"found": None if python is None else call(python, "jax", str(config.num_points))}
