"""Tables over all committed results: one line an experiment or a run, with one number of each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bnn_adv.compute import files
from bnn_adv.report.table import Table, to_markdown
from bnn_adv.report.wording import format_percent
from experiments.launch.paper import as_printed, paper_rows
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


def one_number(results: Record) -> str:
    """Return the number that stands for a result in tables, with what it is."""
    return _NUMBERS[results["experiment"]](results)


def _of_comparison(results: Record) -> str:
    beside = {row.model: row for row in paper_rows(results)}
    if "vi" in beside and beside["vi"].strong.value is not None:
        row = beside["vi"]
        paper, ours = row.pairs["pgd"]
        return (
            f"VI under PGD: paper {as_printed(paper)} %, as published "
            f"{format_percent(ours.value)} %, under a strong attack "
            f"{format_percent(row.strong.value)} %"
        )
    suite = list(results["protocols"])[-1]
    found = [row["protocols"][suite] for row in results["rows"]]
    left = sorted({numbers.get("worst", numbers.get("pgd")) for numbers in found})
    name = f"`{suite}`" if "worst" in found[0] else f"PGD of `{suite}`"
    shares = " to ".join(dict.fromkeys(map(format_percent, (left[0], left[-1]))))
    return f"{name} leaves {shares} % of {', '.join(row['model'] for row in results['rows'])}"


def _of_evaluation(results: Record) -> str:
    raised = sum(check["raised"] for check in results["checks"])
    left = format_percent(results["adversarial_accuracy"])
    low, high = results["adversarial_accuracy_interval"]
    return (
        f"{left} [{100 * low:.1f}, {100 * high:.1f}] % left by `{results['suite']}`; "
        f"{raised} of {len(results['checks'])} signs of masking"
    )


def _of_certificate(results: Record) -> str:
    text = f"{format_percent(results['certified_accuracy'])} % certified"
    if "adversarial_accuracy" in results:
        left = format_percent(results["adversarial_accuracy"])
        text += f" <= true <= {left} % left by `{results['suite']}`"
    return f"{text} ({results['norm']} {results['epsilon']:g})"


def _of_claim(item: str) -> Callable[[Record], str]:
    def find(results: Record) -> str:
        (claim,) = (c for c in results["claims"] if (c["item"], c["quantity"]) == (item, "PGD"))
        return (
            f"under PGD: paper {claim['paper']} %, as published {claim['published']} %, under a "
            f"strong attack {claim['strong']} %"
        )

    return find


def _of_verdict(claim: str, text: str, pattern: str) -> Callable[[Record], str]:
    """Return what finds a number in the sentence of a verdict."""

    def find(results: Record) -> str:
        measured = [v["measured"] for v in results["verdicts"] if v["claim"].startswith(claim)]
        match = re.search(pattern, measured[0])
        if match is None:
            raise ValueError(f"{claim}: {pattern} is not in {measured[0]!r}.")
        return text.format(*match.groups())

    return find


def _of_summary(text: str, pattern: str) -> Callable[[Record], str]:
    def find(results: Record) -> str:
        match = re.search(pattern, results["summary"])
        if match is None:
            raise ValueError(f"{pattern} is not in {results['summary']!r}.")
        return text.format(*match.groups())

    return find


def _of_samplers(results: Record) -> str:
    found = _of_summary(
        "{0}: {1} has the most effective draws per gradient, {2} per 1,000",
        r"^([^:]+): .*?, (\S+) has the most effective draws per gradient \((\S+) per 1,000\)",
    )
    # Without adjusted chains that have mixed nobody is known to be free of bias.
    mixed = _of_summary(
        "{0}: within the budget {1} alone has mixed", r"^([^:]+): none is shown .*?: (\w+)\."
    )
    alone = _of_summary(
        "{0}: {1} has mixed, with {2} effective draws per 1,000 gradients",
        r"^([^:]+): (\w+) has mixed, with (\S+) effective draws",
    )
    first = results["summary"]
    if " has mixed, with " in first:
        return alone(results)
    return (mixed if "none is shown" in first.partition(".")[0] else found)(results)


def _of_loss_gradients(results: Record) -> str:
    zeros = _of_summary(
        "MNIST, VI: {0} % of single gradients are exactly zero",
        r"MNIST, VI: [^:]*, (\d+) % of single gradients are exactly zero",
    )
    found = re.findall(
        r"(?:^|\. )([\w ]+), HMC of long trajectories: [^()]*?"
        r"a single gradient's root mean square norm: (\S+ \[.*?\] %) \(chains: mixed",
        results["summary"],
    )
    if not found:
        return zeros(results)
    each = ", ".join(f"{norm} ({dataset})" for dataset, norm in found)
    return f"the expectation's norm, of a single gradient's: {each}"


_RIVALS = ("VI", "ensemble")


def _of_robustness(results: Record) -> str:
    grids = _of_summary(
        "HMC, MNIST: median published score {0}, accuracy under a strong attack {1}; chains have "
        "mixed for {2} networks",
        r"hmc on mnist (\S+) and (\S+ %).*mixed for (\d+ of \d+) HMC",
    )
    if "HMC of long trajectories" not in results["summary"]:
        return grids(results)
    claims = [verdict["claim"] for verdict in results["verdicts"]]
    rival = next((name for name in _RIVALS if f" than {name} on the same " in str(claims)), None)
    if rival is None:
        raise ValueError(f"No claim compares HMC with one of {', '.join(_RIVALS)}.")
    found = []
    for verdict in results["verdicts"]:
        words, is_of_rival, _ = verdict["claim"].partition(f" than {rival} on the same ")
        if is_of_rival:
            match = re.match(r"(\S+ %) of \d+ against (\S+ %)", verdict["measured"])
            assert match is not None, verdict["measured"]
            told = " (not told apart)" if verdict["holds"] is None else ""
            found.append(f"{words.partition(':')[0]}: HMC {match[1]}, {rival} {match[2]}{told}")
    return f"under a strong attack, {'; '.join(found)}"


def _of_benchmark(results: Record) -> str:
    promised = [row["met"] for row in results["rows"] if row["target"] is not None]
    if not promised:
        ratios = [row for row in results["rows"] if "time / ours, strong" in row["figure"]]
        slow = [row for row in ratios if "AutoAttack" in row["work"]]
        times = " and ".join(f"{row['value']:.2g}" for row in slow)
        return f"AutoAttack of {len(slow)} packages takes {times} times as long as `strong`"
    return f"{sum(map(bool, promised))} of {len(promised)} targets met"


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


_NUMBERS: Mapping[str, Callable[[Record], str]] = {
    "evaluate": _of_comparison,
    "attack": _of_evaluation,
    "certify": _of_certificate,
    "protocol_ablation": _of_claim("Table 2, VI (ablation)"),
    "ensembles": _of_verdict(
        "Ensembles are as robust as one network (within 5 points): strong worst case, radius 0.1",
        "{0} members against 1, strong attack, radius 0.1: {1} points",
        r"(\d+) members against 1: (.*) points",
    ),
    "half_moons": _of_verdict(
        "The published attack finds every point",
        "the published attack misses {0} of {1} points that a dense grid breaks",
        r"it missed (\d+) of (\d+)",
    ),
    "loss_gradients": _of_loss_gradients,
    "robustness_accuracy": _of_robustness,
    "bayesian_gain": _of_summary(
        "within {0}, {1}: {2} draws of HMC against one network: {3} points",
        r"Within (\S+): ([^:]+): (\d+) draws .*?([+-]\S+ \[[^]]*\]) points",
    ),
    "certifiers": _of_summary(
        "CROWN's margins of single networks: {0}",
        r"margins by CROWN: (.*?)\. With",
    ),
    "geometry": _of_verdict(
        "Consequence of Lemma 4: normal gradients cancel in the mean, to less than 10 % (hmc, "
        "directions in the subspace",
        "share of the normal gradient left in HMC's mean, within the data's plane: {0}",
        r"left over: (\S+ \[.*?\])",
    ),
    "autoattack": _of_summary(
        "`strong` leaves more images than AutoAttack in {0} of {1} cases",
        r"strong leaves \d+: more than AutoAttack in (\d+) of (\d+) cases",
    ),
    "benchmark": _of_benchmark,
    "zoo": _of_summary(
        "{0}, within {1}: {2} has {3} % certified, {4} keeps {5} % under attack",
        r"(\w+), (\S+): ([^.]*?), has most certified, (\S+) %, ([^.]*?), keeps most under attack, "
        r"(\S+) %\.$",
    ),
    "samplers": _of_samplers,
}

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
    "Figs 2 and 3: gradients against draws": (
        "loss_gradients/results/cpu",
        "python -m experiments.loss_gradients --scale=cpu",
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
    "The same with networks trained more briefly": (
        "robustness_accuracy/results/passes_5",
        "python -m experiments.robustness_accuracy --scale=cpu --datasets=mnist,fashion_mnist "
        "--grid_filter=matched --matched=sgd,ensemble,hmc --matched_epochs=5 --suite=strong "
        "--mixed_runs=runs/mixed_mnist,runs/mixed_fashion_mnist",
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
        "zoo/results/sgd",
        "python -m experiments.zoo --scale=cpu --datasets=mnist,fashion_mnist --methods=sgd "
        "--trainings=standard,interval",
        "zoo",
    ),
    "HMC between attack and proof": (
        "zoo/results/hmc",
        "python -m experiments.zoo --scale=cpu --datasets=mnist,fashion_mnist --methods=hmc "
        "--trainings=standard --mixed_runs=runs/mixed_mnist,runs/mixed_fashion_mnist",
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
