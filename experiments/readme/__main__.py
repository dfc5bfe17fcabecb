"""Write into the READMEs what they say of committed results.

  python -m experiments.readme

A README asks for a part between two marks; everything else in it is written by hand. In

    <!-- generated: results/cpu -->
    <!-- end of generated -->

the path is a folder with ``results.json`` and ``figures/``, relative to the README. Parts with a
name in place of a path: see ``PARTS``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from bnn_adv.compute import files
from experiments.readme.results import describe_result
from experiments.readme.tables import (
    table_of_experiments,
    table_of_paper,
    table_of_passes,
    table_of_results,
)

ROOT = Path(__file__).parents[2]
END = "<!-- end of generated -->"
PART = re.compile(rf"(<!-- generated: ([^\n]*?) -->\n)(?:.*?\n)??({re.escape(END)})", re.DOTALL)
"""A generated part: its first mark, the name in it, its last mark."""

PARTS: Mapping[str, Callable[[Path], str]] = {
    "experiments": lambda folder: table_of_experiments(ROOT, folder),
    "all results": lambda folder: table_of_results(ROOT, folder),
    "beside the paper": lambda folder: table_of_paper(ROOT, folder),
    "passes over the data": lambda folder: table_of_passes(ROOT),
}
"""Parts with a name: functions of the folder in which the README lies."""


def list_readmes(root: Path = ROOT) -> list[Path]:
    """Return the READMEs of the repository, the first of all first."""
    return [
        root / "README.md",
        *sorted((root / "bnn_adv").glob("**/README.md")),
        *sorted((root / "experiments").glob("**/README.md")),
    ]


def list_parts(text: str) -> list[str]:
    """Return the paths and names that a README asks for."""
    return [match[2] for match in PART.finditer(text)]


def generate(text: str, folder: Path) -> str:
    """Return a README with its generated parts as the committed results have them.

    Args:
      text: The README.
      folder: Where it lies.

    Raises:
      FileNotFoundError: A part asks for results that are not there.
      ValueError: A mark has no end.
    """
    if text.count("<!-- generated: ") != len(list_parts(text)) or text.count(END) != len(
        list_parts(text)
    ):
        raise ValueError(f"{folder / 'README.md'}: every mark needs its own {END!r}.")

    def replace(match: re.Match[str]) -> str:
        name = match[2]
        part = PARTS[name](folder) if name in PARTS else describe_result(folder, Path(name))
        return f"{match[1]}\n{part.strip()}\n\n{match[3]}"

    return PART.sub(replace, text)


def main() -> None:
    """Rewrite every README whose generated parts have changed, and say which."""
    for path in list_readmes():
        text = path.read_text("utf-8")
        written = generate(text, path.parent)
        if written != text:
            files.write_text(path, written)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
