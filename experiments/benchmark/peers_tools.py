"""Public attack tools, each in a virtual environment of its own: find, ask and run them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmark import peers_child

TOOLS = tuple(peers_child.DISTRIBUTIONS)
"""Names of environments, and of what is imported in them."""

_BUILT = re.compile(r"BLAS_INFO=(\w+)")
_LIBRARIES = re.compile(r"- (Intel\(R\) [^\n]*?) Version ([\d.]+)|- (OpenBLAS[^\n]*)")
# AutoAttack takes minutes, and many more on a machine that does other work.
_SECONDS = 7200


class Tool(NamedTuple):
    """An environment that answers.

    name: One of ``TOOLS``.
    python: Its interpreter.
    version: Of the tool.
    torch: Version of its PyTorch.
    blas: Library of that PyTorch's matrix products.
    capability: Instruction set for which it chooses kernels.
    """

    name: str
    python: str
    version: str
    torch: str
    blas: str
    capability: str


def open_tools(folder: str) -> tuple[list[Tool], list[str]]:
    """Ask every environment of a folder what it has.

    Args:
      folder: Holds environments, or links to them, with the names of ``TOOLS``; empty for none.

    Returns:
      The tools that answer, and the names of those that have no environment.

    Raises:
      ValueError: The folder is given and has none of them; an environment cannot run its tool.
    """
    pythons = {name: Path(folder, name, "bin", "python").absolute() for name in TOOLS}
    there = {name: str(path) for name, path in pythons.items() if folder and path.exists()}
    if folder and not there:
        raise ValueError(
            f"--peers={folder} holds none of {', '.join(f'{name}/bin/python' for name in TOOLS)}. "
            "Give a folder of virtual environments, see the README of the benchmark."
        )
    tools = [_describe(name, python) for name, python in there.items()]
    return tools, [name for name in TOOLS if name not in there]


def call(tool: Tool, *arguments: str) -> dict[str, Any]:
    """Run the tool's script and return the record that it prints last.

    Raises:
      RuntimeError: It fails, or prints something else; the message ends with what it said.
    """
    try:
        return _call(tool.name, tool.python, *arguments)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{tool.name} failed: {_last_words(error)}") from error


def parse_blas(config: str) -> str:
    """Return the library of matrix products that ``torch.__config__.show()`` names."""
    built = _BUILT.search(config)
    names = [
        f"{found[1]} {found[2]}" if found[1] else found[3] for found in _LIBRARIES.finditer(config)
    ]
    names = [" ".join(name.replace("Intel(R) ", "").split()) for name in names]
    return ", ".join([f"BLAS_INFO={built[1] if built else 'unknown'}", *names])


def _describe(name: str, python: str) -> Tool:
    try:
        said = _call(name, python, "--describe")
        return Tool(
            name,
            python,
            said["version"],
            said["torch"],
            parse_blas(said["config"]),
            said["capability"],
        )
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        raise ValueError(
            f"The environment {name} of --peers cannot run {name}: {_last_words(error)}. See the "
            "README of the benchmark for what to install, or take it out of the folder."
        ) from error


def _call(name: str, python: str, *arguments: str) -> dict[str, Any]:
    # -P: the folder of the script, whose modules have common names, stays out of the path.
    command = [python, "-P", str(Path(peers_child.__file__).resolve()), name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    lines = done.stdout.strip().splitlines()
    record = json.loads(lines[-1]) if lines else None
    if not isinstance(record, dict):
        raise ValueError("its last line is no record")
    return record


def _last_words(error: Exception) -> str:
    return (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
