"""``experiments.autoattack`` on a linear posterior, whose truth is a closed form; without PyTorch.

In PyTorch's place stands a script that writes the same files and attacks a linear network exactly.
"""

import dataclasses
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.compute import files
from bnn_adv.data import load_dataset
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.evaluation.verification import verify_adversarial
from bnn_adv.inference import Data, InferenceResult
from bnn_adv.networks import MLP, get_apply_fn
from bnn_adv.posteriors.posterior import Posterior
from experiments.autoattack import __main__ as autoattack
from experiments.autoattack import attackers
from experiments.autoattack.config import Config, ProcessConfig
from experiments.autoattack.posteriors import POSTERIORS, Recipe
from experiments.launch import stages

CONFIG = Config(
    posteriors=("det_relu",), threats=("linf:0.05", "linf:0.1"), suites=("fast",), num_images=24
)

PEER = """
import json, os, pathlib, sys
import numpy as np
folder = pathlib.Path(__file__).parent
with open(folder / "calls", "a") as file:
    file.write(" ".join(sys.argv[3:]) + "\\n")
if "--versions" in sys.argv:
    print(json.dumps({"python": "3", "torch": "2", "pyautoattack": "0"}))
    sys.exit()
given = dict(text[2:].split("=") for text in sys.argv[4:])
epsilon = float(given["epsilon"])
if epsilon == 0.1 and (folder / "fail").exists():
    print("one line")
    sys.exit("no more memory")
arrays = dict(np.load(sys.argv[3]))
x, y = arrays["x"].reshape(len(arrays["x"]), -1), arrays["y"]
w, b = arrays["w0"][0], arrays["b0"][0]
found = x.copy()
for other in range(10):
    towards = np.clip(x + epsilon * np.sign(w[:, other] - w.T[y]), 0, 1).astype(np.float32)
    fools = (towards @ w + b).argmax(1) != y
    found[fools] = towards[fools]
clean, broken = (x @ w + b).argmax(1) == y, (found @ w + b).argmax(1) != y
if epsilon == 0.1:
    # The first broken image leaves the box, and the first that stands is said to be broken.
    found[np.flatnonzero(broken & clean)[0], 0] = -0.01
    broken[np.flatnonzero(~broken)[0]] = True
np.savez(given["out"] + "/images.npz", x_adv=found.reshape(arrays["x"].shape), broken=broken,
         clean_correct=clean)
record = {"stages": [{"attack": "exact", "standing": int((~broken).sum()), "seconds": 0.5}],
          "seconds": 0.5, "warnings": []}
pathlib.Path(given["out"], "record.json").write_text(json.dumps(record))
"""


def nearest_mean(network, data):
    """Return a linear network: the class whose mean image is nearest."""
    means = jnp.stack([data.x[data.y == k].reshape(-1, 64).mean(0) for k in range(10)])
    layer = {"kernel": 2 * means.T[None], "bias": -(means**2).sum(1)[None]}
    posterior = Posterior(get_apply_fn(network), {"logits": layer})
    return InferenceResult(posterior, {"warnings": []}, None)


def make_posterior():
    dataset = load_dataset("digits")
    data = Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train))
    return nearest_mean(MLP((), 10), data).posterior


def truth(run, epsilon):
    """Return which images are correct, and which of them stand: the exact maximum over the box."""
    draws = files.read_arrays(run / "posterior" / "det_relu.npz")
    w, b = (next(v for k, v in draws.items() if kind in k)[0] for kind in ("kernel", "bias"))
    dataset = load_dataset("digits", num_test=CONFIG.num_images)
    x, y = dataset.x_test.reshape(-1, 64).astype(np.float64), dataset.y_test
    correct, standing = (x @ w + b).argmax(1) == y, np.ones(len(x), bool)
    for other in range(10):
        d = w[:, other] - w.T[y]
        moved = np.clip(x + epsilon * np.sign(d), 0, 1)
        standing &= ((moved * d).sum(1) + b[other] - b[y] <= 0) | (y == other)
    return np.flatnonzero(correct).tolist(), np.flatnonzero(correct & standing).tolist()


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peer")
    (folder / "peer.py").write_text(PEER, "utf-8")
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/peer.py "$@"\n')
    (folder / "python").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def finished(peer, tmp_path_factory):
    """A run whose second threat failed at first, and what the second start called."""
    run, processes = (
        tmp_path_factory.mktemp("runs") / "run",
        ProcessConfig("off", 1, f"{peer}/python"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(POSTERIORS, "det_relu", Recipe(MLP((), 10), nearest_mean))
        # One attack of three: each compiles a program.
        short = dataclasses.replace(get_suite("fast"), entries=get_suite("fast").entries[:1])
        patch.setattr(attackers, "get_suite", lambda name: short)
        (peer / "fail").touch()
        with pytest.raises(ValueError, match="ended with status 1: no more memory"):
            autoattack.compare(CONFIG, str(run), processes)
        (peer / "fail").unlink()
        (peer / "calls").unlink()
        results = autoattack.compare(CONFIG, str(run), processes)
        yield run, results, processes, (peer / "calls").read_text("utf-8").splitlines()


@pytest.mark.slow
def test_both_sides_find_the_truth_of_a_linear_posterior(finished):
    run, results, _, _ = finished
    row = results["rows"][0]
    clean, standing = truth(run, 0.05)
    assert 0 < len(standing) < len(clean)
    assert row["autoattack"]["clean"] == clean
    assert row["clean"] == len(clean) / 24
    for record in (row["autoattack"], row["suites"]["fast"]):
        assert record["standing"] == standing
        assert record["accuracy"] == len(standing) / 24
    images = run / "adversarial" / "det_relu-linf_0_05-autoattack.npz"
    assert verify_adversarial(images, make_posterior()).ok


def test_images_that_are_not_what_they_should_be_are_named_and_not_counted(finished):
    run, results, _, _ = finished
    row = results["rows"][1]
    clean, standing = truth(run, 0.1)
    outside = min(set(clean) - set(standing))
    said = min(standing)
    assert row["autoattack"]["outside"] == [outside]
    assert row["autoattack"]["unconfirmed"] == [said]
    assert row["autoattack"]["standing"] == sorted({*standing, outside})
    assert row["suites"]["fast"]["only_suite_broke"] == [outside]
    assert row["suites"]["fast"]["only_autoattack_broke"] == []
    assert results["errors"] == [
        f"det_relu, linf:0.1, AutoAttack: not counted, outside ball or box: images {outside}.",
        "det_relu, linf:0.1, AutoAttack: not counted, said to be broken, and classified correctly "
        f"by the posterior: images {said}.",
    ]
    assert "see the 2 errors" in results["summary"]
    assert "fewer in 1; AutoAttack alone broke 0, fast alone 1." in results["summary"]


def test_a_second_start_does_what_is_missing_and_a_third_nothing(finished, peer, capsys):
    run, results, processes, calls = finished
    assert calls[0] == "--versions"
    assert len(calls) == 2
    assert "--norm=linf --epsilon=0.1 --version=standard --seed=0" in calls[1]
    assert autoattack.compare(CONFIG, str(run), processes) == results
    text = capsys.readouterr().out
    assert "holds a finished run" in text
    assert "| det_relu | linf:0.1 |" in text
    assert len((peer / "calls").read_text("utf-8").splitlines()) == 2
    with pytest.raises(ValueError, match="seed is 0 there, 1 here"):
        autoattack.compare(dataclasses.replace(CONFIG, seed=1), str(run), processes)
    assert results["environment"]["autoattack"]["torch"] == "2"
    assert {"command", "seed", "seconds", "config"} <= set(results)


def test_a_run_of_another_pytorch_or_other_draws_is_refused(finished, peer, tmp_path):
    _, _, processes, _ = finished
    (peer / "fail").touch()
    config = dataclasses.replace(CONFIG, threats=("linf:0.1",))
    with pytest.raises(ValueError, match="no more memory"):
        autoattack.compare(config, str(tmp_path / "run"), processes)
    for part, message in (
        ("det_relu-draws", "with other draws or images of det_relu"),
        ("autoattack_versions", "was begun with {'torch': '1'}, and"),
    ):
        path = tmp_path / "run" / "partial" / f"{part}.json"
        other = {"torch": "1"}
        sealed = stages.wrap(other, files.read_json(path)["sources"])
        files.write_json(path, sealed)
        with pytest.raises(ValueError, match=message):
            autoattack.compare(config, str(tmp_path / "run"), processes)
    (peer / "fail").unlink()
