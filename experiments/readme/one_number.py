"""One number of a committed result, by the kind of experiment: what tables of many runs show."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from bnn_adv.report.wording import format_percent
from experiments.launch.paper import as_printed, paper_rows

Record = Mapping[str, Any]


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
    among = len(results["config"]["methods"]) > 1
    mixed = _of_summary(
        "{0}: within the budget {1} alone has mixed"
        if among
        else "{0}: {1} has mixed, its bias is not judged",
        r"^([^:]+): none is shown .*?: (\w+)\.",
    )
    alone = _of_summary(
        "{0}: {1} has mixed, with {2} effective draws per 1,000 gradients",
        r"^([^:]+): (\w+) has mixed, with (\S+) effective draws",
    )
    none = _of_summary(
        "{0}: none mixed within the budget", r"^([^:]+): none mixed within the budget"
    )
    first = results["summary"].partition(". ")[0]
    ways = {" has mixed, with ": alone, "none is shown": mixed, "none mixed": none}
    return next((way for words, way in ways.items() if words in first), found)(results)


def _of_loss_gradients(results: Record) -> str:
    zeros = _of_summary(
        "MNIST, {0}: {1} % of single gradients are exactly zero",
        r"\bMNIST, (\w+): [^:]*, (\d+) % of single gradients are exactly zero",
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


def _of_ablation(results: Record) -> str:
    if results["claims"]:
        return _of_claim("Table 2, VI (ablation)")(results)
    return _of_verdict(
        "Of a posterior by HMC",
        "HMC whose chains have mixed: PGD as published leaves {0} %, a strong attack {1} %",
        r"PGD as published (\S+) .*suite `\w+` (\S+) .*chains: mixed",
    )(results)


_RIVALS = ("VI", "ensemble")


def _of_robustness(results: Record) -> str:
    grids = _of_summary(
        "HMC, MNIST: median published score {0}, accuracy under a strong attack {1}; chains have "
        "mixed for {2} networks",
        r"hmc on mnist (\S+) and (\S+ %).*mixed for (\d+ of \d+) HMC",
    )
    if "HMC of long trajectories" not in results["summary"]:
        return grids(results)
    trained = re.findall(r"ensemble of (\d+) passes on mnist (\S+) %", results["summary"])
    if len(trained) > 1:
        (shortest, first), *_, (longest, last) = trained
        (mixed,) = re.findall(r"HMC of long trajectories on mnist (\S+) %", results["summary"])
        ensembles = f"ensembles after {shortest} passes {first} %, after {longest} {last} %"
        return f"under a strong attack, mnist, in the median: {ensembles}, HMC {mixed} %"
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


_NUMBERS: Mapping[str, Callable[[Record], str]] = {
    "evaluate": _of_comparison,
    "attack": _of_evaluation,
    "certify": _of_certificate,
    "protocol_ablation": _of_ablation,
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
        "within {0}, {1}: {2} draws of {3} against one network: {4} points, {5}",
        r"Within (\S+): ([^:]+): (\d+) draws of (\S+) leave .*?"
        r"([+-]\S+ \[[^]]*\]) points, ([a-z ]+)",
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
        r"(\S+) %\.(?: The code of suites .*)?$",
    ),
    "samplers": _of_samplers,
}
