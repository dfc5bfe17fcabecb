"""Parts of ``experiments.autoattack``: settings, the judge, the export, the pool, the table."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.compute import files
from bnn_adv.data import load_dataset
from bnn_adv.networks import MLP, build_network, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior, save_posterior
from experiments.autoattack import __main__ as autoattack
from experiments.autoattack import attackers, measure
from experiments.autoattack.config import Config, ProcessConfig
from experiments.autoattack.posteriors import Target, export, read_run
from experiments.autoattack.report import build_row, format_results, list_errors, summarise
from experiments.autoattack.torch_child import Stages


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"posteriors": ("mlp",)}, "posteriors must be one of det_relu, .*, got 'mlp'"),
        ({"posteriors": ("vi", "vi")}, "posteriors must not name anything twice, got vi, vi"),
        ({"suites": ("published",)}, "suites must be one of fast, strong, full, got 'published'"),
        ({"suites": ()}, "suites needs at least 1 of them, got nothing"),
        ({"threats": ("linf",)}, "got 'linf'"),
        ({"threats": ("l3:1",)}, "a norm of linf, l2, l1"),
        ({"threats": ("l2:nan",)}, "positive radius that is finite in float32, got 'l2:nan'"),
        ({"threats": ("l2:1", "l2:1.0")}, "threats must not name anything twice, got l2:1, l2:1.0"),
        (
            {"autoattack_version": "rand"},
            "autoattack_version must be one of standard, without_square",
        ),
        ({"num_images": 0}, "num_images must be at least 1, got 0"),
        (
            {"posterior": "runs/demo", "posteriors": ("vi",)},
            "posterior and posteriors cannot both be given",
        ),
        ({"model": "vi"}, "model is one of a run and needs posterior, got 'vi'"),
    ],
)
def test_wrong_settings_are_refused_by_name(changed, message):
    with pytest.raises(ValueError, match=message):
        Config(**changed)


def test_an_interpreter_without_pytorch_is_refused_before_any_work(tmp_path):
    processes = ProcessConfig("off", 1, str(tmp_path / "python"))
    with pytest.raises(ValueError, match=r"cannot run AutoAttack .*Install the extra"):
        autoattack.compare(Config(), str(tmp_path / "run"), processes)
    assert not (tmp_path / "run").exists()


def test_more_images_than_there_are_are_refused_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(attackers, "describe", lambda python: {})
    message = "^--num_images must be at most 360, the test images of digits, got 361.$"
    with pytest.raises(ValueError, match=message):
        autoattack.compare(
            Config(num_images=361), str(tmp_path / "run"), ProcessConfig("off", 1, "")
        )
    assert not (tmp_path / "run").exists()


def test_an_attacker_of_other_draws_is_refused():
    dataset = load_dataset("digits", num_test=8)
    params = init_params(jax.random.key(0), MLP((), 10), (8, 8, 1))
    posterior = Posterior.stack(get_apply_fn(MLP((), 10)), [params])
    target = Target(MLP((), 10), posterior, dataset.x_test, dataset.y_test)
    correct = np.asarray(posterior.apply_fn(params, jnp.asarray(target.x))).argmax(1) == target.y
    correct[5] = ~correct[5]
    asked = attackers.Asked("l2", 0.5, 0)
    with pytest.raises(ValueError, match=r"clean images \[5\]: it does not attack these draws"):
        attackers.judge(target, asked, target.x, np.zeros(8, bool), correct)


@pytest.mark.slow
def test_a_run_of_compare_is_read_and_exported(tmp_path):
    network = build_network("fc2", hidden=8, num_classes=10, activation="tanh")
    params = init_params(jax.random.key(0), network, (8, 8, 1))
    posterior = Posterior.stack(get_apply_fn(network), [params, jax.tree.map(lambda w: -w, params)])
    save_posterior(tmp_path / "posterior" / "vi.npz", posterior)
    files.write_json(tmp_path / "posterior" / "vi.json", {"decision_rule": "mean_logits"})
    known = {"dataset": "digits", "network": "mlp", "norm": "linf", "epsilon": 0.1, "num_test": 10}
    known |= {"mlp.hidden": 8, "mlp.depth": 2, "mlp.activation": "tanh"}
    files.write_json(tmp_path / "config.json", known)
    target = read_run(str(tmp_path), "vi", 5, "")
    arrays = export(target)
    assert str(arrays["decision_rule"]) == "mean_logits"
    h = arrays["x"].reshape(5, 64)
    for layer in range(3):
        h = np.tanh(h) if layer else h
        h = h @ arrays[f"w{layer}"][0] + arrays[f"b{layer}"][0]
    x = jnp.asarray(load_dataset("digits", num_test=5).x_test)
    expected = posterior.apply_fn(params, x)
    np.testing.assert_allclose(h, expected, atol=1e-5)

    files.write_json(tmp_path / "config.json", {**known, "network": "conv"})
    with pytest.raises(ValueError, match="network conv: only fully connected"):
        read_run(str(tmp_path), "vi", 5, "")
    files.write_json(tmp_path / "config.json", {**known, "dataset": "half_moons"})
    with pytest.raises(ValueError, match="4 classes at least, and half_moons"):
        read_run(str(tmp_path), "vi", 5, "")


def test_rows_of_posteriors_worked_on_apart_are_reported_in_order(monkeypatch):
    asked = []

    def apart(work, run, names, jobs):
        asked.append(jobs)
        return [work(run, name) for name in names]

    def work(config, python, run, name):
        return [{"posterior": name, "python": python, "run": run}]

    monkeypatch.setattr(measure, "work_apart", apart)
    monkeypatch.setattr(measure, "_work", work)
    rows = measure.measure_all("run", Config(posteriors=("vi", "ensemble")), "python", 9)
    assert rows == [
        {"posterior": name, "python": "python", "run": "run"} for name in ("vi", "ensemble")
    ]
    assert asked == [9]


def test_table_and_summary_follow_from_the_rows():
    head = {"posterior": "p", "threat": "l2:1", "norm": "l2", "epsilon": 1.0, "num_images": 8}
    stages = [{"attack": "apgd-ce", "standing": 3, "seconds": 1.0}]
    stages += [{"attack": "apgd-t", "standing": 2, "seconds": 1.0}]
    fine = {"clean": [0, 1, 2, 3, 4, 5], "outside": [], "unconfirmed": [], "seconds": 2.0}
    theirs = {**fine, "standing": [0, 1], "stages": stages}
    fast, strong = {**fine, "standing": [0, 1, 2], "stages": []}, {**fine, "standing": [1]}
    rows = [build_row(head, theirs, {"fast": fast, "strong": strong})]
    assert list_errors(rows) == []
    assert summarise(rows) == (
        "Cases (a posterior and a threat): 1. Of their 8 images AutoAttack leaves 2. "
        "fast leaves 3: more than AutoAttack in 1 of 1 cases, as many in 0, fewer in 0; AutoAttack "
        "alone broke 1, fast alone 0. "
        "strong leaves 1: more than AutoAttack in 0 of 1 cases, as many in 0, fewer in 1; "
        "AutoAttack alone broke 0, strong alone 1."
    )
    text = format_results(
        {
            "rows": rows,
            "config": {"autoattack_version": "standard"},
            "summary": "S",
            "errors": ["E"],
        }
    )
    assert "| p | l2:1 | 75 | 25 | 37.5 / 25 | 37.5 | 12.5 | 1 | 0 | 0 | 1 | 2 | 2 | 2 |" in text
    assert text.endswith("S\n\nError: E")


def test_stages_are_read_from_the_log_of_autoattack(capsys):
    stages = Stages(7)
    for level, text in (
        (logging.DEBUG, "apgd-ce - 1/1 - 2 out of 7 successfully perturbed"),
        (logging.DEBUG, "robust accuracy after APGD-CE: 71.43% (total time 0.1 s)"),
        (logging.WARNING, "there are 3 points with zero gradient!"),
        (logging.DEBUG, "robust accuracy after FAB-T: 28.57% (total time 0.2 s)"),
        (logging.DEBUG, "robust accuracy: 28.57%"),
    ):
        stages.emit(logging.LogRecord("a", level, "", 0, text, (), None))
    assert [(s["attack"], s["standing"]) for s in stages.stages] == [("apgd-ce", 5), ("fab-t", 2)]
    assert list(stages.warnings) == ["there are 3 points with zero gradient!"]
    assert "2 of 7 stand after fab-t" in capsys.readouterr().out
