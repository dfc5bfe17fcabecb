"""Run every study, the paper's experiments among them, into one folder, and write one page.

  python -m experiments.reproduce --scale=cpu --data_dir=DIR --workdir=runs/reproduce
  python -m experiments.reproduce --scale=smoke --only=table2,geometry
  python -m experiments.reproduce --scale=cpu --only=samplers

Every experiment has a run directory of its own within the folder. Running the same command again
resumes where it was stopped; what is finished is read back.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from bnn_adv.compute import files
from bnn_adv.compute.settings import Settings, data_folder, seed, setting
from bnn_adv.report.table import Table
from experiments.launch import runtime
from experiments.launch.config import define_flags, make, read_flags
from experiments.launch.entry import start
from experiments.launch.pages import render_studies
from experiments.launch.run_directory import describe_command, describe_environment
from experiments.launch.runtime import CacheConfig
from experiments.launch.study import SCALES, read_figures
from experiments.launch.tables import claims_table, verdicts_table

FLAGS = flags.FLAGS

APART = ("certifiers", "zoo")
"""Studies of what is not in the paper that need environments of their own, or many hours."""

ITEMS = (
    "table2",
    "ensembles",
    "half_moons",
    "loss_gradients",
    "robustness_accuracy",
    "bayesian_gain",
    "protocol_ablation",
    "geometry",
    "samplers",
)
"""Experiments in the order of the page: all studies but ``APART``. Each is a module with
``Config``, ``SCALES``, ``run``, and ``check`` where it reads data."""


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.reproduce``."""

    scale: str = setting(
        "cpu",
        "smoke: minutes, to see that everything runs; cpu: hours on two cores; paper: sized for "
        "one data-centre GPU.",
        choices=SCALES,
    )
    only: tuple[str, ...] = setting(
        (), "Experiments to run; empty: all.", choices=ITEMS, is_distinct=True
    )
    data_dir: str = data_folder()
    seed: int = seed()


def define_all_flags(argv: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> None:
    """Define the flags."""
    flags.DEFINE_string(
        "workdir",
        "runs/reproduce",
        "Folder; made, resumed or reprinted.",
        flag_values=flag_values,
    )
    define_flags(Config, flag_values=flag_values)
    define_flags(CacheConfig, flag_values=flag_values)


def main(flag_values: flags.FlagValues = FLAGS) -> list[dict[str, Any]]:
    """Run the experiments that the flags name."""
    given = read_flags(flag_values)
    config = make(Config, given)
    runtime.cache_programs(make(CacheConfig, given))
    if config.scale == "smoke":
        runtime.compile_quickly()
    return reproduce(config, str(flag_values["workdir"].value))


def reproduce(config: Config, workdir: str) -> list[dict[str, Any]]:
    """Run experiments one after the other, and write the page that shows all that are finished.

    Args:
      config: Every setting.
      workdir: Folder for the experiments' run directories, ``report.html`` and ``results.json``.

    Returns:
      The results of each experiment.

    Raises:
      ValueError: Data are absent, or a folder holds another run.
      OSError: The folder cannot be written to.
    """
    folder = Path(workdir).expanduser()
    if folder.exists() and any(folder.iterdir()) and not (folder / "reproduce.json").exists():
        raise ValueError(
            f"{folder} is not empty and holds no reproduction. Give an empty or new folder to "
            "--workdir."
        )
    chosen = {
        name: importlib.import_module(f"experiments.{name}.__main__")
        for name in ITEMS
        if not config.only or name in config.only
    }
    for name, item in chosen.items():
        # What the last experiment lacks is said before the first one has taken its hours.
        check = getattr(item, "check", None)
        if check is not None and not (folder / name / "results.json").exists():
            check(item_config(item, config))
    files.write_json(
        folder / "reproduce.json", {"command": describe_command("experiments.reproduce")}
    )
    for name, item in chosen.items():
        started = time.monotonic()
        print(f"== {name}, scale {config.scale}", file=sys.stderr, flush=True)
        item.run(item_config(item, config), str(folder / name), scale=config.scale)
        # After each: whoever stops here has a page of what is done.
        write_page(folder, config.scale)
        seconds = time.monotonic() - started
        print(f"== {name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    print(f"Report: {folder / 'report.html'}")
    return [results for _, results in _finished(folder)]


def item_config(item: Any, config: Config) -> Any:
    """Return the settings of an experiment at a scale.

    Args:
      item: The experiment's module.
      config: What all experiments share.
    """
    names = {field.name for field in dataclasses.fields(item.Config)}
    shared = {"data_dir": config.data_dir, "seed": config.seed}
    return item.Config(
        **item.SCALES[config.scale] | {k: v for k, v in shared.items() if k in names}
    )


def write_page(folder: Path, scale: str) -> None:
    """Write ``report.html`` and ``results.json`` of all experiments that are finished.

    Args:
      folder: Where their run directories lie.
      scale: Name of the scale.
    """
    finished = _finished(folder)
    claims = [claim for _, results in finished for claim in results["claims"]]
    verdicts = [verdict for _, results in finished for verdict in results["verdicts"]]
    environment = describe_environment()
    times = Table(
        "Experiments",
        ("experiment", "seconds", "seed", "command"),
        tuple(
            (name, results["seconds"], results["seed"], _own_command(name, results))
            for name, results in finished
        ),
        "Each command repeats one experiment by itself; --data_dir names the folder of the data.",
    )
    tables = [claims_table(claims), verdicts_table(verdicts), times]
    summary = (
        "The experiments of Carbone et al. (NeurIPS 2020), and studies beside them, at scale "
        f"{scale}, on "
        f"{environment['cpu_count']} x {environment['cpu']} ({environment['device']}), Python "
        f"{environment['python']}, JAX {environment['jax']}. Numbers under published and corrected "
        "attacks are upper bounds: what those attacks failed to break."
    )
    page = render_studies(
        "Robustness of Bayesian neural networks to gradient-based attacks, reproduced",
        summary,
        [table for table in tables if table is not None],
        [(results, read_figures(folder / name, results)) for name, results in finished],
    )
    files.write_text(folder / "report.html", page)
    record = {
        "schema_version": 1,
        "experiment": "reproduce",
        "scale": scale,
        "claims": claims,
        "verdicts": verdicts,
        "seconds": {name: results["seconds"] for name, results in finished},
        "environment": environment,
    }
    files.write_json(folder / "results.json", record)


def _finished(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    paths = ((name, folder / name / "results.json") for name in ITEMS)
    return [(name, files.read_json(path)) for name, path in paths if path.exists()]


def _own_command(name: str, results: dict[str, Any]) -> str:
    return f"python -m experiments.{name} --scale={results['scale']} --seed={results['seed']}"


if __name__ == "__main__":
    start(define_all_flags, main, __doc__)
