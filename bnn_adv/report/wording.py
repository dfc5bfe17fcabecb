"""Turn whatever stands in the results into numbers, and numbers into text.

A run that was cut short holds gaps: what is absent, None or not finite is shown as "n/a" and never
as a zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, NamedTuple

NOT_AVAILABLE = "n/a"
_ACRONYMS = {"fgsm", "pgd", "apgd", "fab", "nes", "ce", "dlr"}


class Measured(NamedTuple):
    """A share in [0, 1] and its interval; None where a number is not available."""

    value: float | None
    interval: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Return per cent with the interval: ``90.0 [87.1, 92.4]``."""
        if self.value is None or self.interval is None:
            return format_percent(self.value)
        low, high = (_round(end * 100, 1) for end in self.interval)
        return f"{format_percent(self.value)} [{low}, {high}]"


def format_percent(value: Any) -> str:
    """Return a share in per cent with one decimal, halves rounded up, without the sign.

    A share that is neither none nor all does not print as 0.0 or 100.0.
    """
    share = to_number(value)
    if share is None:
        return NOT_AVAILABLE
    if 0 < share < 0.0005:
        return "<0.1"
    return ">99.9" if 0.9995 <= share < 1 else _round(share * 100, 1)


def format_fraction(value: Any) -> str:
    """Return a number with three decimals."""
    number = to_number(value)
    return NOT_AVAILABLE if number is None else _round(number, 3)


def format_short(value: Any) -> str:
    """Return a number with three significant digits."""
    number = to_number(value)
    return NOT_AVAILABLE if number is None else f"{number:.3g}"


def format_attack(name: str) -> str:
    """Return the name of an attack for readers.

    ``pgd_mean_logit_margin_100`` is PGD, mean logit margin, 100; ``fab_t_dlr`` is FAB-T, DLR.
    """
    head, *words = one_line(name).split("_")
    if head not in _ACRONYMS:
        return " ".join([head, *words])
    head = head.upper()
    if words[:1] == ["t"]:
        head, words = f"{head}-T", words[1:]
    numbers = words[-1:] if words and words[-1].isdigit() else []
    words = [
        word.upper() if word in _ACRONYMS else word for word in words[: -1 if numbers else None]
    ]
    return ", ".join(filter(None, (head, " ".join(words), *numbers)))


def one_line(value: Any) -> str:
    """Return text without line breaks, so that no name can break a table."""
    return " ".join(str(value).split())


def to_number(value: Any) -> float | None:
    """Return a finite float, or None for whatever is not one."""
    if value is None or isinstance(value, str | bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def to_interval(value: Any) -> tuple[float, float] | None:
    """Return two finite floats, or None for whatever is not a pair of them."""
    if isinstance(value, str | Mapping) or not hasattr(value, "__len__") or len(value) != 2:
        return None
    low, high = to_number(value[0]), to_number(value[1])
    return None if low is None or high is None else (low, high)


def to_dict(value: Any) -> Mapping[str, Any]:
    """Return a mapping, empty for whatever is not one."""
    return value if isinstance(value, Mapping) else {}


def to_dicts(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings of a sequence, none for whatever is not one."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return [item for item in value if isinstance(item, Mapping)] if is_list else []


def _round(value: float, digits: int) -> str:
    # Through the shortest decimal: 97.65 is a tie for the reader, whatever its binary neighbour is.
    # Products such as 100 * 0.0725 carry an error in the 16th digit, hence 12 significant digits.
    exact = Decimal(f"{value:.12g}")
    rounded = exact.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return f"{rounded + 0:f}"
