"""The README keeps its promises: its code runs, its tables are those of committed results."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.report import markdown_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
RESULTS = [
    path
    for path in sorted((ROOT / "experiments" / "results").glob("*/results.json"))
    if json.loads(path.read_text("utf-8"))["experiment"] == "evaluate"
]


def test_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = {
        "apply_fn": lambda params, x: x.reshape(len(x), -1) @ params,
        "samples": jnp.asarray(rng.normal(size=(5, 64, 10)), jnp.float32),
        "x": jnp.asarray(rng.uniform(size=(6, 8, 8, 1)), jnp.float32),
        "y": jnp.arange(6) % 10,
        "jax": jax,
    }
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert 0 <= names["result"].accuracies["worst"] <= 1


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_tables_are_those_of_the_committed_results(path):
    results = json.loads(path.read_text("utf-8"))
    assert markdown_table(results).strip() in README
    assert results["command"] in README
    assert (path.parent / "figures" / "accuracy.png").exists()


def test_every_picture_and_file_that_it_links_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert local
    for link in local:
        assert (ROOT / link).exists(), link
