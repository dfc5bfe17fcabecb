"""The entry point, run for real on tiny data."""

import importlib
import json
import shutil

import numpy as np
import pytest

from bnn_adv import files
from bnn_adv.canonical import digest
from bnn_adv.threat import LInf
from experiments import evaluate
from experiments.presets import PRESETS
from tests.experiments.command import run_here

# As many draws of every posterior: the same programs serve all of them.
TINY = {
    "compilation_cache": "off",
    "dataset": "digits",
    "num_train": 200,
    "num_test": 12,
    "hidden": 16,
    "sgd_epochs": 3,
    "sgd_learning_rate": 0.01,
    "ensemble_size": 3,
    "vi_epochs": 3,
    "vi_num_samples": 3,
    "hmc_num_samples": 3,
    "hmc_num_warmup": 4,
    "hmc_num_chains": 1,
    "hmc_num_integration_steps": 3,
    "epsilon": 0.15,
}


@pytest.fixture(scope="module", autouse=True)
def parsed_flags():
    if not evaluate.FLAGS.is_parsed():
        evaluate.FLAGS(["test"])


def run(workdir, **flags):
    run_here(workdir, **{**TINY, **flags})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run(folder)
    return folder


def test_fills_the_run_directory(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "adversarial.npz",
        "command.txt",
        "config.json",
        "diagnostics.json",
        "environment.json",
        "figures",
        "metrics.jsonl",
        "posterior",
        "report.html",
        "results.json",
    }
    assert {path.suffix for path in (finished / "figures").iterdir()} == {".png"}
    for line in (finished / "metrics.jsonl").read_text().splitlines():
        assert "time" in json.loads(line)


def test_results_have_the_promised_schema(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["schema_version"] == 1
    assert results["experiment"] == "evaluate"
    assert (results["num_train"], results["num_test"], results["epsilon"]) == (200, 12, 0.15)
    assert [row["model"] for row in results["rows"]] == ["deterministic", "ensemble", "vi", "hmc"]
    for row, draws in zip(results["rows"], (1, 3, 3, 3), strict=True):
        assert row["num_samples"] == draws
        assert set(row["protocols"]) == {"published", "corrected", "strong"}
        for name in ("published", "corrected"):
            assert {"fgsm", "pgd"} <= set(row["protocols"][name])
        assert "worst" in row["protocols"]["strong"]
        for protocol in row["protocols"].values():
            shares = [value for key, value in protocol.items() if key != "intervals"]
            assert all(0 <= share <= 1 for share in shares)
            assert {"softmax_robustness", "zero_gradient_share"} <= set(protocol)
        assert (row["fresh"] is not None) == (row["model"] == "vi")
        assert row["seconds"]["training"] > 0


def test_rows_predict_as_the_published_code_has_their_kind_of_network_do(finished):
    """Deterministic networks and ensembles by logits, Bayesian ones by probabilities."""
    results = json.loads((finished / "results.json").read_text())
    rules = ["mean_logits", "mean_logits", "mean_probabilities", "mean_probabilities"]
    assert [row["decision_rule"] for row in results["rows"]] == rules
    for row, rule in zip(results["rows"], rules, strict=True):
        record = json.loads((finished / "posterior" / f"{row['model']}.json").read_text())
        assert record["decision_rule"] == rule
    page = (finished / "report.html").read_text()
    assert "Predictions of ensemble: by the mean of the draws" in page


def test_saved_adversarial_images_are_what_the_results_say(finished):
    results = json.loads((finished / "results.json").read_text())
    saved = files.read_arrays(finished / "adversarial.npz")
    for row in results["rows"]:
        for name, protocol in row["protocols"].items():
            attacks = ("worst",) if name == "strong" else ("fgsm", "pgd")
            for attack in attacks:
                images = saved[f"{row['model']}/{name}/{attack}"]
                success = saved[f"{row['model']}/{name}/{attack}/success"]
                assert protocol[attack] == pytest.approx(1 - success.mean())
                assert float(LInf(0.15).distance(images, saved["x"]).max()) <= 0.15 + 1e-6
                assert images.min() >= 0
                assert images.max() <= 1


def test_a_finished_run_is_reprinted_and_not_run_again(finished, capsys):
    before = (finished / "metrics.jsonl").read_text()
    run(finished)
    assert "finished run" in capsys.readouterr().out
    assert (finished / "metrics.jsonl").read_text() == before


def test_an_interrupted_run_continues_to_the_same_numbers(finished, tmp_path, monkeypatch):
    copy = tmp_path / "again"
    attack_or_load = evaluate.attack_or_load

    def interrupted(config, model, *arguments):
        if model == "vi":
            raise OSError("pulled plug")
        return attack_or_load(config, model, *arguments)

    monkeypatch.setattr(evaluate, "attack_or_load", interrupted)
    with pytest.raises(SystemExit):
        run(copy)
    assert not (copy / "results.json").exists()
    monkeypatch.undo()
    first = (copy / "posterior" / "ensemble.npz").stat().st_mtime_ns
    run(copy)
    assert (copy / "posterior" / "ensemble.npz").stat().st_mtime_ns == first
    old, new = (json.loads((f / "results.json").read_text())["rows"] for f in (finished, copy))
    for a, b in zip(old, new, strict=True):
        assert a["protocols"] == b["protocols"]
        assert a["fresh"] == b["fresh"]


@pytest.mark.slow
def test_files_that_were_replaced_between_starts_are_refused(tmp_path, monkeypatch, capsys):
    """An image 1.0 away was reported within the radius."""
    flags = {"dataset": "half_moons", "models": "deterministic", "protocol": "corrected"}
    folder = tmp_path / "run"

    def stop(*arguments):
        raise OSError("pulled plug")

    monkeypatch.setattr(evaluate, "write_report", stop)
    with pytest.raises(SystemExit):
        run(folder, **flags)
    monkeypatch.undo()
    stored, record = folder / "partial/deterministic.npz", folder / "partial/deterministic.json"
    arrays, row = files.read_arrays(stored), files.read_json(record)
    name = "deterministic/corrected/pgd"
    far = {**arrays, name: np.clip(arrays[name] + 1.0, 0, 1)}
    files.write_arrays(stored, far)
    with pytest.raises(SystemExit):
        run(folder, **flags)
    assert "partial/deterministic.npz was replaced" in capsys.readouterr().err
    # Forged with its hash: the referee sees it.
    row["value"]["arrays"] = digest(far, "arrays")
    files.write_json(record, row)
    with pytest.raises(SystemExit):
        run(folder, **flags)
    assert "outside the ball" in capsys.readouterr().err
    row["value"]["arrays"] = digest(arrays, "arrays")
    files.write_arrays(stored, arrays)
    files.write_json(record, row)
    draws = folder / "posterior/deterministic.npz"
    trained = files.read_arrays(draws)
    files.write_arrays(draws, {key: leaf + 1 for key, leaf in trained.items()})
    with pytest.raises(SystemExit):
        run(folder, **flags)
    assert "posterior/deterministic were replaced" in capsys.readouterr().err
    files.write_arrays(draws, trained)
    run(folder, **flags)
    results = json.loads((folder / "results.json").read_text())
    kept = files.read_json(folder / "posterior/deterministic.json")["draws_hash"]
    assert results["rows"][0]["draws_hash"] == kept["deterministic"]
    assert results["environments"] == [results["environment"]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset": "cifar"}, "Unknown --dataset: cifar. Known: digits"),
        ({"models": "vi,gp"}, "Unknown --models: gp. Known: deterministic"),
        ({"protocol": "weak"}, "Unknown protocol 'weak'. Known: published"),
        ({"preset": "table9"}, "Unknown preset 'table9'. Known: digits"),
        ({"activation": "gelu"}, "Unknown activation 'gelu'. Known: relu"),
        ({"architecture": "vit"}, "Unknown architecture 'vit'. Known: fc"),
        ({"norm": "l7"}, "Unknown --norm: l7"),
        ({"epsilon": -0.1}, "--epsilon must be at least 0, got -0.1"),
        ({"epsilon": "inf"}, "--epsilon must be finite, got inf"),
        ({"seed": -1}, "--seed must lie between 0 and 2**32 - 1, got -1"),
        ({"seed": 2**32 + 1}, "--seed must lie between 0 and 2**32 - 1"),
        ({"architecture": "conv"}, "--architecture=conv does not take the inputs of digits"),
        ({"dataset": "half_moons", "architecture": "conv"}, "of half_moons, of shape [2]"),
        ({"vi_num_samples": 0}, "--vi_num_samples must be at least 1, got 0"),
        ({"sample_chunk": 5}, "--sample_chunk=5 is larger than the number of draws"),
        ({"sgd_learning_rate": -1}, "--sgd_learning_rate must be positive"),
        ({"num_test": 361}, "361"),
        ({"dataset": "mnist", "data_dir": "/nowhere"}, "nowhere"),
    ],
)
def test_errors_say_what_is_allowed_and_leave_nothing(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        run(tmp_path / "run", **flags)
    assert exit_info.value.code == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_runs_folder_is_refused(finished, capsys):
    with pytest.raises(SystemExit):
        run(finished, epsilon=0.1)
    assert "epsilon is 0.15 there, 0.1 here" in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert "holds no run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_workdir_that_cannot_be_made_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        run(tmp_path / "file" / "run")
    assert "file" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path / "run", models="deterministic", sgd_learning_rate=1e30)
    assert "not finite at epoch" in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.json").exists()
    assert not list((tmp_path / "run").glob("posterior/*"))


def test_half_moons_and_a_full_disk(tmp_path, monkeypatch, capsys):
    """Points instead of images; then the disk fills up when the results are written."""
    flags = {"dataset": "half_moons", "models": "deterministic", "protocol": "corrected"}
    run(tmp_path / "points", **flags)
    saved = files.read_arrays(tmp_path / "points" / "adversarial.npz")
    assert saved["deterministic/corrected/pgd"].shape == (12, 2)
    shutil.rmtree(tmp_path / "points")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(SystemExit):
        run(tmp_path / "points", **flags)
    assert "No space left" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".tmp", ".npz"}]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    config_module = importlib.import_module("experiments.evaluate_config")
    config_module.validate(config_module.EvaluateConfig(**PRESETS[name]))


def test_presets_hold_the_papers_settings():
    mnist, fashion = PRESETS["table2_mnist"], PRESETS["table2_fashion_mnist"]
    assert (mnist["architecture"], mnist["hidden"], mnist["activation"]) == (
        "conv",
        512,
        "leaky_relu",
    )
    assert (mnist["vi_epochs"], mnist["vi_learning_rate"], mnist["epsilon"]) == (5, 0.01, 0.3)
    assert (fashion["hidden"], fashion["vi_epochs"], fashion["vi_learning_rate"]) == (
        1024,
        10,
        0.001,
    )
    hmc, other = PRESETS["table3_mnist"], PRESETS["table3_fashion_mnist"]
    assert (hmc["hidden"], hmc["hmc_num_samples"], hmc["hmc_num_integration_steps"]) == (
        1024,
        500,
        10,
    )
    assert (hmc["hmc_step_size"], other["hmc_step_size"]) == (0.002, 0.001)
    assert mnist["vi_kl_weight"] == mnist["vi_init"] == "published"


def test_published_protocol_alone_brings_its_training_switches():
    training = importlib.import_module("experiments.training")
    config_module = importlib.import_module("experiments.evaluate_config")
    both = config_module.EvaluateConfig()
    alone = config_module.EvaluateConfig(protocol=("published",))
    for config, expected in ((both, ("corrected", "network")), (alone, ("published", "published"))):
        _, settings = training.method_config(config, "vi")
        assert (settings.kl_weight, settings.init) == expected


def test_draws_on_disk_give_the_same_run(finished, tmp_path, capsys):
    """Training leaves the draws there; a start after training reads them from there."""
    flags = {"models": "vi,hmc", "protocol": "corrected", "draws_on_disk": True}
    run(tmp_path / "a", **flags)
    assert not list((tmp_path / "a" / "posterior").glob("*.npz"))
    rows, others = (
        {row["model"]: row for row in json.loads((f / "results.json").read_text())["rows"]}
        for f in (tmp_path / "a", finished)
    )
    for name in ("vi", "vi_fresh", "hmc"):
        stored = files.read_json(tmp_path / "a" / "posterior" / name / "draws.json")
        for leaf, expected in files.read_arrays(finished / "posterior" / f"{name}.npz").items():
            found = np.load(tmp_path / "a" / "posterior" / name / stored["arrays"][leaf])
            np.testing.assert_array_equal(found, expected)
    for name, row in rows.items():
        assert row["accuracy"] == others[name]["accuracy"]
        assert row["diagnostics"]["warnings"] == others[name]["diagnostics"]["warnings"]
        # An image on the edge may fall to the other side by rounding.
        found, expected = (r["protocols"]["corrected"]["pgd"] for r in (row, others[name]))
        assert found == pytest.approx(expected, abs=0.1)
    with pytest.raises(SystemExit):
        run(tmp_path / "b", **flags, mesh="draws:2")
    assert "--draws_on_disk works on one device" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_runs_repeat_bit_for_bit(finished, tmp_path):
    flags = {"models": "vi", "protocol": "corrected"}
    run(tmp_path / "a", **flags)
    saved = files.read_arrays(tmp_path / "a" / "adversarial.npz")
    before = files.read_arrays(finished / "adversarial.npz")
    np.testing.assert_array_equal(saved["vi/corrected/pgd"], before["vi/corrected/pgd"])
