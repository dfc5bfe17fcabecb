"""Table 2 of the paper: deterministic, ensemble and variational networks under attack.

  python -m experiments.table2 --scale=cpu --data_dir=DIR --workdir=runs/table2

The rows are those of ``experiments.compare``, whose run directory lies within this one.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from bnn_adv.compute.settings import Settings, seed, setting
from bnn_adv.report.captions import figure_captions, legend
from bnn_adv.report.figures import accuracy_figure
from bnn_adv.report.run_table import table_groups
from bnn_adv.report.summary import summarise
from bnn_adv.report.table import Table
from bnn_adv.report.wording import format_attack
from experiments.compare import compare, load_data
from experiments.launch import stages
from experiments.launch.compare_config import Comparison, check_preset, make_comparison
from experiments.launch.config import choose_preset
from experiments.launch.paper import paper_rows
from experiments.launch.presets import PRESETS
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Claim, Plot, Study
from experiments.launch.training import check_networks


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.table2``."""

    preset: str = setting("table2_mnist", "Preset of experiments.compare.", choices=tuple(PRESETS))
    settings: tuple[str, ...] = setting(
        (),
        "Flags of experiments.compare on top of the preset, as num_test=100,mlp.hidden=32; values "
        "of a flag that takes several are joined by +.",
    )
    data_dir: str = setting("", "Folder with the data set, see experiments.compare.", is_path=True)
    seed: int = seed()
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)


SCALES: dict[str, dict[str, Any]] = {
    # One draw, as the deterministic network has: the same programs serve both.
    "smoke": {
        "preset": "digits",
        "settings": (
            *("methods=deterministic+vi", "num_train=200", "num_test=12", "batch_size=12"),
            *("mlp.hidden=16", "mlp.activation=relu", "deterministic.num_epochs=3"),
            *("vi.num_epochs=5", "vi.num_samples=1"),
            *("suites=published+corrected", "fresh=false"),
        ),
    },
    "cpu": {
        "preset": "table2_mnist",
        "settings": ("methods=deterministic+vi", "num_test=500"),
    },
    "paper": {
        "preset": "table2_mnist",
        "settings": (
            "methods=deterministic+ensemble+vi",
            "num_test=1000",
            "ensemble.num_members=100",
        ),
    },
}


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      config: Every setting.
      workdir: The run directory.
      scale: Name of the scale, for the record.

    Raises:
      ValueError: A setting is unknown or out of range, or the folder holds another run.
    """
    work = functools.partial(_work, comparison=to_comparison(config))
    return run_study("table2", config, workdir, work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many examples as are asked for, which the networks take.

    Raises:
      ValueError: The message names what is wrong.
    """
    comparison = to_comparison(config)
    check_networks(comparison.rows, load_data(comparison.config))


def to_comparison(config: Config) -> Comparison:
    """Return the settings of ``experiments.compare``.

    Raises:
      ValueError: An unknown preset or flag, or a value of another type.
    """
    values = dict(choose_preset(PRESETS, config.preset))
    for text in config.settings:
        name, _, value = text.partition("=")
        if not value:
            raise ValueError(
                f"--settings takes flags of experiments.compare as name=value, got {text!r}."
            )
        values[name] = value
    values |= {
        "data_dir": config.data_dir,
        "seed": config.seed,
        "checkpoint_every": config.checkpoint_every,
    }
    check_preset(values)
    return make_comparison(values)


def _work(config: Config, run: RunDirectory, *, comparison: Comparison) -> Study:
    folder = str(run.path / "evaluate")
    results = compare(comparison, folder, preset=config.preset, quiet=True)
    # Its seconds are those of all its starts; another start of this run must not count them again.
    if not stages.spent(run):
        run.log(stage="evaluate", stage_seconds=results["seconds"])
    header, groups = table_groups(results)
    rows = tuple(
        (*(group.head if number == 0 else ("", "", "")), *cells)
        for group in groups
        for number, cells in enumerate(group.body)
    )
    figure = accuracy_figure(results)
    plots = (
        () if figure is None else (Plot("accuracy", figure, figure_captions(results)["accuracy"]),)
    )
    return Study(
        "Table 2: networks under attack",
        summarise(results),
        (Table("Accuracy under attack, %", header, rows, legend(results)),),
        plots,
        _claims(results),
        data={"rows": results["rows"], "num_test": results["num_test"]},
    )


def _claims(results: dict[str, Any]) -> tuple[Claim, ...]:
    claims = []
    corrected = {row["model"]: row["protocols"].get("corrected", {}) for row in results["rows"]}
    for row in paper_rows(results):
        draws = "1 draw" if row.num_samples == 1 else f"{row.num_samples} draws"
        for name, (paper, ours) in row.pairs.items():
            is_attack = name != "accuracy"
            claims.append(
                Claim(
                    f"Table 2, {row.paper_model}",
                    f"accuracy under {format_attack(name)}" if is_attack else "accuracy",
                    round(100 * paper, 2),
                    _percent(ours.value),
                    _percent(corrected[row.model].get(name)) if is_attack else None,
                    _percent(row.strong.value) if is_attack else None,
                    note=f"ours: {draws}, {results['num_test']} images",
                )
            )
    return tuple(claims)


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


if __name__ == "__main__":
    launch("table2", Config, SCALES, run, __doc__)
