"""Versions agree, and every place that checks the code checks the same."""

import re
import tomllib

import yaml

import bnn_adv
from experiments.readme.__main__ import ROOT


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    changes = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert project["version"] == citation["version"] == changes[0] == bnn_adv.__version__
    assert citation["license"] == project["license"]


def test_the_citation_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    bibtex = (ROOT / "README.md").read_text("utf-8")
    for author in paper["authors"]:
        assert f"{author['family-names']}, {author['given-names']}" in " ".join(bibtex.split())
    assert str(paper["year"]) in bibtex


def test_hooks_are_those_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0][
        "hooks"
    ]
    entries = [hook["entry"].replace(" --force-exclude", "") for hook in hooks]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for entry in entries:
        assert entry.replace(".venv/bin", "$(BIN)") in makefile


def test_the_hosted_checks_call_the_script():
    path = ROOT / ".github" / "workflows" / "ci.yml"
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert runs == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
