"""Run a tool in the virtual environment of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

TOOLS = ("auto_lirpa", "jax", "deepbayes")
"""Names of environments and of the scripts ``NAME_child.py`` beside this file."""


def find_python(venvs: str, tool: str) -> str | None:
    """Return the interpreter of a tool's environment; None where there is none."""
    path = Path(venvs, tool, "bin", "python")
    return str(path.absolute()) if path.exists() else None


def call(python: str, tool: str, *arguments: str) -> dict[str, Any]:
    """Run a tool's script and return the record that it prints last.

    Raises:
      ValueError: It fails, or prints something else.
    """
    script = Path(__file__).with_name(f"{tool}_child.py")
    done = subprocess.run([python, str(script), *arguments], capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip() or "nothing was printed").splitlines()[-1]
        raise ValueError(
            f"The environment {tool} of --venvs cannot run {script.name}: {said}. See the README "
            "of this study for what to install."
        )
    record: dict[str, Any] = json.loads(lines[-1])
    return record
