"""Table 2 of the paper: deterministic, ensemble and variational networks under attack.

  python -m experiments.table2 --scale=cpu --data_dir=DIR --workdir=runs/table2

The rows are those of ``experiments.compare``, whose run directory lies within this one.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from bnn_adv.report.captions import figure_captions, legend
from bnn_adv.report.figures import accuracy_figure
from bnn_adv.report.paper import paper_rows
from bnn_adv.report.summary import summarise
from bnn_adv.report.tables import table_groups
from bnn_adv.report.wording import format_attack
from experiments import compare as evaluate
from experiments.launch import stages
from experiments.launch.compare_config import EvaluateConfig
from experiments.launch.config import setting
from experiments.launch.presets import PRESETS
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Claim, Plot, Study, Table


@dataclasses.dataclass(frozen=True)
class Config:
    """Hold every flag of the experiment; see ``python -m experiments.table2 --help``."""

    preset: str = setting("table2_mnist", f"Preset of experiments.compare: {', '.join(PRESETS)}.")
    settings: tuple[str, ...] = setting(
        (),
        "Flags of experiments.compare on top of the preset, as num_test=100,hidden=32; values "
        "of a flag that takes several are joined by +.",
    )
    data_dir: str = setting("", "Folder with the data set, see experiments.compare.")
    seed: int = setting(0, "Seed from which every result follows.")
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.")


SCALES: dict[str, dict[str, Any]] = {
    # One draw, as the deterministic network has: the same programs serve both.
    "smoke": {
        "preset": "digits",
        "settings": (
            *("models=deterministic+vi", "num_train=200", "num_test=12", "batch_size=12"),
            *("hidden=16", "activation=relu", "sgd_epochs=3", "vi_epochs=5", "vi_num_samples=1"),
            *("protocol=published+corrected", "fresh=false"),
        ),
    },
    "cpu": {
        "preset": "table2_mnist",
        "settings": ("models=deterministic+vi", "num_test=500"),
    },
    "paper": {
        "preset": "table2_mnist",
        "settings": ("models=deterministic+ensemble+vi", "num_test=1000", "ensemble_size=100"),
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
    chosen = to_evaluate_config(config)
    return run_study(
        "table2", config, workdir, functools.partial(_work, chosen=chosen), scale=scale
    )


def to_evaluate_config(config: Config) -> EvaluateConfig:
    """Return the settings of ``experiments.compare``.

    Raises:
      ValueError: An unknown preset or flag, or a value of another type.
    """
    if config.preset not in PRESETS:
        raise ValueError(f"Unknown --preset: {config.preset}. Known: {', '.join(PRESETS)}.")
    fields = {field.name: field.default for field in dataclasses.fields(EvaluateConfig)}
    values: dict[str, Any] = dict(PRESETS[config.preset])
    for text in config.settings:
        name, _, value = text.partition("=")
        if name not in fields or not value:
            raise ValueError(
                f"--settings takes flags of experiments.compare as name=value, got {text!r}."
            )
        values[name] = _parse(name, value, fields[name])
    values |= {
        "data_dir": config.data_dir,
        "seed": config.seed,
        "checkpoint_every": config.checkpoint_every,
    }
    chosen = EvaluateConfig(**values)
    evaluate.validate(chosen)
    return chosen


def _work(config: Config, run: RunDirectory, *, chosen: EvaluateConfig) -> Study:
    results = evaluate.evaluate(
        chosen, str(run.path / "evaluate"), preset=config.preset, quiet=True
    )
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


def _parse(name: str, value: str, default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(value.split("+"))
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise ValueError(f"--settings: {name} is true or false, got {value!r}.")
        return value == "true"
    try:
        return type(default)(value)
    except ValueError as error:
        kind = type(default).__name__
        raise ValueError(
            f"--settings: {name} takes a value of type {kind}, got {value!r}."
        ) from error


if __name__ == "__main__":
    launch("table2", Config, SCALES, run, __doc__)
