"""Public attack tools beside our suites: all but PyTorch, whose part a small script plays."""

import json
import sys

import numpy as np
import pytest

from bnn_adv.compute import files
from experiments.benchmark import (
    children,
    peer_torch,
    peers,
    peers_child,
    peers_ours,
    peers_problem,
    peers_tools,
)
from experiments.benchmark.__main__ import Config, benchmark
from experiments.benchmark.sizes import SIZES, PeersSize
from experiments.benchmark.table import describe_peers, format_markdown
from experiments.benchmark.timing import Timing

SIZE = PeersSize(units=8, draws=3, images=12, epochs=10)
CONFIG = """PyTorch built with:
  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605 for Intel(R) 64
  - Intel(R) MKL-DNN v3.12.0 (Git Hash 80afa71049cd69a3df32adcccb623b12cd7baa22)
  - Build settings: BLAS_INFO=mkl, BUILD_TYPE=Release
"""
# Adds the radius to every pixel that has room, and says that it took two seconds.
FAKE = f"""#!{sys.executable}
import json, sys
import numpy as np

tool, *rest = sys.argv[3:]
if rest == ["--describe"]:
    about = {{"version": "9.1", "torch": "2.0", "capability": "AVX512", "config": {CONFIG!r}}}
    print(json.dumps(about))
else:
    problem, attacked, epsilon, steps, budget = rest
    a = np.load(problem)
    h = np.maximum(np.einsum("nd,sdh->snh", a["x"].reshape(len(a["x"]), -1), a["w0"])
                   + a["b0"][:, None], 0)
    z = np.einsum("snh,shc->snc", h, a["w1"]) + a["b1"][:, None]
    p = (np.exp(z) / np.exp(z).sum(-1, keepdims=True)).mean(0)
    np.savez(attacked, x_adv=np.clip(a["x"] + 0.1, 0, 1), log_probs=np.log(p))
    print("chatter")
    record = {{"seconds": [2.0], "threads": 1, "product": "loop", "batch": 4}}
    print(json.dumps(record | {{"product_gflops_per_second": 50.0, "asked": rest[2:]}}))
"""


def install(folder, *names, text=FAKE):
    """Write environments whose interpreter is a script."""
    for name in names:
        python = folder / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(text)
        python.chmod(0o755)
    return str(folder)


@pytest.fixture(scope="module")
def problem():
    return peers_problem.train_problem(SIZE)


def mean_probabilities(problem, x):
    """Return the draws' mean probabilities, [N, C], in NumPy."""
    layers = [problem.posterior.samples[name] for name in ("hidden_0", "logits")]
    h = np.broadcast_to(x.reshape(len(x), -1), (SIZE.draws, len(x), 64))
    for index, layer in enumerate(layers):
        h = np.maximum(h, 0) if index else h
        h = h @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])[:, None]
    return (np.exp(h) / np.exp(h).sum(-1, keepdims=True)).mean(axis=0)


def test_the_case_runs_with_tools_that_answer(tmp_path, monkeypatch, capsys):
    calls = []

    def call_here(module, request, environment):
        calls.append((module, environment["JAX_ENABLE_COMPILATION_CACHE"]))
        return peers_ours.attack(request)

    monkeypatch.setattr(children, "call", call_here)
    folder = install(tmp_path / "venvs", "foolbox", "pyautoattack")
    config = Config(size="tiny", cases=("peers",), peers=folder)
    benchmark(config, str(tmp_path / "run"))
    assert calls == [(peers_ours.__name__, "false")]
    said = capsys.readouterr()
    for name in ("torchattacks", "art"):
        assert f"peers: {name} is left out" in said.err
    rows = files.read_json(tmp_path / "run" / "results.json")["rows"]
    assert [row["figure"].split(" (")[0] for row in rows] == [
        *("time, warm", "time, cold"),
        *("time", "pyautoattack's time / ours, fast"),
        *("time", "foolbox's time / ours, fast"),
    ]
    warm, cold = rows[0]["value"], rows[1]["value"]
    assert 0 < warm < cold
    assert [row["value"] for row in rows[2::2]] == [2.0, 2.0]
    for row in rows[3::2]:
        assert row["value"] == pytest.approx(2.0 / warm)
        assert row["details"]["ours_cold_seconds"] == cold
    asked = [row["details"]["asked"][:2] for row in rows[2::2]]
    assert asked == [["--epsilon=0.1", "--steps=0"], ["--epsilon=0.1", "--steps=2"]]
    # An accuracy stands beside every ratio, the tool's and ours.
    tiny = peers_problem.train_problem(SIZES["tiny"].peers)
    moved = np.clip(tiny.x + 0.1, 0, 1)
    left = peers_problem.judge(tiny, "", moved, 0.1).accuracy_left
    assert rows[2]["details"]["accuracy_left"] == left
    assert f"leaves {left:.3f}" in rows[3]["work"]
    ours = rows[0]["details"]["accuracy_left"]
    assert ours <= rows[0]["details"]["accuracy"]
    assert f"(which leaves {ours:.3f})" in rows[3]["figure"]
    # What they computed with is said where the table stands.
    assert describe_peers(rows) in said.out
    assert (
        "foolbox 9.1, in PyTorch 2.0 (BLAS_INFO=mkl, oneAPI Math Kernel Library 2024.2; "
        in said.out
    )
    assert "kernels for AVX512" in said.out
    assert format_markdown(rows).count("foolbox's time") == 1


def test_a_ratio_has_the_range_of_both_sides():
    ours = {"fast": peers.Ours(Timing(2.0, 1.0, 4.0, 3), 9.0, 0.25, {})}
    time, ratio = peers.compare_rows("work", "art", Timing(8.0, 6.0, 12.0, 2), ours, {"a": 1})
    assert (time.value, time.low, time.high, time.repeats) == (8.0, 6.0, 12.0, 2)
    assert (ratio.value, ratio.low, ratio.high, ratio.repeats) == (4.0, 1.5, 12.0, 2)
    assert ratio.figure == "art's time / ours, fast (which leaves 0.250)"
    assert ratio.details["a"] == 1
    assert ratio.details["ours_cold_seconds"] == 9.0
    assert time.target is ratio.target is None


def test_without_tools_nothing_is_described():
    assert describe_peers([{"case": "ceiling", "details": {}}]) == ""
    assert describe_peers([{"case": "peers", "details": {"product_gflops_per_second": 1}}]) == ""


def test_the_posterior_is_a_classifier_whose_draws_differ(problem):
    assert problem.posterior.num_samples == SIZE.draws
    kernel = np.asarray(problem.posterior.samples["hidden_0"]["kernel"])
    spread = kernel.std(axis=0, ddof=1)
    rms = np.sqrt((kernel.mean(axis=0) ** 2).mean())
    assert np.sqrt((spread**2).mean()) == pytest.approx(peers_problem.NOISE * rms, rel=0.15)
    assert peers_problem.judge(problem, "nobody", problem.x, 0.1).accuracy > 0.5


def test_what_is_saved_is_what_is_attacked(problem, tmp_path):
    peers_problem.save(tmp_path / "problem.npz", problem)
    found = peers_problem.load(str(tmp_path / "problem.npz"))
    np.testing.assert_array_equal(found.x, problem.x)
    log_probs = np.log(mean_probabilities(found, found.x))
    peers_problem.check_predictions(problem, "NumPy", log_probs)
    with pytest.raises(RuntimeError, match="model that NumPy attacks predicts other probabilities"):
        peers_problem.check_predictions(problem, "NumPy", log_probs + 0.1)


def test_images_are_judged_by_our_own_predictions_within_the_ball(problem):
    x = problem.x
    moved = np.clip(x - 0.1 * np.sign(np.random.default_rng(0).normal(size=x.shape)), 0, 1)
    moved = moved.astype(np.float32)
    clean, attacked = (mean_probabilities(problem, x).argmax(axis=1) for x in (x, moved))
    # An image that was wrong from the start does not count as standing, whatever it is moved to.
    changed = np.flatnonzero(clean != attacked)[:1]
    assert changed.size
    y = problem.y.copy()
    y[changed] = attacked[changed]
    found = peers_problem.judge(problem._replace(y=y), "a tool", moved, 0.1)
    assert found.accuracy == pytest.approx((clean == y).mean())
    assert found.accuracy_left == pytest.approx(((clean == y) & (attacked == y)).mean())
    for wrong in (moved + np.float32(0.01), np.where(x < 0.05, -0.01, x).astype(np.float32)):
        with pytest.raises(RuntimeError, match="images of a tool lie outside the l_inf ball"):
            peers_problem.judge(problem, "a tool", wrong, 0.1)


def test_tools_are_found_left_out_or_refused(tmp_path):
    assert peers_tools.open_tools("") == ([], list(peers_tools.TOOLS))
    with pytest.raises(ValueError, match="holds none of pyautoattack/bin/python"):
        peers_tools.open_tools(str(tmp_path))
    tools, missing = peers_tools.open_tools(install(tmp_path / "one", "art"))
    blas = "BLAS_INFO=mkl, oneAPI Math Kernel Library 2024.2"
    python = str(tmp_path / "one" / "art" / "bin" / "python")
    assert tools == [peers_tools.Tool("art", python, "9.1", "2.0", blas, "AVX512")]
    assert missing == ["pyautoattack", "torchattacks", "foolbox"]
    for number, text in enumerate(
        ("#!/bin/sh\necho No module named foolbox >&2; exit 1\n", "#!/bin/sh\necho 3\n")
    ):
        broken = install(tmp_path / f"broken{number}", "foolbox", text=text)
        with pytest.raises(ValueError, match="environment foolbox of --peers cannot run foolbox: "):
            peers_tools.open_tools(broken)
        tool = tools[0]._replace(python=f"{broken}/foolbox/bin/python")
        said = "No module named foolbox" if number == 0 else "its last line is no record"
        with pytest.raises(RuntimeError, match=f"art failed: {said}"):
            peers_tools.call(tool)


@pytest.mark.parametrize(
    ("config", "blas"),
    [
        (CONFIG, "BLAS_INFO=mkl, oneAPI Math Kernel Library 2024.2"),
        ("  - OpenBLAS 0.3\n  - Build settings: BLAS_INFO=open, ", "BLAS_INFO=open, OpenBLAS 0.3"),
        ("nothing", "BLAS_INFO=unknown"),
    ],
)
def test_the_library_of_products_is_read(config, blas):
    assert peers_tools.parse_blas(config) == blas


def test_the_fastest_form_is_chosen_after_a_warm_up(monkeypatch):
    forms = peers_child.list_forms("foolbox", 4, 128)
    assert {form.threads for form in forms} == {1, 4}
    assert {form.batch for form in forms} == {32, 128}
    assert {form.product for form in forms} == set(peers_child.PRODUCTS)
    assert {form.batch for form in peers_child.list_forms("torchattacks", 4, 128)} == {128}
    assert {form.batch for form in peers_child.list_forms("art", 1, 8)} == {8}
    clock, calls = [0.0], dict.fromkeys(forms, 0)
    monkeypatch.setattr(peers_child.time, "perf_counter", lambda: clock[0])

    def prepare(form):
        def call():
            calls[form] += 1
            # The fastest form is the slowest one when it is called first.
            first = calls[form] == 1
            clock[0] += 100.0 if first and form == forms[5] else 1.0 if form == forms[5] else 2.0

        return call

    assert peers_child.choose_form(forms, prepare) == forms[5]
    assert set(calls.values()) == {4}


@pytest.mark.skipif(not peer_torch.is_installed(), reason="PyTorch is not installed")
@pytest.mark.parametrize("product", peers_child.PRODUCTS)
def test_the_tools_model_is_our_predictive(product, problem, tmp_path):
    import torch

    peers_problem.save(tmp_path / "problem.npz", problem)
    arrays = dict(np.load(tmp_path / "problem.npz"))
    images = torch.tensor(np.moveaxis(problem.x, -1, 1)).requires_grad_(True)
    model = peers_child.build_model(arrays, product)
    log_probs = model(images)
    expected = np.log(mean_probabilities(problem, problem.x))
    np.testing.assert_allclose(log_probs.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    peers_problem.check_predictions(problem, "PyTorch", log_probs.detach().numpy())
    log_probs.sum().backward()
    assert float(images.grad.abs().max()) > 0
    assert not any(weight.requires_grad for weight in model.parameters())
    json.dumps(peers_child.Form(1, product, 4)._asdict())
