"""The README keeps its promises: its code runs, its tables are those of committed results."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import run_attack
from bnn_adv.attacks.validation import check_problem
from bnn_adv.report import markdown_table
from bnn_adv.report.evaluation import format_evaluation
from bnn_adv.report.table import to_markdown
from experiments import reproduce
from experiments.autoattack.report import build_overview, summarise
from experiments.benchmark.table import format_markdown
from experiments.launch.tables import list_tables, verdicts_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMITTED = sorted((ROOT / "experiments").glob("**/results/*/results.json"))


def of_experiment(name):
    return [p for p in COMMITTED if json.loads(p.read_text("utf-8"))["experiment"] == name]


@pytest.mark.slow
def test_python_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    names = {
        "apply_fn": lambda params, x: x.reshape(len(x), -1) @ params,
        "samples": jnp.asarray(rng.normal(size=(5, 64, 10)), jnp.float32),
        "x": jnp.asarray(rng.uniform(size=(6, 8, 8, 1)), jnp.float32),
        "jax": jax,
    }
    names["y"] = names["apply_fn"](names["samples"].mean(0), names["x"]).argmax(-1)
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 8
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert 0 <= names["evaluation"].adversarial_accuracy <= 1
    assert 0 <= names["fresh"].accuracy <= 1
    for kind in ("of_linen", "of_nnx", "of_equinox"):
        x, y, threat = names["x"], names["y"], names["bnn_adv"].LInf(0.1)
        assert check_problem(names[kind], x, y, threat) == 10
        attack, objective = names["pgd"].build(num_steps=2), names["get_objective"]("dlr")
        x_adv = run_attack(jax.random.key(0), attack, objective, names[kind], x, y, threat=threat)
        assert 0 < np.abs(x_adv - x).max() <= 0.1 + 1e-6


@pytest.mark.parametrize("path", of_experiment("evaluate"), ids=lambda path: path.parent.name)
def test_tables_are_those_of_the_committed_results(path):
    results = json.loads(path.read_text("utf-8"))
    assert markdown_table(results).strip() in README
    assert results["command"] in README
    assert (path.parent / "figures" / "accuracy.png").exists()


@pytest.mark.parametrize("path", of_experiment("attack"), ids=lambda path: path.parent.name)
def test_evaluations_are_the_committed_ones(path):
    results = json.loads(path.read_text("utf-8"))
    assert format_evaluation(results).strip() in README
    assert results["command"] in README
    assert (path.parent / "figures" / "curve.png").exists() == (results["curve"] is not None)


@pytest.mark.parametrize("path", of_experiment("benchmark"), ids=lambda path: path.parent.name)
def test_speeds_are_those_of_the_committed_benchmark(path):
    results = json.loads(path.read_text("utf-8"))
    assert format_markdown(results["rows"]) in README
    assert results["command"] in README
    assert (path.parent / "figures" / "cost.png").exists()


@pytest.mark.parametrize("path", of_experiment("autoattack"), ids=lambda path: path.parent.name)
def test_the_comparison_with_autoattack_is_the_committed_one(path):
    results = json.loads(path.read_text("utf-8"))
    assert to_markdown(build_overview(results["rows"])) in README
    assert results["summary"] == summarise(results["rows"])
    assert results["summary"] in " ".join(README.split())
    assert results["command"] in README


STUDIES = [path for name in reproduce.ITEMS for path in of_experiment(name)]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.parent.name)
def test_studies_are_the_committed_ones(path):
    results = json.loads(path.read_text("utf-8"))
    assert results["summary"] in README
    assert results["command"] in README
    verdicts = verdicts_table(results["verdicts"])
    assert verdicts is None or to_markdown(verdicts) in README
    for figure in results["figures"]:
        assert (path.parent / figure["file"]).exists()


WHOLE = of_experiment("protocol_ablation") + of_experiment("table2")


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.parent.name)
def test_what_stands_beside_the_paper_is_quoted_whole(path):
    tables = list_tables(json.loads(path.read_text("utf-8")))
    assert "Beside the paper" in [table.title for table in tables]
    for table in tables:
        assert to_markdown(table) in README, table.title


def test_every_picture_and_file_that_it_links_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert local
    for link in local:
        assert (ROOT / link).exists(), link
