"""Train posteriors, attack them, print an honest table.

  python -m experiments.compare --preset=digits --workdir=runs/digits
  python -m experiments.compare --preset=table2_mnist --data_dir=DIR --workdir=runs/mnist

Running the same command again resumes a run that was stopped; on a finished one it prints the
table. A flag given on the command line wins over the preset, a preset over the default.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from absl import app, flags
from jax.sharding import Mesh

from bnn_adv.compute import files, parallel
from bnn_adv.compute.interruption import exit_on_signals
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.evaluation.suites import get_protocol
from bnn_adv.report import Example, format_table, write_report
from experiments.launch import config as config_flags
from experiments.launch import runtime
from experiments.launch.attacking import attack_or_load, describe_examples
from experiments.launch.compare_config import EvaluateConfig, validate
from experiments.launch.config import config_from_flags, define_flags, to_json
from experiments.launch.presets import PRESETS
from experiments.launch.run_directory import RunDirectory, describe_command
from experiments.launch.runtime import RuntimeConfig
from experiments.launch.training import check_networks, train_or_load

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Run the experiment that the flags describe."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    try:
        config = config_from_flags(EvaluateConfig, PRESETS)
        validate(config)
        mesh = runtime.start(config_from_flags(RuntimeConfig))
        evaluate(config, FLAGS.workdir, preset=FLAGS.preset, mesh=mesh)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def evaluate(
    config: EvaluateConfig,
    workdir: str,
    *,
    preset: str = "",
    mesh: Mesh | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      config: Every setting.
      workdir: The run directory.
      preset: Name of the preset, for the record.
      mesh: Devices to split the work over.
      quiet: Print no table.

    Raises:
      ValueError: A setting is out of range, or the folder holds another run.
      OSError: The folder cannot be written to.
    """
    validate(config)
    if config.draws_on_disk and mesh is not None:
        raise ValueError("--draws_on_disk works on one device: leave out --mesh, or the flag.")
    dataset = load_dataset(
        config.dataset,
        config.data_dir or None,
        num_train=config.num_train or None,
        num_test=config.num_test or None,
        seed=config.seed,
    )
    check_networks(config, dataset)
    record = {**to_json(config), "preset": preset}
    run = RunDirectory(workdir, "evaluate", record, describe_command("experiments.compare"))
    results = run.read_results()
    if results is None:
        results = _work(config, preset, dataset, run, mesh)
    elif not quiet:
        print(f"{run.path} holds a finished run of this command.\n")
    if parallel.is_writer() and not quiet:
        print(format_table(results))
        print(f"\nReport: {run.path / 'report.html'}")
    return results


def _work(
    config: EvaluateConfig,
    preset: str,
    dataset: Dataset,
    run: RunDirectory,
    mesh: Mesh | None,
) -> dict[str, Any]:
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {
        "indices": np.arange(len(dataset.y_test)),
        "x": dataset.x_test,
        "y": dataset.y_test,
    }
    examples: list[Example] = []
    for model in config.models:
        trained = train_or_load(config, model, dataset, run, mesh)
        row, adversarial = attack_or_load(config, model, trained, dataset, run, mesh)
        rows.append(row)
        arrays |= adversarial
        examples += describe_examples(config, model, trained, dataset, adversarial, mesh)
    results = {
        "schema_version": 1,
        "experiment": "evaluate",
        "preset": preset or None,
        "dataset": config.dataset,
        "num_train": len(dataset.y_train),
        "num_test": len(dataset.y_test),
        "epsilon": config.epsilon,
        "norm": config.norm,
        "seed": config.seed,
        "mesh": None if mesh is None else dict(mesh.shape),
        "protocols": {name: get_protocol(name).description for name in config.protocol},
        "rows": rows,
        "seconds": round(sum(sum(row["seconds"].values()) for row in rows), 1),
        "command": run.command,
        "environment": run.environment,
        "environments": run.environments,
        "config": {key: value for key, value in to_json(config).items() if key != "data_dir"},
    }
    diagnostics = {row["model"]: row["diagnostics"] for row in rows}
    run.write(files.write_json, "diagnostics.json", diagnostics)
    run.write(files.write_arrays, "adversarial.npz", arrays)
    run.write(lambda path, _: write_report(path, results, examples), ".", None)
    run.finish(results)
    run.log(stage="finished", seconds=round(time.monotonic() - started, 1))
    return results


def define_all_flags() -> None:
    """Define the flags; not on import, for other experiments in the process have theirs."""
    flags.DEFINE_string("preset", "", f"Named settings: {', '.join(PRESETS)}.")
    flags.DEFINE_string("workdir", "runs/evaluate", "Run directory; made, resumed or reprinted.")
    define_flags(EvaluateConfig)
    define_flags(RuntimeConfig)
    # --help shows the flags of the main module; these were defined on its behalf.
    flags.adopt_module_key_flags(config_flags)


if __name__ == "__main__":
    define_all_flags()
    with exit_on_signals("Interrupted; the same command continues this run."):
        app.run(main)
