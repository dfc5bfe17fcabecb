"""Whatever a run recorded, as pairs of name and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_adv.inference.transitions import ess_per_second
from bnn_adv.report import wording
from bnn_adv.report.fields import Results

Pairs = tuple[tuple[str, str], ...]

_MAX_SHOWN = 6


def list_diagnostics(results: Results) -> tuple[tuple[str, Pairs], ...]:
    """Return what is known of every model besides its accuracies.

    Args:
      results: What the run found.

    Returns:
      (name of the model, pairs of name and text). Warnings are not among them.
    """
    return tuple(
        (wording.one_line(row.get("model") or "unnamed"), _of_model(row))
        for row in wording.to_dicts(results.get("rows"))
    )


def describe_settings(settings: Any) -> Pairs:
    """Return settings as pairs of name and text, nested ones as ``outer.inner``.

    Args:
      settings: A mapping; anything else has no pairs.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in wording.to_dict(settings).items():
        if isinstance(value, Mapping):
            pairs += [(f"{name}.{inner}", text) for inner, text in describe_settings(value)]
        else:
            pairs.append((str(name), describe(value)))
    return tuple(pairs)


def describe(value: Any) -> str:
    """Return a value as short text; long lists by their length and ends."""
    if value is None:
        return wording.NOT_AVAILABLE
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {describe(part)}" for name, part in value.items())
    if isinstance(value, Sequence) or hasattr(value, "tolist"):
        return _describe_list(value)
    number = wording.to_number(value)
    if number is None:
        return wording.NOT_AVAILABLE if isinstance(value, float) else str(value)
    is_count = number.is_integer() and abs(number) < 1e15
    return f"{int(number):,}" if is_count and not isinstance(value, float) else f"{number:.4g}"


def _describe_list(value: Any) -> str:
    values = value.tolist() if hasattr(value, "tolist") else list(value)
    if not isinstance(values, list):
        return describe(values)
    if len(values) <= _MAX_SHOWN:
        return ", ".join(map(describe, values)) or "none"
    return f"{describe(values[0])} to {describe(values[-1])} ({len(values):,} values)"


def _of_model(row: Mapping[str, Any]) -> Pairs:
    parameters = row.get("num_parameters")
    known = {
        "network": row.get("network"),
        "parameters": parameters,
        "draws": row.get("num_samples"),
    }
    recorded = wording.to_dict(row.get("diagnostics"))
    diagnostics = {name: value for name, value in recorded.items() if name != "warnings"}
    diagnostics |= ess_per_second(recorded)
    seconds = {f"{name} (s)": value for name, value in wording.to_dict(row.get("seconds")).items()}
    present = {name: value for name, value in known.items() if value is not None}
    pairs = describe_settings(present | diagnostics | seconds)
    return tuple((name.replace("_", " "), text) for name, text in pairs)
