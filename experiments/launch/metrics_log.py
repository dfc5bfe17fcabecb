"""``metrics.jsonl``: one JSON object a line, appended; its last line may be torn by a crash."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def append(path: Path, record: dict[str, Any]) -> None:
    """Append one object, with the time in seconds since 1970."""
    line = json.dumps({"time": round(time.time(), 3), **record})
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")


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
    """Return the sum of a number over the lines that hold it.

    Raises:
      ValueError: A line is damaged; the message names file and line.
    """
    if not path.exists():
        return 0.0
    found = 0.0
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not _is_object(line):
            raise ValueError(f"Line {number} of {path} is damaged: delete that line and run again.")
        found += json.loads(line).get(name, 0.0)
    return found


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
