"""``experiments.certifiers`` at tiny sizes, without and with a tool that answers."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from experiments.certifiers import __main__ as certifiers
from experiments.certifiers import children, measure
from experiments.certifiers.config import SCALES, Config
from experiments.certifiers.networks import NETWORKS, make_trap, trap_posterior
from experiments.certifiers.report import build_study

TINY = Config(**{**SCALES["smoke"], "num_images": 4})
VERSIONS = {"auto_LiRPA": "0.3", "torch": "2", "numpy": "1"}


def margins(shift=0.0, theirs=True):
    """Two networks' margins, of which theirs are less by ``shift``."""
    ours = {method: [1.0, -2.0, 3.0] for method in measure.METHODS}
    other = {method: [m - shift for m in values] for method, values in ours.items()}
    radius = {"epsilon": 0.1, "num_images": 3, "ours": ours, "theirs": None}
    radius |= {"theirs": other, "versions": VERSIONS} if theirs else {}
    return [{"network": name, "radii": [radius]} for name in ("a", "b")]


def trap(certified=False, deepbayes=None):
    return {
        "clean": [0.4, 0.3, 0.2],
        "reached_at": 0.6,
        "reached": [0.45, 0.47, 0.08],
        "certified": certified,
        "reached_difference": -20.0,
        "deepbayes": deepbayes,
    }


@pytest.mark.slow
def test_without_environments_the_rest_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "NETWORKS", {"fc 32": NETWORKS["fc 32"]})
    config = dataclasses.replace(TINY, venvs=str(tmp_path / "none"))
    results = certifiers.run(config, str(tmp_path / "run"))
    table = results["tables"][0]
    assert {row[5] for row in table["rows"]} == {"not run"}
    assert len(table["rows"]) == len(measure.METHODS)
    assert all(row[3] > 0 for row in table["rows"])
    assert [row[2] for row in results["tables"][1]["rows"]] == ["not run: no environment"] * 3
    assert [verdict["holds"] for verdict in results["verdicts"]] == [True]
    assert certifiers.run(config, str(tmp_path / "run")) == results


def test_two_draws_predict_another_class_in_the_ball():
    found = measure._trap(dataclasses.replace(TINY, venvs="nowhere"))
    assert not found["certified"]
    assert np.argmax(found["clean"]) == 0
    assert np.argmax(found["reached"]) == 1
    # What is averaged by others: worst logits of every class, whatever the input.
    own = make_trap()
    ends = np.array([[0.0], [0.6]])
    logits = np.einsum("nd,sdc->snc", ends, own["w"]) + own["b"][:, None]
    worst = np.concatenate([logits[..., :1].min(axis=1), logits[..., 1:].max(axis=1)], axis=1)
    shares = np.exp(worst) / np.exp(worst).sum(axis=1, keepdims=True)
    assert shares.mean(axis=0).argmax() == 0
    assert trap_posterior(own).num_samples == 2


@pytest.mark.parametrize(
    ("shift", "said", "holds"),
    [
        (0.0, "6 of 6 equal auto_LiRPA's to 0.0e+00 nats", True),
        (2e-4, "0 of 6 equal auto_LiRPA's to 0.0e+00 nats, 6 tighter (by at most 2.0e-04)", True),
        (-2e-4, "0 of 6 equal auto_LiRPA's to 0.0e+00 nats, 6 looser (by at most 2.0e-04)", False),
    ],
)
def test_a_difference_of_margins_is_seen(shift, said, holds):
    study = build_study({"networks": margins(shift), "trap": trap(), "jax": {"found": None}})
    assert [verdict.holds for verdict in study.verdicts] == [True, holds, holds]
    assert f"CROWN: {said}." in study.summary
    assert len(study.plots) == 1


def test_a_wrong_certificate_is_seen():
    study = build_study(
        {"networks": margins(theirs=False), "trap": trap(True), "jax": {"found": None}}
    )
    assert [verdict.holds for verdict in study.verdicts] == [False]
    assert study.plots == ()


def test_what_tools_said_stands_in_the_table():
    deepbayes = {
        "versions": {"deepbayes": "0.1.0"},
        "averaged_worst_softmax": [[0.37, 0.28, 0.35, 0.0]],
        "smallest_difference": -18.0,
        "convolution_escape": {"verifiers": 2.5, "probverification": 1.5},
    }
    immrax = {"a * b": {"escape": 3e-8}, "convolution": {"refused": "NotImplementedError: conv"}}
    tried = {
        "versions": {"jax": "1", "immrax": "2", "jax_verify": "3"},
        "jax_verify": "AttributeError: gone",
        "immrax": immrax,
    }
    study = build_study(
        {"networks": margins(), "trap": trap(deepbayes=deepbayes), "jax": {"found": tried}}
    )
    text = json.dumps(study.tables[1].rows)
    for words in ("AttributeError: gone", "3e-08", "NotImplementedError: conv", "2.50 and 1.50"):
        assert words in text
    assert "averages of worst softmaxes say 0.370, 0.280, 0.350" in study.summary


def test_a_tool_that_fails_is_named(tmp_path, monkeypatch):
    python = tmp_path / "jax" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert children.find_python(str(tmp_path), "jax") == str(python)
    assert children.find_python(str(tmp_path), "deepbayes") is None
    monkeypatch.setattr(children, "__file__", str(tmp_path / "children.py"))
    (tmp_path / "jax_child.py").write_text("raise SystemExit('no such package')")
    with pytest.raises(ValueError, match=r"jax of --venvs cannot run jax_child.py: no such pack"):
        children.call(str(python), "jax")
    (tmp_path / "jax_child.py").write_text("print('noise')\nprint('{\"a\": 1}')")
    assert children.call(str(python), "jax") == {"a": 1}
