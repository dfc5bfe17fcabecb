"""Measure in a fresh process what a running one cannot: compilation, device counts, peaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 600


def call(module: str, request: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """Run a module with a request as its argument and return the reply on its last line.

    Args:
      module: Its name, to be run with ``python -m``.
      request: JSON values.
      environment: Variables to set beside this process's own.

    Raises:
      RuntimeError: The process failed; the message ends with what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(request)],
        cwd=_ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"python -m {module} '{json.dumps(request)}' failed with status {done.returncode}:\n"
            + done.stderr[-2000:]
        )
    reply: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return reply
