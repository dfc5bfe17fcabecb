"""Imports go one way, files stay short, and nothing lies loose."""

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[1]
ORDER = (
    *("compute", "data", "networks", "posteriors", "attacks", "bounds", "inference"),
    *("evaluation", "certification", "zoo", "theory", "report"),
)
SOURCES = [p for top in ("bnn_adv", "experiments") for p in sorted((ROOT / top).rglob("*.py"))]


def imports_of(path):
    """Return the modules of this project that a file imports, as (name, whether on demand)."""
    tree = ast.parse(path.read_text("utf-8"))
    top_level = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("bnn_adv", "experiments", "tests"):
                yield name, id(node) not in top_level


def test_packages_import_only_what_stands_before_them():
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        for name, on_demand in imports_of(path):
            other = name.split(".")
            assert other[0] != "tests", path
            if parts[0] != "bnn_adv" or len(parts) == 2:
                continue
            assert other[0] == "bnn_adv", (path, name)
            # Results draw themselves when they are asked to; nobody pays for that before.
            if on_demand and parts[1] in ("evaluation", "certification") and other[1] == "report":
                continue
            if len(other) > 1 and other[1] in ORDER:
                assert ORDER.index(other[1]) <= ORDER.index(parts[1]), (path, name)


def test_studies_do_not_import_each_other():
    studies = {path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py")}
    studies.remove("readme")
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        if parts[0] == "experiments" and parts[1] in {*studies, "launch"}:
            for name, _ in imports_of(path):
                other = name.split(".")
                if other[0] == "experiments" and other[1] in studies:
                    assert other[1] == parts[1], (path, name)


def test_nothing_lies_loose():
    assert [path.name for path in (ROOT / "bnn_adv").glob("*.py")] == ["__init__.py"]
    assert {path.name for path in (ROOT / "bnn_adv").iterdir() if path.is_dir()} <= {
        *ORDER,
        "__pycache__",
    }


def test_files_are_short():
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert not [path for path, count in lines.items() if count > 400]
    assert statistics.median(lines.values()) < 170
