"""Tables over all committed results: one line an experiment or a run, with one number of each."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bnn_adv.compute import files
from bnn_adv.report.table import Table, to_markdown
from experiments.launch.paper import as_printed, paper_rows
from experiments.readme.one_number import one_number
from experiments.readme.results import describe_machine, describe_time

Record = Mapping[str, Any]


def list_results(root: Path) -> dict[str, Record]:
    """Return the committed results by the path of their folder, relative to the repository."""
    paths = sorted((root / "experiments").glob("**/results/*/results.json"))
    return {path.parent.relative_to(root).as_posix(): files.read_json(path) for path in paths}


def table_of_experiments(root: Path, folder: Path) -> str:
    """Return the table of the first README: experiment, command, time, one number."""
    rows = []
    for title, (path, command, readme) in EXPERIMENTS.items():
        results = files.read_json(root / "experiments" / path / "results.json")
        link = f"[{title}]({_relative(root / 'experiments' / readme / 'README.md', folder)})"
        machine = describe_machine(results).partition(" (")[0]
        time = f"{describe_time(results)}, {machine}"
        rows.append((link, f"`{command}`", time, one_number(results)))
    return to_markdown(Table("", ("experiment", "command", "time", "one number"), tuple(rows)))


def table_of_results(root: Path, folder: Path) -> str:
    """Return one line a committed result: what, time, machine, seed, verdicts, one number."""
    rows = []
    for path, results in list_results(root).items():
        name = path.removeprefix("experiments/").replace("/results", "").removeprefix("results/")
        counts = "-"
        if results.get("verdicts"):
            holds = [verdict["holds"] for verdict in results["verdicts"]]
            counts = " / ".join(str(holds.count(answer)) for answer in (True, False, None))
        rows.append(
            (
                f"[{name}]({_relative(root / path / 'results.json', folder)})",
                one_number(results),
                counts,
                describe_time(results),
                describe_machine(results),
                str(results.get("seed", "-")),
            )
        )
    header = ("result", "one number", "claims: hold / do not / undecided", "time", "on", "seed")
    return to_markdown(Table("", header, tuple(rows)))


def table_of_paper(root: Path, folder: Path) -> str:
    """Return the numbers of the paper's Table 2 beside those of the committed runs."""
    rows = []
    for name in ("table2_mnist", "table2_mnist_ensemble"):
        results = files.read_json(root / "experiments" / "results" / name / "results.json")
        suite = "fast" if "strong" not in results["protocols"] else "strong"
        for row in paper_rows(results):
            if name == "table2_mnist" and row.model == "ensemble":
                continue
            paper, ours = zip(*row.pairs.values(), strict=True)
            unit = "draw" if row.num_samples == 1 else "draws"
            rows.append(
                (
                    f"{row.paper_model} (ours: {row.num_samples} {unit})",
                    *(as_printed(value) for value in paper),
                    *(str(value) for value in ours),
                    f"{row.strong} (`{suite}`)",
                )
            )
    header = ("network", "paper: accuracy", "FGSM", "PGD", "ours: accuracy", "FGSM, published")
    return to_markdown(Table("", (*header, "PGD, published", "worst case"), tuple(rows)))


def table_of_passes(root: Path) -> str:
    """Return what networks that trained for more and fewer passes keep, beside HMC."""
    path = root / "experiments" / "robustness_accuracy" / "results" / "passes" / "results.json"
    results = files.read_json(path)
    passes, networks = results["config"]["matched_epochs"], results["data"]["networks"]
    columns: list[tuple[str | None, int | None]] = [(None, count) for count in passes]
    columns.append(("hmc", None))
    rows = []
    for dataset, method in itertools.product(("mnist", "fashion_mnist"), ("sgd", "ensemble")):
        left, clean = [], []
        for other, count in columns:
            asked = dataset, other or method, count
            found = [
                row
                for row in networks
                if (row["dataset"], row["method"], row["settings"].get("num_epochs")) == asked
            ]
            left.append(statistics.mean(statistics.mean(row["standing"]) for row in found))
            clean.append(statistics.median(row["accuracy"] for row in found))
        title = f"{dataset}, {'one network' if method == 'sgd' else 'ensemble'}"
        for words, values in (("left", left), ("clean", clean)):
            rows.append((f"{title}: {words}, %", *(f"{100 * value:.1f}" for value in values)))
    header = ("", *(f"{count} passes" for count in passes), "HMC")
    return to_markdown(Table("", header, tuple(rows)))


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


EXPERIMENTS: Mapping[str, tuple[str, str, str]] = {
    "Four models on 8x8 digits": (
        "results/digits",
        "python -m experiments.compare --preset=digits",
        "results",
    ),
    "What is proved of the HMC network among them": (
        "results/certify_digits_hmc",
        "python -m experiments.certify --posterior=runs/demo --model=hmc --epsilon=0.02 "
        "--suite=strong",
        "results",
    ),
    "HMC on MNIST whose chains have mixed": (
        "results/mixed_mnist",
        "python -m experiments.compare --preset=mixed_mnist",
        "results",
    ),
    "HMC on Fashion MNIST whose chains have mixed": (
        "results/mixed_fashion_mnist_attack",
        "python -m experiments.attack --posterior=runs/mixed_fashion_mnist --epsilon=0.1 "
        "--suite=strong",
        "results",
    ),
    "Table 2, MNIST": (
        "results/table2_mnist",
        "python -m experiments.compare --preset=table2_mnist --num_test=1000",
        "table2",
    ),
    "What each departure of the published code did": (
        "protocol_ablation/results/cpu",
        "python -m experiments.protocol_ablation --scale=cpu",
        "protocol_ablation",
    ),
    "Fig. 1, and attacks against the truth": (
        "half_moons/results/cpu",
        "python -m experiments.half_moons --scale=cpu",
        "half_moons",
    ),
    "Figs 2 and 3: gradients against draws, VI": (
        "loss_gradients/results/paper_vi",
        "python -m experiments.loss_gradients --scale=paper --items=mnist-vi,fashion_mnist-vi",
        "loss_gradients",
    ),
    "Figs 2 and 3, of HMC as published": (
        "loss_gradients/results/paper_hmc",
        "python -m experiments.loss_gradients --scale=paper --items=mnist-hmc,fashion_mnist-hmc",
        "loss_gradients",
    ),
    "Figs 2 and 3, of HMC whose chains have mixed": (
        "loss_gradients/results/mixed",
        "python -m experiments.loss_gradients --scale=cpu "
        "--items=mnist-hmc-mixed,fashion_mnist-hmc-mixed --counts=1,10,50,100,400 "
        "--num_test=1000 --mixed_runs=runs/mixed_mnist,runs/mixed_fashion_mnist",
        "loss_gradients",
    ),
    "Fig. 4, Table 1: robustness against accuracy": (
        "robustness_accuracy/results/cpu",
        "python -m experiments.robustness_accuracy --scale=cpu",
        "robustness_accuracy",
    ),
    "Fig. 4, methods on equal terms": (
        "robustness_accuracy/results/matched",
        "python -m experiments.robustness_accuracy --scale=cpu --datasets=mnist,fashion_mnist "
        "--grid_filter=matched --suite=strong "
        "--mixed_runs=runs/mixed_mnist,runs/mixed_fashion_mnist",
        "robustness_accuracy",
    ),
    "The same against how long networks train": (
        "robustness_accuracy/results/passes",
        "python -m experiments.robustness_accuracy --scale=cpu --datasets=mnist,fashion_mnist "
        "--grid_filter=matched --matched=sgd,ensemble,vi,hmc --matched_epochs=2,5,10,20,60,200 "
        "--suite=strong --mixed_runs=runs/mixed_mnist,runs/mixed_fashion_mnist",
        "robustness_accuracy",
    ),
    "Sections 9 and 10: gradients and manifolds": (
        "geometry/results/cpu",
        "python -m experiments.geometry --scale=cpu",
        "geometry",
    ),
    "What averaging over a posterior is worth": (
        "bayesian_gain/results/images",
        "python -m experiments.bayesian_gain --scale=paper --jobs=11",
        "bayesian_gain",
    ),
    "The same on Fashion MNIST": (
        "bayesian_gain/results/fashion_mnist",
        "python -m experiments.bayesian_gain --scale=paper --datasets=fashion_mnist "
        "--methods=sgd,map,vi,laplace,swag,csgmcmc,hmc,hmc_published --num_test=250 --num_probe=40 "
        "--hmc_draws=320 --sizes=1,5,25,100,320 --batch_size=125 "
        "--mixed_runs=runs/mixed_fashion_mnist --jobs=2",
        "bayesian_gain",
    ),
    "Which sampler to use": (
        "samplers/results/cpu",
        "python -m experiments.samplers --scale=cpu",
        "samplers",
    ),
    "Ensembles of growing size": (
        "ensembles/results/cpu",
        "python -m experiments.ensembles --scale=cpu",
        "ensembles",
    ),
    "Suites beside AutoAttack": (
        "autoattack/results/digits",
        "python -m experiments.autoattack --jobs=2 --torch_python=venvs/pyautoattack/bin/python",
        "autoattack",
    ),
    "Robust posteriors between attack and proof": (
        "zoo/results/joined",
        "python -m experiments.zoo --join=experiments/zoo/results/joined,runs/zoo "
        "--join_across_code",
        "zoo",
    ),
    "Certificates beside other tools": (
        "certifiers/results/cpu",
        "python -m experiments.certifiers --scale=cpu --venvs=venvs",
        "certifiers",
    ),
    "Speed and memory": (
        "benchmark/results/cpu",
        "python -m experiments.benchmark",
        "benchmark",
    ),
}
"""Experiments of the first README: the result that is quoted, the command that repeats it, and the
folder of its README."""
