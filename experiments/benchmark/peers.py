"""Public attack tools and this library's suites on the same posterior, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark import children, peers_ours, peers_problem, peers_tools
from experiments.benchmark.peers_child import PGD_TOOLS
from experiments.benchmark.peers_problem import Problem
from experiments.benchmark.peers_tools import Tool
from experiments.benchmark.rows import Row, Say
from experiments.benchmark.sizes import PeersSize, Size
from experiments.benchmark.timing import Timing, summarise

NAME = "peers"

# Both sides on the CPU, and nothing compiled before our first call.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "JAX_COMPILATION_CACHE_DIR": "",
}


class Ours(NamedTuple):
    """What one suite did.

    warm: Seconds of its calls after the first.
    cold: Seconds of the first.
    accuracy_left: Share of images that stand.
    record: All that is known of it, as JSON values.
    """

    warm: Timing
    cold: float
    accuracy_left: float
    record: dict[str, Any]


def run(size: Size, say: Say, tools: Sequence[Tool] = (), missing: Sequence[str] = ()) -> list[Row]:
    """Attack one posterior by our suites, then by every tool.

    Args:
      size: Its ``peers``.
      say: Called with lines of progress.
      tools: From ``peers_tools.open_tools``.
      missing: Names of tools that are left out.

    Raises:
      RuntimeError: A process failed, a tool attacks another model or leaves the ball.
    """
    asked = size.peers
    for name in missing:
        say(f"{name} is left out: --peers has no environment of that name")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "problem.npz")
        say("training")
        problem = peers_problem.train_problem(asked)
        peers_problem.save(file, problem)
        rows: list[Row] = []
        ours: dict[str, Ours] = {}
        for suite in asked.suites:
            say(f"suite {suite}")
            ours[suite] = _run_suite(problem, file, suite, asked, size.budget)
            rows += _rows_of_suite(suite, ours[suite], problem, asked)
        for tool in tools:
            for steps in asked.steps if tool.name in PGD_TOOLS else (0,):
                say(f"{tool.name}, {_describe_attack(steps)}")
                rows += _run_tool(problem, file, tool, steps, size, ours)
    return rows


def compare_rows(
    work: str, name: str, timing: Timing, ours: Mapping[str, Ours], details: dict[str, Any]
) -> list[Row]:
    """Return a tool's time, and its ratio to that of every suite.

    A ratio's range is that of the slowest of one to the fastest of the other.

    Args:
      work: What the tool did and how much it left.
      name: The tool.
      timing: Its seconds.
      ours: By suite.
      details: Of the tool.
    """
    time = timing.median
    rows = [Row(NAME, work, "time", time, "s", *timing[1:], None, details | {"seconds": time})]
    for suite, found in ours.items():
        own = {
            "ours_seconds": found.warm.median,
            "ours_cold_seconds": found.cold,
            "ours_accuracy_left": found.accuracy_left,
            "ours_repeats": found.warm.repeats,
        }
        figure = f"{name}'s time / ours, {suite} (which leaves {found.accuracy_left:.3f})"
        rows.append(
            Row(
                NAME,
                work,
                figure,
                time / found.warm.median,
                "x",
                timing.low / found.warm.high,
                timing.high / found.warm.low,
                timing.repeats,
                None,
                details | {"seconds": time, "suite": suite, **own},
            )
        )
    return rows


def _run_suite(problem: Problem, file: Path, suite: str, asked: PeersSize, budget: float) -> Ours:
    attacked = file.with_name("ours.npz")
    request = {"problem": str(file), "attacked": str(attacked), "suite": suite, "budget": budget}
    request |= {"epsilon": asked.epsilon}
    record = children.call(peers_ours.__name__, request, _ENVIRONMENT)
    with np.load(attacked, allow_pickle=False) as stored:
        judged = peers_problem.judge(problem, f"suite {suite}", stored["x_adv"], asked.epsilon)
    record |= judged._asdict()
    return Ours(summarise(record["warm"]), record["cold"], judged.accuracy_left, record)


def _rows_of_suite(suite: str, found: Ours, problem: Problem, asked: PeersSize) -> list[Row]:
    work = f"suite {suite}, {_describe(problem, asked)}: leaves {found.accuracy_left:.3f}"
    return [
        Row(NAME, work, "time, warm", found.warm.median, "s", *found.warm[1:], None, found.record),
        Row(NAME, work, "time, cold", found.cold, "s", details=found.record),
    ]


def _run_tool(
    problem: Problem, file: Path, tool: Tool, steps: int, size: Size, ours: Mapping[str, Ours]
) -> list[Row]:
    asked, attacked = size.peers, file.with_name("attacked.npz")
    arguments = [f"--epsilon={asked.epsilon!r}", f"--steps={steps}", f"--budget={size.budget!r}"]
    record = peers_tools.call(tool, str(file), str(attacked), *arguments)
    with np.load(attacked, allow_pickle=False) as stored:
        peers_problem.check_predictions(problem, tool.name, stored["log_probs"])
        judged = peers_problem.judge(problem, tool.name, stored["x_adv"], asked.epsilon)
    name = f"{tool.name}, {_describe_attack(steps)}"
    work = f"{name}, {_describe(problem, asked)}: leaves {judged.accuracy_left:.3f}"
    about = {key: value for key, value in tool._asdict().items() if key != "python"}
    details = about | record | judged._asdict() | {"all_seconds": record["seconds"]}
    return compare_rows(work, tool.name, summarise(record["seconds"]), ours, details)


def _describe_attack(steps: int) -> str:
    return f"PGD {steps} steps" if steps else "AutoAttack"


def _describe(problem: Problem, asked: PeersSize) -> str:
    count, num_draws = len(problem.x), problem.posterior.num_samples
    return f"MLP {asked.units}, {count} images x {num_draws} draws"
