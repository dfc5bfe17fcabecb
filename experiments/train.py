"""Train one posterior into a run directory.

  python -m experiments.train --method=hmc --network=mlp --mlp.hidden=64 --hmc.num_samples=200
  python -m experiments.train --method=my_fork.my_sampler --my_sampler.step_size=0.01

``experiments.attack --posterior=DIR`` evaluates it. The flags of a method and of a network are the
fields of its settings; --method=NAME --help lists those of a method. Either, and the data set, may
be your own, as package.module or package.module:Name. Running the same command again resumes a run
that was stopped; on a finished one it prints what it found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from jax.sharding import Mesh

from bnn_adv.compute import files, parallel
from bnn_adv.compute.settings import setting
from bnn_adv.data import hash_data, load_dataset
from bnn_adv.evaluation import metrics
from bnn_adv.inference import METHODS
from bnn_adv.networks import NETWORKS, count_params
from bnn_adv.posteriors.posterior import predict_log_probs
from bnn_adv.report.write import draw_chains, write_figures
from experiments.launch import runtime
from experiments.launch.compare_config import DataConfig
from experiments.launch.config import define_flags, make, peek, read_flags, to_json
from experiments.launch.entry import start
from experiments.launch.methods import (
    ROWS,
    Row,
    define_method_flags,
    define_network_flags,
    make_rows,
)
from experiments.launch.run_directory import RunDirectory, describe_command
from experiments.launch.runtime import RuntimeConfig
from experiments.launch.training import Trained, check_networks, train_or_load

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class TrainConfig(DataConfig):
    """Settings of ``experiments.train`` but for those of the method and the network."""

    method: str = setting(
        "hmc", f"Method, of {', '.join({**ROWS, **METHODS})}; or package.module of your own."
    )


def define_all_flags(argv: Sequence[str], flag_values: flags.FlagValues = FLAGS) -> None:
    """Define the flags that a command line may use."""
    flags.DEFINE_string(
        "workdir",
        "runs/train",
        "Run directory; made, resumed or reprinted.",
        flag_values=flag_values,
    )
    define_flags(TrainConfig, flag_values=flag_values)
    method, network = peek(argv, "method"), peek(argv, "network")
    networks = dict.fromkeys([*NETWORKS, *filter(None, [network])])
    define_network_flags(tuple(networks), flag_values=flag_values)
    # Without a method, --help shows the flags of the paper's rows.
    define_method_flags([method] if method else tuple(ROWS), {}, flag_values)
    define_flags(RuntimeConfig, flag_values=flag_values)


def main(flag_values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Train what the flags describe."""
    given = read_flags(flag_values)
    config: TrainConfig = make(TrainConfig, given)
    (row,) = make_rows(given, (config.method,), config.network)
    mesh = runtime.start(make(RuntimeConfig, given))
    return train(config, row, str(flag_values["workdir"].value), mesh=mesh)


def train(
    config: TrainConfig, row: Row, workdir: str, *, mesh: Mesh | None = None
) -> dict[str, Any]:
    """Fill a run directory and return its results.

    Args:
      config: Every setting but the row's.
      row: The method and its network.
      workdir: The run directory.
      mesh: Devices to split the work over.

    Raises:
      ValueError: A setting is out of range, or the folder holds another run.
      OSError: The folder cannot be written to.
    """
    if config.draws_on_disk and mesh is not None:
        raise ValueError("--draws_on_disk works on one device: leave out --mesh, or the flag.")
    dataset = load_dataset(
        config.dataset,
        config.data_dir or None,
        num_train=config.num_train or None,
        num_test=config.num_test or None,
        seed=config.seed,
    )
    check_networks([row], dataset)
    settings = {**to_json(config), **row.to_json()}
    record = {**settings, "data_hash": hash_data(dataset)}
    run = RunDirectory(workdir, "train", record, describe_command("experiments.train"))
    results = run.read_results()
    if results is not None:
        print(f"{run.path} holds a finished run of this command.\n")
    else:
        trained = train_or_load(config, row, dataset, run, mesh)
        results = {
            "schema_version": 1,
            "experiment": "train",
            "dataset": config.dataset,
            "num_train": len(dataset.y_train),
            "num_test": len(dataset.y_test),
            **_describe(row, trained, dataset.x_test, dataset.y_test, mesh),
            "seed": config.seed,
            "mesh": None if mesh is None else dict(mesh.shape),
            "command": run.command,
            "environment": run.environment,
            "environments": run.environments,
            "config": {key: value for key, value in settings.items() if key != "data_dir"},
        }
        run.write(files.write_json, "diagnostics.json", {row.name: trained.diagnostics})
        chains = {} if trained.chains is None else {row.name: trained.chains}
        run.write(lambda path, found: write_figures(path, draw_chains(found)), ".", chains)
        run.finish(results)
    if parallel.is_writer():
        print(format_training(results))
        print(f"\nAttack it: python -m experiments.attack --posterior={run.path} --epsilon=0.1")
    return results


def _describe(
    row: Row, trained: Trained, x: np.ndarray, y: np.ndarray, mesh: Mesh | None
) -> dict[str, Any]:
    posterior = trained.posterior
    log_probs = predict_log_probs(posterior, parallel.replicate(x, mesh), batch_size=128)
    share = metrics.accuracy(parallel.to_host(log_probs), y)
    return {
        "method": row.name,
        "network": row.describe(),
        "num_parameters": count_params(posterior.take([0]).samples),
        "num_samples": posterior.num_samples,
        "decision_rule": posterior.decision_rule,
        "accuracy": share,
        "accuracy_interval": list(metrics.wilson_interval(share, len(y))),
        "diagnostics": trained.diagnostics,
    }


def format_training(results: dict[str, Any]) -> str:
    """Return what a run found, for a terminal."""
    low, high = results["accuracy_interval"]
    lines = [
        f"{results['method']} on {results['dataset']} ({results['num_train']:,} examples): "
        f"{results['network']}, {results['num_parameters']:,} parameters, "
        f"{results['num_samples']} draws.",
        f"Accuracy on {results['num_test']:,} test examples: {100 * results['accuracy']:.1f} % "
        f"({100 * low:.1f} to {100 * high:.1f}).",
        *(f"Warning: {text}" for text in results["diagnostics"].get("warnings", [])),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    start(define_all_flags, main, __doc__)
