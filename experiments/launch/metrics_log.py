"""``metrics.jsonl``: one JSON object a line, appended; its last line may be torn by a crash."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any


def append(path: Path, record: dict[str, Any]) -> list[str]:
    """Append one object, with the time in seconds since 1970.

    JSON knows no NaN and no infinity: null stands in their place.

    Returns:
      Names of the entries in which it does, such as ``loss`` or ``losses/3``.
    """
    lost: list[str] = []
    stamped = {"time": round(time.time(), 3), **record}
    line = json.dumps(_without_nan(stamped, "", lost), allow_nan=False)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    return lost


def _without_nan(value: Any, name: str, lost: list[str]) -> Any:
    """Return a value with None for every number that is not finite, and note their names."""
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(name)
        return None
    if not isinstance(value, dict | list | tuple):
        return value
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [(k, _without_nan(v, f"{name}/{k}".removeprefix("/"), lost)) for k, v in items]
    return dict(found) if isinstance(value, dict) else [entry for _, entry in found]


def cut_torn_line(path: Path) -> str:
    """Remove the last line where it is not whole, and return what was removed; empty where it is.

    What stands before it is kept: a start that was killed while it wrote tears one line.
    """
    if not path.exists():
        return ""
    content = path.read_bytes()
    kept = content.removesuffix(b"\n").rfind(b"\n") + 1
    last = content[kept:]
    if not last or (last.endswith(b"\n") and _is_object(last)):
        return ""
    with open(path, "r+b") as file:
        file.truncate(kept)
    return last.decode("utf-8", "replace").strip("\0\n") or f"{len(last)} bytes"


def total(path: Path, name: str) -> float:
    """Return the sum of a number over the lines that hold it; what is not finite adds nothing.

    Raises:
      ValueError: A line is damaged; the message names file and line.
    """
    if not path.exists():
        return 0.0
    found = 0.0
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not _is_object(line):
            raise ValueError(f"Line {number} of {path} is damaged: delete that line and run again.")
        entry = json.loads(line).get(name)
        found += entry if entry is not None and math.isfinite(entry) else 0.0
    return found


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
