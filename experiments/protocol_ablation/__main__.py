"""Turn each departure of the published code on alone, off alone, and all together.

  python -m experiments.protocol_ablation --scale=smoke --workdir=runs/ablation_smoke
  python -m experiments.protocol_ablation --scale=cpu --data_dir=data --workdir=runs/ablation
  python -m experiments.protocol_ablation --scale=cpu --parts=hmc --mixed_runs=runs/mixed_mnist

Four VI posteriors (KL weight and start, each as published and corrected) are trained once and
attacked under every switch, and the published one as each version of the published code does it; a
small network is sampled by HMC on all the data, and on the last minibatch alone as published.
Running the same command again resumes a run that was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnn_adv.compute.progress import progress
from bnn_adv.data import Dataset, load_dataset
from bnn_adv.evaluation.metrics import mean_change, paired_difference
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.networks import build_network
from bnn_adv.posteriors.decision import predicted_class
from experiments.launch.checks import check_inputs
from experiments.launch.mixed import mixed_hmc
from experiments.launch.run_directory import RunDirectory
from experiments.launch.stages import note_chains, note_data, note_suites
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study
from experiments.protocol_ablation import measure as stages
from experiments.protocol_ablation import switches as ablation
from experiments.protocol_ablation.config import SCALES, Config
from experiments.protocol_ablation.measure import Subject, Work
from experiments.protocol_ablation.report import build_study
from experiments.protocol_ablation.shapley import shapley_values
from experiments.protocol_ablation.switches import Departures
from experiments.protocol_ablation.versions import measure_versions

_HMC_ON = ablation.IN_2020 - ablation.TRAINING
"""The published attack on HMC's draws: in every version the stored ones, for attack and defence."""

_ACCURACIES = ("accuracy", "fgsm", "pgd", "strong")


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Run the ablation in a run directory and return its results.

    Args:
      config: Every setting.
      workdir: The run directory; made, resumed or read back.
      scale: Name of the scale, for the record.

    Raises:
      ValueError: A setting is out of range, or the folder holds another run.
      OSError: A file cannot be read or written.
    """
    return run_study("protocol_ablation", config, workdir, _work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many examples as are asked for, which the network takes.

    Raises:
      ValueError: The message names what is wrong.
    """
    network = build_network(
        config.architecture, hidden=config.hidden, num_classes=10, activation=config.activation
    )
    dataset = _load(config)
    check_inputs(network, dataset, flag=f"--architecture={config.architecture}")
    if config.mixed_num_train > len(dataset.y_train):
        raise ValueError(
            f"--mixed_num_train must be at most the {len(dataset.y_train)} training examples, or 0 "
            f"for none, got {config.mixed_num_train}."
        )
    if sampled := stages.find_sampled(config):
        if config.num_train:
            raise ValueError(
                f"--mixed_runs takes chains of --mixed_num_train={config.mixed_num_train} of all "
                f"training images: leave --num_train at 0, got {config.num_train}."
            )
        few, own = stages.load_few(config, dataset), mixed_hmc(config)
        sampled.check(stages.mixed_network(config, dataset.num_classes), few, own, config.data_dir)


def _load(config: Config) -> Dataset:
    return load_dataset(
        config.dataset,
        config.data_dir or None,
        num_train=config.num_train or None,
        num_test=config.num_test or None,
        seed=config.seed,
    )


def _work(config: Config, run: RunDirectory) -> Study:
    dataset = _load(config)
    whole = Work(config, run, note_data(run, dataset))
    note_suites(run, [get_suite(config.suite)])
    if sampled := stages.find_sampled(config):
        note_chains(run, config.dataset, sampled.draws_hash)
    work = whole.first(config.num_rows or len(dataset.y_test))
    data = {
        "dataset": config.dataset,
        "epsilon": config.epsilon,
        "num_test": len(work.dataset.y_test),
        "num_version_images": len(dataset.y_test),
        "num_train": len(dataset.y_train),
        "num_classes": dataset.num_classes,
        "network": f"{config.architecture}, {config.hidden}, {config.activation}",
        "minibatches": -(-len(dataset.y_train) // config.vi_minibatch_size),
        "suite": config.suite,
    }
    if "published" in config.parts:
        data |= _published_rows(config, whole, work)
    if "hmc" in config.parts:
        data["hmc"] = _hmc_rows(work)
    return build_study(data)


def _published_rows(config: Config, whole: Work, work: Work) -> dict[str, Any]:
    """Return what the versions of the published code and its departures leave of VI."""
    subjects = {
        training: stages.train_vi(work, training)
        for training in ablation.combinations(ablation.TRAINING)
    }
    versions = measure_versions(whole, subjects[ablation.TRAINING])
    outcomes = {}
    rows = ablation.list_rows()
    with progress("switches", "rows") as report:
        for number, row in enumerate(rows):
            subject = subjects[row.on & ablation.TRAINING]
            outcomes[row.on] = _measure(work, subject, row.on)
            report(number + 1, len(rows))
    records = [
        {
            "group": row.group,
            "switch": row.switch,
            "on": sorted(row.on),
            **outcomes[row.on][0],
            "change_from_base": _changes(outcomes[ablation.NONE], outcomes[row.on]),
            "change_from_2020": _changes(outcomes[ablation.IN_2020], outcomes[row.on]),
        }
        for row in rows
    ]
    return {
        "versions": versions,
        "rows": records,
        "shares": _shares(work, subjects) if config.num_factorial else None,
    }


def _measure(
    work: Work, subject: Subject, on: Departures
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a row's numbers, and by accuracy how often each image is classified correctly, [N]."""
    y = work.dataset.y_test
    fgsm, pgd = (stages.attack(work, subject, kind, on) for kind in ("fgsm", "pgd"))
    clean = stages.predict_clean(work, subject, on)
    judged = ablation.judge(on, y, clean, fgsm["log_probs"], pgd["log_probs"])
    worst = stages.attack_strongly(work, subject)
    right = {name: predicted_class(each) == y for name, each in worst.items()}
    numbers = ablation.summarise(judged)
    record = {
        **numbers,
        "strong": float(right["known"].mean()),
        "strong_fresh": float(right["fresh"].mean()) if "fresh" in right else None,
        "intervals": {
            **numbers["intervals"],
            "strong": list(ablation.interval(right["known"])),
        },
        "zero_gradient_share": float(fgsm["zero_gradient_share"]),
        **stages.describe(work, subject),
        "num_draws": subject.known.num_samples,
        "num_predictions": len(clean),
        "training": subject.name,
    }
    often = {**judged, "strong": right["known"]}
    return record, {name: often[name].mean(axis=0) for name in _ACCURACIES}


def _changes(first: tuple[Any, Any], second: tuple[Any, Any]) -> dict[str, list[float]]:
    """Return by accuracy the change from one row to another on the same images, with interval."""
    return {name: list(paired_difference(first[1][name], second[1][name])) for name in _ACCURACIES}


def _hmc_rows(work: Work) -> list[dict[str, Any]]:
    rows = []
    for subject in stages.train_hmc(work):
        for attack, on in (("corrected", ablation.NONE), ("published", _HMC_ON)):
            record, _ = _measure(work, subject, on)
            rows.append({**record, "attack": attack, "diagnostics": _plain(subject.diagnostics)})
    return rows


def _plain(diagnostics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the diagnostics but for traces, which the run directory holds."""
    return {
        name: value
        for name, value in diagnostics.items()
        if not isinstance(value, list) or name == "warnings"
    }


def _shares(work: Work, subjects: Mapping[Departures, Subject]) -> dict[str, Any]:
    """Return every combination's numbers, and each switch's Shapley share of the difference.

    The switches are those of 2020: today's version differs from it in one switch, whose rows say
    what it does.
    """
    judged, everything = {}, list(ablation.combinations(ablation.IN_2020))
    count = min(work.config.num_factorial, len(work.dataset.y_test))
    y = work.dataset.y_test[:count]
    with progress("combinations", "combinations") as report:
        for number, on in enumerate(everything):
            subject = subjects[on & ablation.TRAINING]
            fgsm, pgd = (
                stages.attack_first(work, subject, kind, on, count) for kind in ("fgsm", "pgd")
            )
            clean = stages.predict_clean(work, subject)[:, :count]
            judged[on] = ablation.judge(on, y, clean, fgsm, pgd)
            report(number + 1, len(everything))
    names = ("fgsm", "pgd", "softmax_robustness")
    by_image = {
        on: {
            **{name: found[name].mean(axis=0) for name in names[:2]},
            names[2]: 1.0 - found["softmax_difference"].mean(axis=0),
        }
        for on, found in judged.items()
    }
    return {
        "num_images": count,
        "combinations": [
            {"on": sorted(on), **{name: float(found[name].mean()) for name in names}}
            for on, found in by_image.items()
        ],
        "shapley": {name: _share_out(by_image, name) for name in names},
    }


def _share_out(
    by_image: Mapping[Departures, Mapping[str, np.ndarray]], name: str
) -> dict[str, list[float]]:
    """Return each switch's share of one number, with its interval over images."""
    each = {on: found[name] for on, found in by_image.items()}
    shares = shapley_values(each, ablation.IN_2020)
    return {switch: list(mean_change(share)) for switch, share in shares.items()}


if __name__ == "__main__":
    launch("protocol_ablation", Config, SCALES, run, __doc__)
