"""Semantic shift of a posterior in a run directory: which inputs, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

import bnn_adv
from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import files
from bnn_adv.compute.canonical import digest
from bnn_adv.data import Dataset, load_ood
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.report.style import to_png
from experiments.launch.attack_config import AttackConfig
from experiments.launch.run_directory import RunDirectory

Outside = dict[str, np.ndarray]
"""Inputs out of distribution by name of their kind."""


def load_outside(config: AttackConfig, dataset: Dataset) -> Outside:
    """Return the inputs out of distribution that are asked for.

    Raises:
      DatasetError: There are none of that name, or they are of another shape.
    """
    return {
        name: load_ood(
            name, dataset, config.data_dir or None, count=config.num_shift, seed=config.seed
        )
        for name in config.shift
    }


def hash_outside(outside: Outside) -> dict[str, str]:
    """Return the hash of inputs out of distribution, nothing where there are none."""
    return {"shift_hash": digest(outside, "shift")} if outside else {}


def measure_shift(
    config: AttackConfig,
    posterior: Posterior,
    dataset: Dataset,
    outside: Outside,
    run: RunDirectory,
    mesh: Mesh | None,
) -> dict[str, Any]:
    """Evaluate every kind, write ``shift/NAME.npz`` and its figure, and return the records."""
    count = min(config.num_shift, len(dataset.y_test))
    drawn = np.random.default_rng(config.seed).choice(len(dataset.y_test), count, replace=False)
    rows, records = np.sort(drawn), {}
    for name, x_out in outside.items():
        file = name.replace("/", "_").replace(":", "_")
        report = bnn_adv.evaluate_shift(
            posterior,
            dataset.x_test[rows],
            dataset.y_test[rows],
            x_out,
            threat=THREATS[config.norm](float(config.epsilon or 0.0)),
            rng_key=jax.random.key(config.seed),
            settings=bnn_adv.ShiftSettings(
                config.batch_size,
                config.sample_chunk or None,
                mesh,
                run.checkpoints(f"shift-{file}", config.checkpoint_every),
            ),
        )
        run.write(files.write_arrays, f"shift/{file}.npz", report.arrays)
        run.write(_write_bytes, f"figures/shift_{file}.png", to_png(report.plot()))
        records[name] = report.to_dict()
    return records


def _write_bytes(path: Path, content: bytes) -> None:
    with files.atomic_writer(path) as file:
        file.write(content)
