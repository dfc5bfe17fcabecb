"""Evaluate a trained posterior: a suite of attacks, signs of masking, one page.

  python -m experiments.attack --posterior=runs/demo --model=vi --suite=full --workdir=runs/attack
  python -m experiments.attack --posterior=draws.npz --dataset=mnist --network=mlp --mlp.hidden=512
  python -m experiments.attack --posterior=runs/demo --model=vi --attack=pgd --pgd.num_steps=200
  python -m experiments.attack --posterior=runs/demo --model=hmc --shift=rotated,noise

A suite, an attack and an objective may be your own: --suite=package.module:NAME, or
--attack=package.module --objective=package.module:NAME, whose flags are the arguments of its build.
The posterior is a run directory of ``experiments.train`` or ``experiments.compare``, which knows
its network and data, or a file that ``posteriors.posterior.save_posterior`` wrote. Running the same
command again resumes a run that was stopped; on a finished one it prints the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from jax.sharding import Mesh

import bnn_adv
from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import files, parallel
from bnn_adv.report.evaluation import format_evaluation
from bnn_adv.report.evaluation_page import render_evaluation
from bnn_adv.report.style import to_png
from experiments.launch import runtime
from experiments.launch.attack_config import (
    Opened,
    Target,
    define_attack_flags,
    make_target,
    open_target,
)
from experiments.launch.config import define_flags, make, read_flags
from experiments.launch.entry import start
from experiments.launch.run_directory import RunDirectory, describe_command
from experiments.launch.runtime import RuntimeConfig
from experiments.launch.shift import Outside, hash_outside, load_outside, measure_shift

FLAGS = flags.FLAGS


def define_all_flags(argv: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> None:
    """Define the flags that a command line may use."""
    flags.DEFINE_string(
        "workdir",
        "runs/attack",
        "Run directory; made, resumed or reprinted.",
        flag_values=flag_values,
    )
    define_attack_flags(argv, flag_values)
    define_flags(RuntimeConfig, flag_values=flag_values)


def main(flag_values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Run the evaluation that the flags describe."""
    given = read_flags(flag_values)
    target = make_target(given)
    mesh = runtime.start(make(RuntimeConfig, given))
    return attack(target, str(flag_values["workdir"].value), mesh=mesh)


def attack(target: Target, workdir: str, *, mesh: Mesh | None = None) -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      target: Every setting.
      workdir: The run directory.
      mesh: Devices to split the work over.

    Raises:
      ValueError: A setting is out of range, the posterior does not fit, or the folder holds another
        run.
      OSError: A file cannot be read or written.
    """
    opened = open_target(target, mesh)
    outside = load_outside(target.config, opened.dataset)
    record = {**target.to_json(), **opened.hashes, **hash_outside(outside)}
    run = RunDirectory(workdir, "attack", record, describe_command("experiments.attack"))
    results = run.read_results()
    if results is not None:
        print(f"{run.path} holds a finished run of this command.\n")
    else:
        results = _work(target, opened, outside, run, mesh)
    if parallel.is_writer():
        print(format_evaluation(results))
        print(f"Report: {run.path / 'report.html'}")
    return results


def _work(
    target: Target, opened: Opened, outside: Outside, run: RunDirectory, mesh: Mesh | None
) -> dict[str, Any]:
    config, (posterior, diagnostics, dataset, _) = target.config, opened
    chunk = config.sample_chunk or None
    evaluation = bnn_adv.evaluate(
        posterior,
        dataset.x_test,
        dataset.y_test,
        threat=THREATS[config.norm](float(config.epsilon or 0.0)),
        rng_key=jax.random.key(config.seed),
        suite=target.suite,
        settings=bnn_adv.EvaluationSettings(
            config.batch_size,
            chunk,
            mesh,
            run.checkpoints("attacks", config.checkpoint_every),
            num_probe=config.num_probe,
            num_curve=config.num_curve,
            min_ess=diagnostics.get("min_ess"),
        ),
    )
    shift = measure_shift(config, posterior, dataset, outside, run, mesh)
    results = {
        **evaluation.record,
        **({"shift": shift} if shift else {}),
        "dataset": config.dataset,
        "model": config.model or None,
        "seed": config.seed,
        "mesh": None if mesh is None else dict(mesh.shape),
        "command": run.command,
        "environment": run.environment,
        "environments": run.environments,
        "config": {
            key: value
            for key, value in target.to_json().items()
            if key not in ("data_dir", "posterior")
        },
    }
    figure = evaluation.plot()
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
    start(define_all_flags, main, __doc__)
