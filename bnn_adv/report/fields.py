"""Read one experiment's results: which models, which suites, which attacks.

A run holds any subset of models and suites; the order is always that of the results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from bnn_adv.report.wording import Measured, one_line, to_dict, to_dicts, to_interval, to_number

Results = Mapping[str, Any]
"""The content of ``results.json``, schema version 1."""

WORST = "worst"
_NOT_ATTACKS = {"softmax_robustness", "zero_gradient_share", "intervals", "not_finite"}
_NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}  # noqa: RUF001
_DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion MNIST",
    "digits": "8x8 digits",
    "half_moons": "half moons",
}


class Line(NamedTuple):
    """One model as predicted by one set of draws.

    model: Name of the model.
    label: The name, and whether the draws are fresh.
    is_fresh: The draws that predict are not those that the attacker knew.
    num_samples: Number of draws that predict.
    accuracy: On clean images.
    suites: Numbers by name of the suite.
    row: The row of ``results`` that it is from.
    """

    model: str
    label: str
    is_fresh: bool
    num_samples: int | None
    accuracy: Measured
    suites: Mapping[str, Mapping[str, Any]]
    row: Mapping[str, Any]

    def attack(self, suite: str, name: str) -> Measured:
        """Return the accuracy under one attack of a suite."""
        numbers = self.suites.get(suite, {})
        return Measured(
            to_number(numbers.get(name)), to_interval(to_dict(numbers.get("intervals")).get(name))
        )


def check_schema(results: Results) -> None:
    """Refuse results that this version cannot read.

    Raises:
      ValueError: The results have another schema version.
    """
    version = results.get("schema_version", 1)
    if version != 1:
        raise ValueError(
            f"The results have schema version {version!r}; this version of bnn_adv reads 1. "
            "Use the version of bnn_adv that wrote them."
        )


def list_lines(results: Results) -> list[Line]:
    """Return every model in order, each followed by its fresh draws where it has any."""
    return [line for row in to_dicts(results.get("rows")) for line in _lines_of(row)]


def list_suites(results: Results) -> tuple[str, ...]:
    """Return the suites that were run, in the order in which the results name them."""
    found = [name for line in list_lines(results) for name in line.suites]
    named = [name for name in to_dict(results.get("protocols")) if name in found]
    return tuple(dict.fromkeys([*named, *found]))


def list_attacks(results: Results, suite: str, *, stages: bool = False) -> tuple[str, ...]:
    """Return the attacks of a suite, over all models.

    Args:
      results: What the run found.
      suite: Its name.
      stages: List the stages of a worst-case suite too; else only its ``"worst"``.
    """
    numbers = [line.suites.get(suite, {}) for line in list_lines(results)]
    names = tuple(
        dict.fromkeys(name for part in numbers for name in part if _is_attack(name, part[name]))
    )
    return (WORST,) if WORST in names and not stages else names


def is_worst_case(results: Results, suite: str) -> bool:
    """Return whether a suite reports the per-image worst case of its attacks."""
    return WORST in list_attacks(results, suite)


def list_warnings(results: Results) -> list[tuple[str, str]]:
    """Return every warning as (name of the model, sentence)."""
    found = []
    for row in to_dicts(results.get("rows")):
        sentences = to_dict(row.get("diagnostics")).get("warnings") or []
        sentences = [sentences] if isinstance(sentences, str) else sentences
        found += [
            (one_line(row.get("model") or "unnamed"), one_line(sentence)) for sentence in sentences
        ]
    return found


def describe_setting(results: Results, *, ascii_only: bool = False) -> str:
    """Return data and threat in one phrase: ``MNIST, 500 test inputs, ℓ∞, ε = 0.3``.

    Args:
      results: What the run found.
      ascii_only: Write symbols out, for terminals of any encoding.
    """
    dataset = one_line(results.get("dataset") or "")
    norm = one_line(results.get("norm") or "")
    count = results.get("num_test")
    epsilon = to_number(results.get("epsilon"))
    name, ends = "epsilon" if ascii_only else "ε", to_interval(results.get("epsilon_range"))
    radius = "" if epsilon is None else f"{name} = {epsilon:g}"
    if ends is not None:
        radius = f"{name} from {ends[0]:g} to {ends[1]:g}, one an input"
    parts = [
        _DATASETS.get(dataset, dataset),
        f"{count:,} test inputs" if isinstance(count, int) else "",
        norm if ascii_only else _NORMS.get(norm, norm),
        radius,
    ]
    return ", ".join(part for part in parts if part)


def _is_attack(name: str, value: Any) -> bool:
    # A missing accuracy may be None; other records of a suite are no numbers.
    return name not in _NOT_ATTACKS and (value is None or hasattr(value, "__float__"))


def _lines_of(row: Mapping[str, Any]) -> Iterator[Line]:
    model = one_line(row.get("model") or "unnamed")
    yield _line(model, model, False, row, row)
    if fresh := to_dict(row.get("fresh")):
        yield _line(model, f"{model}, fresh draws", True, fresh, row)


def _line(
    model: str, label: str, is_fresh: bool, numbers: Mapping[str, Any], row: Mapping[str, Any]
) -> Line:
    count = to_number(numbers.get("num_samples"))
    accuracy = Measured(
        to_number(numbers.get("accuracy")), to_interval(numbers.get("accuracy_interval"))
    )
    suites = {
        name: part for name, part in to_dict(numbers.get("protocols")).items() if to_dict(part)
    }
    num_samples = None if count is None else int(count)
    return Line(model, label, is_fresh, num_samples, accuracy, suites, row)
