"""Evaluate a trained posterior: a suite of attacks, signs of masking, one page.

  python -m experiments.attack --posterior=runs/demo --model=vi --suite=full --workdir=runs/attack
  python -m experiments.attack --posterior=draws.npz --dataset=mnist --architecture=fc --hidden=512

The posterior is a run directory of ``experiments.compare``, which knows its network and data, or a
file that ``posteriors.posterior.save_posterior`` wrote. Running the same command again resumes a
run that was stopped; on a finished one it prints the table.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
from absl import app, flags
from jax.sharding import Mesh

import bnn_adv
from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import files, parallel
from bnn_adv.compute.interruption import exit_on_signals
from bnn_adv.data import load_dataset
from bnn_adv.evaluation import Settings
from bnn_adv.posteriors.posterior import hash_draws
from bnn_adv.report.evaluation import format_evaluation
from bnn_adv.report.evaluation_page import render_evaluation
from bnn_adv.report.robustness_curve import curve_figure
from bnn_adv.report.style import to_png
from experiments.launch import config as config_flags
from experiments.launch import runtime
from experiments.launch.attack_config import (
    AttackConfig,
    describe_posterior,
    read_posterior,
    validate,
)
from experiments.launch.config import config_from_flags, define_flags, to_json
from experiments.launch.progress import progress
from experiments.launch.run_directory import RunDirectory, describe_command
from experiments.launch.runtime import RuntimeConfig

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Run the evaluation that the flags describe."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    try:
        config = config_from_flags(AttackConfig)
        validate(config)
        mesh = runtime.start(config_from_flags(RuntimeConfig))
        attack(config, FLAGS.workdir, mesh=mesh)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def attack(config: AttackConfig, workdir: str, *, mesh: Mesh | None = None) -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      config: Every setting.
      workdir: The run directory.
      mesh: Devices to split the work over.

    Raises:
      ValueError: A setting is out of range, the posterior does not fit, or the folder holds another
        run.
      OSError: A file cannot be read or written.
    """
    validate(config)
    config = describe_posterior(config)
    dataset = load_dataset(
        config.dataset,
        config.data_dir or None,
        num_test=config.num_test or None,
        seed=config.seed,
    )
    posterior, diagnostics = read_posterior(config, dataset, mesh)
    # Draws that were replaced since are those of another run.
    record = {**to_json(config), "draws_hash": hash_draws(posterior)}
    run = RunDirectory(workdir, "attack", record, describe_command("experiments.attack"))
    results = run.read_results()
    if results is not None:
        print(f"{run.path} holds a finished run of this command.\n")
    else:
        results = _work(config, posterior, diagnostics, dataset, run, mesh)
    if parallel.is_writer():
        print(format_evaluation(results))
        print(f"Report: {run.path / 'report.html'}")
    return results


def _work(
    config: AttackConfig,
    posterior: bnn_adv.Posterior,
    diagnostics: dict[str, Any],
    dataset: Any,
    run: RunDirectory,
    mesh: Mesh | None,
) -> dict[str, Any]:
    chunk = config.sample_chunk or None
    with progress(config.suite, "image-steps") as report:
        evaluation = bnn_adv.evaluate(
            posterior,
            dataset.x_test,
            dataset.y_test,
            threat=THREATS[config.norm](config.epsilon),
            rng_key=jax.random.key(config.seed),
            suite=config.suite,
            num_probe=config.num_probe,
            num_curve=config.num_curve,
            min_ess=diagnostics.get("min_ess"),
            settings=Settings(config.batch_size, chunk, mesh),
            progress=lambda name, done, total: report(done, total, label=name),
            checkpoints=run.checkpoints("attacks", config.checkpoint_every),
        )
    results = {
        **evaluation.record,
        "dataset": config.dataset,
        "model": config.model or None,
        "seed": config.seed,
        "mesh": None if mesh is None else dict(mesh.shape),
        "command": run.command,
        "environment": run.environment,
        "environments": run.environments,
        "config": {
            key: value
            for key, value in to_json(config).items()
            if key not in ("data_dir", "posterior")
        },
    }
    figure = curve_figure(results)
    run.write(lambda path, value: evaluation.save_adversarial(path), "adversarial.npz", None)
    if figure is not None:
        run.write(_write_bytes, "figures/curve.png", to_png(figure))
    run.write(files.write_text, "report.html", render_evaluation(results))
    run.finish(results)
    return results


def _write_bytes(path: Any, content: bytes) -> None:
    with files.atomic_writer(path) as file:
        file.write(content)


if __name__ == "__main__":
    flags.DEFINE_string("workdir", "runs/attack", "Run directory; made, resumed or reprinted.")
    define_flags(AttackConfig)
    define_flags(RuntimeConfig)
    # --help shows the flags of the main module; these were defined on its behalf.
    flags.adopt_module_key_flags(config_flags)
    with exit_on_signals("Interrupted; the same command continues this run."):
        app.run(main)
