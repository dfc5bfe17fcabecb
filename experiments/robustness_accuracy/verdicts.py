"""Which claims about the clouds hold: rank correlations, of chains only where they have mixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.inference.mixing import ESS_LEAST, RHAT_LIMIT
from experiments.launch.significance import holm
from experiments.launch.tables import Verdict
from experiments.robustness_accuracy.correlation import Correlation, rank_correlation
from experiments.robustness_accuracy.figures import (
    Row,
    corrected_metric,
    published_metric,
    strong_accuracy,
)

_CHAINS = ("hmc",)
"""Methods whose draws stand for the posterior only where chains have mixed."""
_JUDGED: dict[str, Callable[[Row], float]] = {
    "corrected metric": corrected_metric,
    "accuracy, strong": strong_accuracy,
}


class _Question(NamedTuple):
    """A claim about a sign, before its p-value is adjusted for all that are asked."""

    claim: str
    name: str
    expected: int
    found: Correlation | None
    otherwise: str
    note: str


def list_verdicts(rows: Sequence[Row], least_accuracy: float, seed: int) -> list[Verdict]:
    """Return whether robustness rises or falls with accuracy as the paper says.

    A sign is told from zero by permutation tests, adjusted for all verdicts that have one (Holm).

    Args:
      rows: Finished networks.
      least_accuracy: Of the networks that are judged, in [0, 1].
      seed: Of the permutations.
    """
    questions = list(_ask(rows, least_accuracy, seed))
    tests = [question.found.p_value for question in questions if question.found is not None]
    adjusted = iter(holm(tests))
    verdicts = []
    for claim, name, expected, found, otherwise, note in questions:
        if found is None:
            verdicts.append(Verdict(claim, f"{name}: {otherwise}", None))
            continue
        found = found._replace(p_value=next(adjusted))
        measured = f"{name}: rho {found}; p adjusted for {len(tests)} tests{note}"
        verdicts.append(Verdict(claim, measured, found.sign == expected if found.sign else None))
    return verdicts


def list_groups(rows: Sequence[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """Yield data set, method and networks of every group, in the order of the rows."""
    for dataset, method in dict.fromkeys((row["dataset"], row["method"]) for row in rows):
        own = [r for r in rows if (r["dataset"], r["method"]) == (dataset, method)]
        yield dataset, method, own


def correlate(
    rows: Sequence[Row], measure: Callable[[Row], float], seed: int
) -> Correlation | None:
    """Return the rank correlation of a measure with clean accuracy, over networks."""
    return rank_correlation(
        [row["accuracy"] for row in rows], [measure(row) for row in rows], seed=seed
    )


def has_chains(row: Row) -> bool:
    """Return whether a network's draws come from Markov chains."""
    return row["method"] in _CHAINS


def count_mixed(rows: Sequence[Row]) -> str:
    """Return how many of the networks with chains have mixed, as a sentence; nothing for none."""
    found = [has_mixed(row["diagnostics"]) for row in rows if has_chains(row)]
    if not found:
        return ""
    sentence = (
        f" Chains have mixed for {found.count(True)} of {len(found)} HMC networks (maximum R-hat "
        f"at most {RHAT_LIMIT}, smallest effective sample size at least {ESS_LEAST:g})"
    )
    if unknown := found.count(None):
        sentence += f"; {unknown} could not be judged"
    return f"{sentence}."


def _ask(rows: Sequence[Row], least: float, seed: int) -> Iterator[_Question]:
    too_few = f"too few networks of {100 * least:g} %, or no variance"
    for dataset, method, own in list_groups(rows):
        accurate = [row for row in own if row["accuracy"] >= least]
        judged = [row for row in accurate if _is_judged(row)]
        bayesian = method != "sgd"
        claim = (
            f"{method.upper()}, {dataset}: more accurate networks are "
            f"{'more' if bayesian else 'less'} robust"
        )
        otherwise, note = too_few, ""
        if len(judged) < len(accurate):
            otherwise = _say_unmixed(accurate)
            note = f"; of {len(accurate)} networks those whose chains have mixed"
        for name, measure in _JUDGED.items():
            found = correlate(judged, measure, seed)
            yield _Question(claim, name, 1 if bayesian else -1, found, otherwise, note)
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        # This asks what a metric is worth. Draws of chains that have not mixed are networks too,
        # and leaving them out would choose by a property that the metric does not know.
        own = [r for r in rows if r["dataset"] == dataset and r["accuracy"] >= least]
        unmixed = sum(not _is_judged(row) for row in own)
        whose = f" ({unmixed} by HMC, chains not shown to have mixed)" if unmixed else ""
        found = rank_correlation(
            [published_metric(row) for row in own],
            [strong_accuracy(row) for row in own],
            seed=seed,
        )
        yield _Question(
            f"{dataset}: networks with a higher published metric keep more accuracy under strong "
            "attacks",
            f"over all methods{whose}",
            1,
            found,
            too_few,
            f"; {_describe_top(own)}" if own else "",
        )


def _is_judged(row: Row) -> bool:
    return not has_chains(row) or has_mixed(row["diagnostics"]) is True


def _say_unmixed(rows: Sequence[Row]) -> str:
    mixed = [has_mixed(row["diagnostics"]) for row in rows if has_chains(row)]
    word = "unmixed: not judged" if False in mixed else "not judged"
    return f"{word} ({mixed.count(True)} of {len(mixed)} have chains that mixed)"


def _describe_top(rows: Sequence[Row]) -> str:
    """Return what the networks that the published metric calls most robust keep: ranks hide it."""
    best = sorted(rows, key=published_metric)[-max(1, len(rows) // 4) :]
    kept = [100 * strong_accuracy(row) for row in best]
    return (
        f"the quarter with the highest metric (n = {len(best)}, {published_metric(best[0]):.3f} "
        f"and more) keeps {min(kept):.1f} to {max(kept):.1f} %"
    )
