"""Run one experiment into a run directory, and launch it from the command line."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, Protocol

from absl import flags

from bnn_adv.compute import files, parallel
from bnn_adv.report.style import paper_style, to_png
from experiments.launch import runtime, stages
from experiments.launch.config import (
    Presets,
    choose_preset,
    define_flags,
    make,
    read_flags,
    to_json,
)
from experiments.launch.entry import start
from experiments.launch.pages import render_study
from experiments.launch.run_directory import RunDirectory, describe_command
from experiments.launch.runtime import CacheConfig
from experiments.launch.tables import Study, format_study, to_record

SCALES = ("smoke", "cpu", "paper")
"""Sizes of an experiment: seconds; minutes to an hour on two cores; the paper's."""


class Run(Protocol):
    """What an experiment's ``run`` takes and returns."""

    def __call__(self, config: Any, workdir: str, *, scale: str = "") -> dict[str, Any]:
        """Fill ``workdir`` and return the results."""


def run_study(
    name: str,
    config: Any,
    workdir: str,
    work: Callable[[Any, RunDirectory], Study],
    *,
    scale: str = "",
    quiet: bool = False,
    check: Callable[[Any], object] | None = None,
    hash_inputs: Callable[[Any], Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Fill a run directory and return its results; a finished one is read back.

    Args:
      name: Module of the experiment.
      config: Its settings, a frozen dataclass with a field ``seed``.
      workdir: The run directory.
      work: Computes the study; its stages resume (``experiments.launch.stages``).
      scale: Name of the scale, for the record.
      quiet: Print nothing.
      check: Takes the settings and raises where the data do not allow the run; called before the
        folder is made, and not where it holds a finished run.
      hash_inputs: Takes the settings and returns hashes of what else the results follow from, by
        name, or raises ValueError where that is missing: a folder whose results follow from others
        is of another run. A finished run whose inputs are gone is read back all the same.

    Raises:
      ValueError: The folder holds another run, or what ``check`` raises.
      OSError: The folder cannot be written to.
    """
    is_finished = (Path(workdir).expanduser() / "results.json").exists()
    if check is not None and not parallel.agree(is_finished):
        check(config)
    record = {**to_json(config), "scale": scale}
    if hash_inputs is not None:
        record |= _hash(hash_inputs, config, Path(workdir).expanduser(), set(record), is_finished)
    run = RunDirectory(workdir, name, record, describe_command(f"experiments.{name}"))
    results = run.read_results()
    if results is None:
        results = _write(run, name, config, scale, work(config, run))
    if parallel.is_writer() and not quiet:
        print(format_study(results))
        print(f"Report: {run.path / 'report.html'}")
    return results


def _hash(
    hash_inputs: Callable[[Any], Mapping[str, str]],
    config: Any,
    folder: Path,
    known: set[str],
    is_finished: bool,
) -> Mapping[str, str]:
    """Return hashes of what results follow from; those noted where a finished run's are gone."""
    try:
        return hash_inputs(config)
    except ValueError:
        if not parallel.agree(is_finished):
            raise
        stored = files.read_json(folder / "config.json")
        return {key: stored[key] for key in stored.keys() - known - {"experiment", "jax_settings"}}


def launch(name: str, config_class: type, scales: Presets, run: Run, doc: str | None) -> None:
    """Define flags, parse the command line, and run an experiment.

    Args:
      name: Its package.
      config_class: Its settings; every field becomes a flag.
      scales: Settings by name of scale; a flag that is given wins.
      run: The experiment.
      doc: Text for ``--help``.
    """

    def define(argv: Sequence[str]) -> None:
        define_study_flags(name, config_class, scales)

    start(define, lambda: run_flags(config_class, scales, run), doc, errors=(BrokenExecutor,))


def define_study_flags(
    name: str, config_class: type, scales: Presets, flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Define the flags of an experiment, see ``launch``."""
    target: Any = {"flag_values": flag_values}
    flags.DEFINE_string(
        "workdir", f"runs/{name}", "Run directory; made, resumed or reprinted.", **target
    )
    flags.DEFINE_string(
        "scale", "", f"Named settings: {', '.join(scales)}; empty: defaults.", **target
    )
    define_flags(config_class, flag_values=flag_values)
    define_flags(CacheConfig, flag_values=flag_values)


def run_flags(
    config_class: type, scales: Presets, run: Run, flag_values: flags.FlagValues = flags.FLAGS
) -> dict[str, Any]:
    """Run an experiment as its flags say, and return its results; see ``launch``."""
    scale, given = str(flag_values["scale"].value), read_flags(flag_values)
    config = make(config_class, {**choose_preset(scales, scale, flag="scale"), **given})
    runtime.cache_programs(make(CacheConfig, given))
    if scale == "smoke":
        runtime.compile_quickly()
    return run(config, str(flag_values["workdir"].value), scale=scale)


def read_figures(folder: Path, record: dict[str, Any]) -> dict[str, bytes]:
    """Return the PNG files of a run by their names in its record."""
    return {f["file"]: (folder / f["file"]).read_bytes() for f in record["figures"]}


def _write(run: RunDirectory, name: str, config: Any, scale: str, study: Study) -> dict[str, Any]:
    results = {
        "schema_version": 1,
        "experiment": name,
        "scale": scale or None,
        **to_record(study),
        "seed": config.seed,
        "seconds": round(stages.spent(run), 1),
        "command": run.command,
        "environment": run.environment,
        "environments": run.environments,
        "sources": {**stages.networks_claimed(run), **run.noted, **run.suites},
        "config": {key: value for key, value in to_json(config).items() if key != "data_dir"},
    }
    for plot in study.plots:
        run.write(write_bytes, f"figures/{plot.name}.png", to_png(plot.figure))
        run.write(write_bytes, f"figures/{plot.name}.pdf", _to_pdf(plot.figure))
    if parallel.is_writer():
        page = render_study(results, read_figures(run.path, results))
        run.write(files.write_text, "report.html", page)
    run.finish(results)
    return results


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file, atomically."""
    with files.atomic_writer(path) as file:
        file.write(content)


def _to_pdf(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with paper_style():
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()
