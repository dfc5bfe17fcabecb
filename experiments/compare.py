"""Train posteriors by several methods, attack them, print an honest table.

  python -m experiments.compare --preset=digits --workdir=runs/digits
  python -m experiments.compare --methods=vi,hmc --network=mlp --mlp.hidden=64 --hmc.num_chains=4

Every method and every network has flags of its own; a method has a network of its own with
--hmc.network=mlp --hmc.mlp.hidden=32. A method, network, data set or suite of your own is named as
package.module, or package.module:Name. Running the same command again resumes a run that was
stopped; on a finished one it prints the table. A flag given on the command line wins over the
preset, a preset over the default.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from jax.sharding import Mesh

from bnn_adv.compute import files, parallel
from bnn_adv.data import Dataset, hash_data, load_dataset
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.inference.records import ChainRecord
from bnn_adv.report import Example, format_table, write_report
from experiments.launch import runtime, stages
from experiments.launch.attacking import attack_or_load, describe_examples
from experiments.launch.compare_config import (
    Comparison,
    DataConfig,
    define_compare_flags,
    make_comparison,
)
from experiments.launch.config import choose_preset, define_flags, make, read_flags
from experiments.launch.entry import start
from experiments.launch.log_densities import compare_rows, log_density_table
from experiments.launch.paper import list_paper_tables
from experiments.launch.presets import PRESETS
from experiments.launch.run_directory import RunDirectory, describe_command
from experiments.launch.runtime import RuntimeConfig
from experiments.launch.training import check_networks, train_or_load

FLAGS = flags.FLAGS


def define_all_flags(argv: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> None:
    """Define the flags that a command line may use."""
    flags.DEFINE_string(
        "preset", "", f"Named settings: {', '.join(PRESETS)}.", flag_values=flag_values
    )
    flags.DEFINE_string(
        "workdir",
        "runs/compare",
        "Run directory; made, resumed or reprinted.",
        flag_values=flag_values,
    )
    define_compare_flags(argv, flag_values)
    define_flags(RuntimeConfig, flag_values=flag_values)


def main(flag_values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Run the experiment that the flags describe."""
    given = read_flags(flag_values)
    preset, workdir = str(flag_values["preset"].value), str(flag_values["workdir"].value)
    comparison = make_comparison({**choose_preset(PRESETS, preset), **given})
    mesh = runtime.start(make(RuntimeConfig, given))
    return compare(comparison, workdir, preset=preset, mesh=mesh)


def compare(
    comparison: Comparison,
    workdir: str,
    *,
    preset: str = "",
    mesh: Mesh | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      comparison: Every setting.
      workdir: The run directory.
      preset: Name of the preset, for the record.
      mesh: Devices to split the work over.
      quiet: Print no table.

    Raises:
      ValueError: A setting is out of range, or the folder holds another run.
      OSError: The folder cannot be written to.
    """
    config = comparison.config
    if config.draws_on_disk and mesh is not None:
        raise ValueError("--draws_on_disk works on one device: leave out --mesh, or the flag.")
    dataset = load_data(config)
    check_networks(comparison.rows, dataset)
    record = {**comparison.to_json(), "preset": preset, "data_hash": hash_data(dataset)}
    run = RunDirectory(workdir, "evaluate", record, describe_command("experiments.compare"))
    results = run.read_results()
    if results is None:
        results = _work(comparison, preset, dataset, run, mesh)
    elif not quiet:
        print(f"{run.path} holds a finished run of this command.\n")
    if parallel.is_writer() and not quiet:
        print(format_table(results))
        print(f"\nReport: {run.path / 'report.html'}")
    return results


def load_data(config: DataConfig) -> Dataset:
    """Return the data set that settings name.

    Raises:
      ValueError: It is unknown or absent, or smaller than what is asked of it.
    """
    return load_dataset(
        config.dataset,
        config.data_dir or None,
        num_train=config.num_train or None,
        num_test=config.num_test or None,
        seed=config.seed,
    )


def _work(
    comparison: Comparison,
    preset: str,
    dataset: Dataset,
    run: RunDirectory,
    mesh: Mesh | None,
) -> dict[str, Any]:
    started, config = time.monotonic(), comparison.config
    stages.note_suites(run, map(get_suite, config.suites))
    rows: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {
        "indices": np.arange(len(dataset.y_test)),
        "x": dataset.x_test,
        "y": dataset.y_test,
    }
    examples: list[Example] = []
    chains: dict[str, ChainRecord] = {}
    for method in comparison.rows:
        trained = train_or_load(config, method, dataset, run, mesh)
        row, adversarial = attack_or_load(config, method, trained, dataset, run, mesh)
        rows.append(row)
        if trained.chains is not None:
            chains[method.name] = trained.chains
        arrays |= adversarial
        examples += describe_examples(config, method, trained, dataset, adversarial, mesh)
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
        "protocols": {name: get_suite(name).description for name in config.suites},
        "rows": rows,
        "seconds": round(sum(sum(row["seconds"].values()) for row in rows), 1),
        "command": run.command,
        "environment": run.environment,
        "environments": run.environments,
        "config": {key: value for key, value in comparison.to_json().items() if key != "data_dir"},
    }
    diagnostics = {row["model"]: row["diagnostics"] for row in rows}
    if pairs := compare_rows(comparison.rows, diagnostics):
        results["log_densities"] = pairs
    run.write(files.write_json, "diagnostics.json", diagnostics)
    run.write(files.write_arrays, "adversarial.npz", arrays)
    beside = [*list_paper_tables(results), *log_density_table(pairs)]
    run.write(
        lambda path, _: write_report(path, results, examples, extra=beside, chains=chains),
        ".",
        None,
    )
    run.finish(results)
    run.log(stage="finished", seconds=round(time.monotonic() - started, 1))
    return results


if __name__ == "__main__":
    start(define_all_flags, main, __doc__)
