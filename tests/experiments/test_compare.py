"""The entry point, run for real on tiny data."""

import json
import shutil
import zlib

import jax
import numpy as np
import pytest

from bnn_adv.attacks.threat import LInf
from bnn_adv.compute import files
from bnn_adv.compute.canonical import digest
from experiments import compare
from experiments.launch import stages
from experiments.launch.compare_config import check_preset, make_comparison
from experiments.launch.methods import ROWS
from experiments.launch.presets import PRESETS
from tests.experiments.baseline import assert_same
from tests.experiments.command import run_here

DATA_SETS = ("mnist", "fashion_mnist")

# As many draws of every posterior: the same programs serve all of them.
TINY = {
    "compilation_cache": "off",
    "dataset": "digits",
    "num_train": 200,
    "num_test": 12,
    "mlp.hidden": 16,
    "deterministic.num_epochs": 3,
    "deterministic.learning_rate": 0.01,
    "deterministic.minibatch_size": 64,
    "ensemble.num_epochs": 3,
    "ensemble.learning_rate": 0.01,
    "ensemble.minibatch_size": 64,
    "ensemble.num_members": 3,
    "vi.num_epochs": 3,
    "vi.num_samples": 3,
    "hmc.num_samples": 3,
    "hmc.num_warmup": 4,
    "hmc.step_size": 0.005,
    "hmc.num_integration_steps": 3,
    "hmc.adapt": "step_size",
    "epsilon": 0.15,
}


def run(workdir, **flags):
    given = {**TINY, **flags}
    # A command line has no flags of methods that it does not name.
    methods = given.get("methods", tuple(ROWS))
    unused = set(ROWS) - set(methods.split(",") if isinstance(methods, str) else methods)
    run_here(workdir, **{k: v for k, v in given.items() if k.split(".")[0] not in unused})


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
        for suite in row["protocols"].values():
            shares = [value for key, value in suite.items() if key != "intervals"]
            assert all(0 <= share <= 1 for share in shares)
            assert {"softmax_robustness", "zero_gradient_share"} <= set(suite)
        assert (row["fresh"] is not None) == (row["model"] == "vi")
        assert row["seconds"]["training"] > 0


def test_rows_are_those_of_the_first_version(finished):
    """The same flags found the same numbers before methods had settings of their own."""
    assert_same("compare", json.loads((finished / "results.json").read_text())["rows"])


def test_the_papers_rows_keep_their_random_keys_and_others_have_their_names():
    rows = make_comparison({"methods": (*ROWS, "svi")}).rows
    numbers = [0, 1, 2, 3, zlib.crc32(b"svi")]
    for row, number in zip(rows, numbers, strict=True):
        expected = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), number), 1)
        assert (row.key(7, 1) == expected).all()


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
        for name, suite in row["protocols"].items():
            attacks = ("worst",) if name == "strong" else ("fgsm", "pgd")
            for attack in attacks:
                images = saved[f"{row['model']}/{name}/{attack}"]
                success = saved[f"{row['model']}/{name}/{attack}/success"]
                assert suite[attack] == pytest.approx(1 - success.mean())
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
    attack_or_load = compare.attack_or_load

    def interrupted(config, method, *arguments):
        if method.name == "vi":
            raise OSError("pulled plug")
        return attack_or_load(config, method, *arguments)

    monkeypatch.setattr(compare, "attack_or_load", interrupted)
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
    flags = {"dataset": "half_moons", "methods": "deterministic", "suites": "corrected"}
    folder = tmp_path / "run"

    def stop(*arguments, **options):
        raise OSError("pulled plug")

    monkeypatch.setattr(compare, "write_report", stop)
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
    value = {**row["value"], "arrays": digest(far, "arrays")}
    files.write_json(record, stages.wrap(value, row["sources"]))
    with pytest.raises(SystemExit):
        run(folder, **flags)
    assert "outside the ball" in capsys.readouterr().err
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
        ({"dataset": "cifar"}, "Unknown data set 'cifar'. Known: digits"),
        ({"methods": "vi,gp"}, "Unknown method 'gp'. Known: deterministic"),
        ({"methods": "vi,vi"}, "--methods must not name anything twice, got vi, vi"),
        ({"methods": ","}, "--methods needs at least 1 of them, got nothing"),
        ({"suites": "weak"}, "Unknown suite 'weak'. Known: published"),
        ({"preset": "table9"}, "Unknown preset 'table9'. Known: digits"),
        ({"mlp.activation": "gelu"}, "flag --mlp.activation=gelu: value should be one of <relu|"),
        ({"network": "vit"}, "Unknown network 'vit'. Known: mlp"),
        ({"vi.network": "vit"}, "Unknown network 'vit'. Known: mlp"),
        ({"norm": "l7"}, "flag --norm=l7: value should be one of <linf|l2|l1>"),
        ({"epsilon": -0.1}, "--epsilon must be at least 0, got -0.1"),
        ({"epsilon": "inf"}, "--epsilon must be a finite number of float32, got inf"),
        ({"epsilon": "1e308"}, "--epsilon must be a finite number of float32, got 1e+308"),
        ({"vi.prior.scale": "nan"}, "--vi.prior.scale must be a finite number of float32, got nan"),
        ({"seed": -1}, "--seed must be at least 0, got -1"),
        ({"seed": 2**32 + 1}, "--seed must be at most 4294967295, got"),
        ({"network": "conv"}, "--network=conv does not take the inputs of digits"),
        ({"dataset": "half_moons", "network": "conv"}, "of half_moons, of shape [2]"),
        ({"vi.num_samples": 0}, "--vi.num_samples must be at least 1, got 0"),
        ({"sample_chunk": 5}, "--sample_chunk=5 is larger than the number of draws"),
        ({"ensemble.learning_rate": -1}, "--ensemble.learning_rate must be above 0, got -1"),
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


def test_flags_of_a_method_that_is_not_trained_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_here(tmp_path / "run", methods="vi", **{"hmc.step_size": 0.1})
    assert "Unknown command line flag 'hmc.step_size'" in capsys.readouterr().err
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


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path / "run", methods="deterministic", **{"deterministic.learning_rate": 1e30})
    assert "not finite at epoch" in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.json").exists()
    assert not list((tmp_path / "run").glob("posterior/*"))


@pytest.mark.slow
def test_half_moons_and_a_full_disk(tmp_path, monkeypatch, capsys):
    """Points instead of images; then the disk fills up when the results are written."""
    flags = {"dataset": "half_moons", "methods": "deterministic", "suites": "corrected"}
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
    check_preset(PRESETS[name])
    assert make_comparison(PRESETS[name]).config.dataset == PRESETS[name]["dataset"]


def test_presets_hold_the_papers_settings():
    mnist, fashion = (make_comparison(PRESETS[f"table2_{n}"]) for n in ("mnist", "fashion_mnist"))
    rows = {row.name: row for row in mnist.rows}
    others = {row.name: row for row in fashion.rows}
    assert rows["vi"].describe() == "conv, 512 units, leaky_relu"
    assert others["vi"].describe() == "conv, 1024 units, leaky_relu"
    assert rows["hmc"].describe() == "fc, 32 units, relu"
    assert (rows["vi"].config.num_epochs, rows["vi"].config.learning_rate) == (5, 0.01)
    assert (others["vi"].config.num_epochs, others["vi"].config.learning_rate) == (10, 0.001)
    assert rows["vi"].config.kl_weight == rows["vi"].config.init == "published"
    assert (mnist.config.epsilon, rows["ensemble"].config.minibatch_size) == (0.3, 128)
    (hmc,), (other,) = (make_comparison(PRESETS[f"table3_{n}"]).rows for n in DATA_SETS)
    assert hmc.describe() == "fc, 1024 units, relu"
    assert (hmc.config.num_samples, hmc.config.num_integration_steps) == (500, 10)
    assert (hmc.config.step_size, other.config.step_size) == (0.002, 0.001)


def test_draws_on_disk_give_the_same_run(finished, tmp_path, capsys):
    """Training leaves the draws there; a start after training reads them from there."""
    flags = {"methods": "vi,hmc", "suites": "corrected", "draws_on_disk": True}
    run(tmp_path / "a", **flags)
    arrays = (tmp_path / "a" / "posterior").glob("*.npz")
    assert [path.name for path in arrays] == ["hmc_chains.npz"]
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
    flags = {"methods": "vi", "suites": "corrected"}
    run(tmp_path / "a", **flags)
    saved = files.read_arrays(tmp_path / "a" / "adversarial.npz")
    before = files.read_arrays(finished / "adversarial.npz")
    np.testing.assert_array_equal(saved["vi/corrected/pgd"], before["vi/corrected/pgd"])
