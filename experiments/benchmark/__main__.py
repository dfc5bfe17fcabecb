"""Measure what gradients, attacks and training cost on the machine at hand, as ratios.

  python -m experiments.benchmark --workdir=runs/benchmark
  python -m experiments.benchmark --size=full --cases=gradients,scaling --draws=10,100,1000

Every rate is a share of what a large matrix product reaches in the same minute. Running the
command again measures anew and replaces what the folder held.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from bnn_adv.compute import files
from bnn_adv.compute.settings import Settings, setting
from bnn_adv.report.style import paper_style, to_png
from experiments.benchmark import peer, peer_torch, peers, peers_tools
from experiments.benchmark.cost import cost_figure
from experiments.benchmark.registry import CASES
from experiments.benchmark.sizes import SIZES, Size
from experiments.benchmark.table import describe_peers, format_rows, summarise_targets
from experiments.launch.checks import parse_counts
from experiments.launch.config import define_flags, make, read_flags, to_json
from experiments.launch.entry import start
from experiments.launch.run_directory import describe_command, describe_environment

FLAGS = flags.FLAGS

_LACKS = {
    peer.NAME: f"--cases={peer.NAME} compares with PyTorch, which is not installed here or refused "
    "by --torch=no. Install torch, or name other cases.",
    peers.NAME: f"--cases={peers.NAME} compares with public attack tools, of which there are none. "
    "Give their environments by --peers=FOLDER, or name other cases.",
}


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.benchmark``."""

    size: str = setting(
        "default",
        "How much is computed: tiny (seconds, to see that it works), default (minutes), full.",
        choices=tuple(SIZES),
    )
    cases: tuple[str, ...] = setting(
        tuple(CASES), "Cases to run.", choices=tuple(CASES), is_distinct=True, least_length=1
    )
    draws: tuple[str, ...] = setting((), "Numbers of draws of the scaling case; empty as the size.")
    images: tuple[str, ...] = setting(
        (), "Numbers of images of the scaling case; empty as the size."
    )
    torch: str = setting(
        "auto",
        "Compare with PyTorch: auto where it is installed, yes (an error where it is not), no.",
        choices=("auto", "yes", "no"),
    )
    peers: str = setting(
        "",
        "Folder of virtual environments of public attack tools, one a tool, with the tool's name; "
        "see the README. Empty: the case peers is left out.",
        is_path=True,
    )

    def __post_init__(self) -> None:
        """Check every field, and the numbers of the scaling case."""
        super().__post_init__()
        for name in ("draws", "images"):
            _parse_counts(name, getattr(self, name))


def define_all_flags(argv: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> None:
    """Define the flags."""
    flags.DEFINE_string(
        "workdir", "runs/benchmark", "Folder for the results.", flag_values=flag_values
    )
    define_flags(Config, flag_values=flag_values)


def main(flag_values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Run the benchmark that the flags describe."""
    config = make(Config, read_flags(flag_values))
    return benchmark(config, str(flag_values["workdir"].value))


def benchmark(config: Config, workdir: str) -> dict[str, Any]:
    """Measure, print the table, fill the folder, and return the results.

    Args:
      config: Every setting.
      workdir: Folder for ``results.json`` and ``figures/``.

    Raises:
      ValueError: PyTorch is asked for and absent, the folder of attack tools has none or one that
        does not run, or ``workdir`` holds another experiment's run.
      OSError: The folder cannot be written to.
      RuntimeError: A measurement failed.
    """
    started = time.monotonic()
    size, cases = _resolve(config)
    runs = {name: CASES[name].run for name in cases}
    if peers.NAME in cases:
        tools, missing = peers_tools.open_tools(config.peers)
        runs[peers.NAME] = functools.partial(peers.run, tools=tools, missing=missing)
    elif peers.NAME in config.cases:
        print(f"{peers.NAME} is left out: it needs --peers=FOLDER", file=sys.stderr, flush=True)
    folder = Path(workdir).expanduser()
    _check_folder(folder)

    rows: list[dict[str, Any]] = []
    for name, run in runs.items():

        def say(text: str, name: str = name) -> None:
            elapsed = time.monotonic() - started
            print(f"{elapsed:5.0f} s  {name}: {text}", file=sys.stderr, flush=True)

        found = run(size, say)
        if not size.has_targets:
            found = [dataclasses.replace(row, target=None) for row in found]
        rows += [row.to_dict() for row in found]
    results = {
        "schema_version": 1,
        "experiment": "benchmark",
        "rows": rows,
        "environment": describe_environment(),
        "command": describe_command("experiments.benchmark"),
        "config": to_json(config),
        "sizes": dataclasses.asdict(size),
        "seconds": round(time.monotonic() - started, 1),
    }
    _write_figure(folder, results)
    files.write_json(folder / "results.json", results)
    print(format_rows(rows))
    print("", *filter(None, (summarise_targets(rows), describe_peers(rows))), sep="\n")
    print(f"{results['seconds']:.0f} s. Results: {folder / 'results.json'}")
    return results


def _resolve(config: Config) -> tuple[Size, tuple[str, ...]]:
    """Return sizes and cases, checked before anything is measured."""
    size = SIZES[config.size]
    if config.draws:
        size = dataclasses.replace(size, sweep_draws=_parse_counts("draws", config.draws))
    if config.images:
        size = dataclasses.replace(size, sweep_images=_parse_counts("images", config.images))
    if config.torch == "yes" and not peer_torch.is_installed():
        raise ValueError(
            "--torch=yes needs PyTorch, which is not installed here. Install torch, "
            "or give --torch=no."
        )
    with_peer = config.torch != "no" and peer_torch.is_installed()
    left_out = {
        peer.NAME: not with_peer,
        peers.NAME: not config.peers,
    }
    cases = tuple(name for name in config.cases if not left_out.get(name))
    if not cases:
        raise ValueError(" ".join(_LACKS[name] for name in config.cases))
    return size, cases


def _parse_counts(name: str, texts: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(sorted(parse_counts(name, texts, least_length=2))) if texts else ()


def _check_folder(folder: Path) -> None:
    stored = folder / "results.json"
    is_ours = stored.exists() and files.read_json(stored).get("experiment") == "benchmark"
    if not is_ours and (stored.exists() or (folder / "config.json").exists()):
        raise ValueError(
            f"{folder} holds a run of another experiment. Give another folder to --workdir."
        )
    folder.mkdir(parents=True, exist_ok=True)


def _write_figure(folder: Path, results: dict[str, Any]) -> None:
    figure = cost_figure(results)
    if figure is None:
        return
    with files.atomic_writer(folder / "figures" / "cost.png") as file:
        file.write(to_png(figure))
    buffer = io.BytesIO()
    with paper_style():
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    with files.atomic_writer(folder / "figures" / "cost.pdf") as file:
        file.write(buffer.getvalue())


if __name__ == "__main__":
    start(define_all_flags, main, __doc__, errors=(RuntimeError,))
