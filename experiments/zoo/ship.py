"""Write a posterior of a finished run as an entry of ``bnn_adv.zoo``: draws, inputs, certificate.

  python -m experiments.zoo.ship --run=runs/zoo/sgd --entry=runs/entries/mnist_interval

The draws are those that were attacked, bit for bit. The certificate is of the first test inputs, by
the run's own bounds, within the largest radius at which they certified any. What was measured of
more inputs is the run's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags

import bnn_adv
from bnn_adv.compute import files
from bnn_adv.compute.settings import Settings, data_folder, setting
from bnn_adv.data import hash_data
from bnn_adv.networks import find_network, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import hash_draws, load_posterior
from experiments.launch.config import define_flags, make, read_flags
from experiments.launch.entry import start
from experiments.zoo import config as zoo_config
from experiments.zoo.measure import load_all, split_draws
from experiments.zoo.methods import METHODS
from experiments.zoo.record import PosteriorRecord, RadiusRecord
from experiments.zoo.runs import read_json, shorten

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.zoo.ship``."""

    run: str = setting("runs/zoo/sgd", "Finished run directory of experiments.zoo.")
    posterior: str = setting("mnist_sgd_interval", "Name of one of its posteriors.")
    entry: str = setting("runs/entries/mnist_interval", "New folder, whose name is the entry's.")
    num_inputs: int = setting(32, "Test inputs that the entry holds (the first ones).", least=1)
    data_dir: str = data_folder()


def ship(config: Config) -> Path:
    """Write the entry and return its folder.

    Args:
      config: Every setting.

    Raises:
      ValueError: The run is no finished one of this study, has no such posterior, was trained on
        other inputs, or what is written does not belong together (``ZooError``).
      FileExistsError: The entry exists.
      OSError: A file cannot be read or written.
    """
    if Path(config.entry).expanduser().exists():
        raise FileExistsError(f"--entry={config.entry} exists: delete it, or choose another name.")
    results, known, found, record = _read(config)
    method, dataset = found["method"], load_all(known)[found["dataset"]]
    _check_hash(
        f"--data_dir={config.data_dir}: {dataset.name} there",
        hash_data(dataset),
        results["sources"].get(f"data {dataset.name}"),
    )
    network = _network(known, method)
    built = find_network(network["network"])
    module = built.build(built.Config(**network["settings"]), dataset.num_classes)
    expected = jax.eval_shape(lambda: init_params(jax.random.key(0), module, dataset.input_shape))
    path = Path(config.run).expanduser() / "posterior" / f"{config.posterior}.npz"
    every = load_posterior(path, get_apply_fn(module), expected)
    trained = files.read_json(path.with_suffix(".json")).get("draws_hash", {})
    _check_hash(f"{path}: it", hash_draws(every), trained.get(config.posterior))
    posterior, _ = split_draws(every, method, known.num_draws)
    count = min(config.num_inputs, len(dataset.x_test))
    certificate = bnn_adv.certify(
        posterior,
        dataset.x_test[:count],
        dataset.y_test[:count],
        threat=bnn_adv.LInf(_choose_radius(record)),
        settings=bnn_adv.CertificationSettings(
            method="crown" if METHODS[method].is_small else known.certify, num_halvings=0
        ),
    )
    if shift := found["shift"]:
        _check_hash(f"{path}: what predicts", hash_draws(posterior), shift["draws_hash"])
    device = results["environment"]
    commits = sorted({shorten(own["commit"]) for own in results["environments"]})
    hardware = (
        f"{record.hardware}, Python {device['python']}, JAX {device['jax']}, "
        f"commit {', '.join(commits)}"
    )
    entry = bnn_adv.zoo.EntryRecord(
        **network,
        dataset=found["dataset"],
        num_classes=dataset.num_classes,
        indices=tuple(range(count)),
        method=record.method,
        training={
            "likelihood": describe_likelihood(known, found),
            "command": record.command,
            "seed": record.seed,
            "hardware": hardware,
            "seconds": record.training_seconds,
            "model": record.name,
        },
        brackets=tuple(_bracket(radius, record, known.suite, hardware) for radius in record.radii),
        decision_rule=posterior.decision_rule,
    )
    return bnn_adv.zoo.write(config.entry, posterior, certificate, entry, dataset=dataset)


def _read(config: Config) -> tuple[dict[str, Any], Any, dict[str, Any], PosteriorRecord]:
    """Return a run's results and settings, and what was found of the posterior."""
    folder = Path(config.run).expanduser()
    results, stored = (
        read_json(config.run, name, flag="run") for name in ("results.json", "config.json")
    )
    if stored.get("join") or not (folder / "posterior").is_dir():
        raise ValueError(
            f"--run={config.run} is no run of experiments.zoo that has draws of its own."
        )
    records = [PosteriorRecord.from_json(record) for record in results["data"]["records"]]
    names = [record.name for record in records]
    if config.posterior not in names:
        raise ValueError(
            f"--posterior={config.posterior} is none of this run's: {', '.join(names)}."
        )
    place = names.index(config.posterior)
    known = make(zoo_config.Config, {**stored, "data_dir": config.data_dir})
    return results, known, results["data"]["posteriors"][place], records[place]


def _choose_radius(record: PosteriorRecord) -> float:
    certified = [radius.epsilon for radius in record.radii if radius.certified.value]
    return max(certified, default=min(radius.epsilon for radius in record.radii))


def _network(known: Any, method: str) -> dict[str, Any]:
    if METHODS[method].is_small:
        settings = {"hidden": known.hmc_hidden, "activation": "relu"}
        return {"network": "mlp", "settings": settings}
    channels = (known.width, 2 * known.width)
    settings = {"channels": channels, "hidden": known.hidden, "activation": "relu"}
    return {"network": "small_conv", "settings": settings}


def _check_hash(what: str, found: str, expected: str | None) -> None:
    if found != expected:
        raise ValueError(f"{what} has the hash {found}; what the run used has {expected}.")


def describe_likelihood(known: Any, found: Mapping[str, Any]) -> str:
    """Return a likelihood in words.

    Args:
      known: Settings of the study.
      found: Of the posterior what ``measure_all`` found.
    """
    if found["training"] == "standard":
        return "categorical"
    clean = f", {100 * known.weight:g} % clean" if known.weight else ""
    return f"{found['training']} (l_inf {known.radii(found['dataset'])[-1]:g}{clean})"


def _bracket(
    radius: RadiusRecord, record: PosteriorRecord, suite: str, hardware: str
) -> bnn_adv.zoo.RecordedBracket:
    accuracy = record.accuracy.value
    assert accuracy is not None
    return bnn_adv.zoo.RecordedBracket(
        norm=radius.norm,
        epsilon=radius.epsilon,
        num_test=radius.num_test,
        accuracy=accuracy,
        certified_accuracy=radius.certified.value,
        adversarial_accuracy=radius.attacked.value,
        suite=suite,
        command=record.command,
        seed=record.seed,
        hardware=hardware,
    )


def main() -> None:
    """Write the entry that the flags describe, and say what it is."""
    folder = ship(make(Config, read_flags()))
    print(bnn_adv.zoo.read(folder))


if __name__ == "__main__":
    start(lambda _: define_flags(Config), main, __doc__)
