"""The benchmark: its arithmetic, and the entry point run for real at its smallest size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from bnn_adv.compute import files
from bnn_adv.inference.densities import Data
from experiments.benchmark import __main__ as module
from experiments.benchmark import (
    flops,
    memory,
    peer,
    peer_torch,
    pieces,
    scaling,
    timing,
    workloads,
)
from experiments.benchmark.__main__ import Config, benchmark
from experiments.benchmark.ceiling import bracket
from experiments.benchmark.epochs import time_epochs
from experiments.benchmark.registry import CASES
from experiments.benchmark.rows import Row, Target, rate_row
from experiments.benchmark.sizes import SIZES
from experiments.benchmark.table import (
    format_markdown,
    format_number,
    format_rows,
    summarise_targets,
)

ROOT = Path(__file__).parents[3]
TINY = SIZES["tiny"]

needs_torch = pytest.mark.skipif(not peer_torch.is_installed(), reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "bench"
    # The cases that start processes or train are run below, one by one and on smaller networks.
    cases = ("ceiling", "gradients", "pieces", "scaling", "attacks", "hmc", "memory")
    benchmark(Config(size="tiny", cases=cases), str(folder))
    return folder


def test_fills_the_folder(finished):
    results = files.read_json(finished / "results.json")
    assert results["schema_version"] == 1
    assert results["experiment"] == "benchmark"
    assert results["environment"]["backend"] == jax.default_backend()
    assert results["seconds"] > 0
    assert {path.name for path in (finished / "figures").iterdir()} == {"cost.png", "cost.pdf"}
    assert (finished / "figures" / "cost.pdf").read_bytes().startswith(b"%PDF")


def test_every_row_is_a_positive_number_within_its_spread(finished):
    rows = files.read_json(finished / "results.json")["rows"]
    assert {row["case"] for row in rows} == {
        "ceiling",
        "gradients",
        "pieces",
        "scaling",
        "attacks",
        "hmc",
        "memory",
    }
    for row in rows:
        assert np.isfinite(row["value"])
        assert row["value"] > 0 or row["case"] == "scaling"
        assert row["unit"]
        if row["low"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
        # Nothing is promised of networks that are smaller than their overheads.
        assert row["target"] is None


def test_another_experiments_folder_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"experiment": "evaluate"}')
    with pytest.raises(ValueError, match="another experiment"):
        benchmark(Config(size="tiny", cases=("ceiling",)), str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": "huge"}, "size must be one of tiny, default, full, got 'huge'"),
        ({"cases": ("speed",)}, "cases must be one of ceiling, .*got 'speed'"),
        ({"cases": ()}, "cases needs at least 1 of them, got nothing"),
        (
            {"draws": ("10",)},
            "draws must be 2 or more different whole numbers of at least 1, got 10",
        ),
        (
            {"images": ("0", "4")},
            "images must be 2 or more different whole numbers of at least 1, got 0,4",
        ),
        ({"cases": ("peer",), "torch": "no"}, "--torch=no"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_measured(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        benchmark(Config(**{"size": "tiny", **settings}), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_torch_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(peer_torch, "is_installed", lambda: False)
    with pytest.raises(ValueError, match="Install torch, or give --torch=no"):
        benchmark(Config(size="tiny", torch="yes"), str(tmp_path))
    _, cases = module._resolve(Config())
    assert cases == tuple(name for name in CASES if name not in ("peer", "peers"))


@pytest.mark.slow
def test_the_command_line(tmp_path):
    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "experiments.benchmark", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            check=False,
        )

    text = call("--help").stdout
    for flag in ("--size", "--cases", "--draws", "--images", "--torch", "--peers", "--workdir"):
        assert flag in text
    done = call("--size=tiny", "--cases=ceiling", f"--workdir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "GFLOP/s" in done.stdout
    assert "ceiling: float32 product" in done.stderr


NETWORKS = {
    "conv": (workloads.conv_net(64), workloads.MNIST),
    "mlp": (workloads.mlp(64), (784,)),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("argument", ["input", "weights"])
def test_operations_agree_with_the_compilers_count(kind, argument):
    network, shape = NETWORKS[kind]
    posterior = workloads.abstract_posterior(network, shape, 1)
    params = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), posterior.samples
    )
    x = jax.ShapeDtypeStruct((16, *shape), "float32")
    gradient = jax.jit(
        jax.grad(
            lambda params, x: posterior.apply_fn(params, x).sum(),
            argnums=1 if argument == "input" else 0,
        )
    )
    counted = gradient.lower(params, x).cost_analysis()["flops"] / 16
    count = flops.input_gradient if argument == "input" else flops.weight_gradient
    # The compiler also counts activations, pooling and biases, which are small but not nothing.
    assert counted == pytest.approx(count(network, shape), rel=0.06)


def test_operations_of_the_published_networks_by_hand():
    assert flops.count_forward(workloads.mlp(1024), (784,)) == (2 * 784 * 1024, 2 * 1024 * 10)
    first, rest = flops.count_forward(workloads.conv_net(512), workloads.MNIST)
    assert first == 2 * 24 * 24 * 25 * 32
    assert rest == 2 * 8 * 8 * 25 * 32 * 512 + 2 * 7 * 7 * 512 * 10
    assert flops.input_gradient(workloads.conv_net(512), workloads.MNIST) == 2 * (first + rest)
    with pytest.raises(TypeError, match="Cannot count"):
        flops.count_forward(None, (784,))


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_exponents_of_exact_powers_are_exact(exponent):
    counts = [1, 3, 10, 400]
    seconds = [0.02 * count**exponent for count in counts]
    assert scaling.fit_exponent(counts, seconds) == pytest.approx(exponent, abs=1e-12)


@pytest.mark.parametrize(("counts", "seconds"), [([3, 3], [1, 2]), ([1, 2], [0, 1])])
def test_an_exponent_needs_two_positive_points(counts, seconds):
    with pytest.raises(ValueError, match="at least two numbers"):
        scaling.fit_exponent(counts, seconds)


def test_timings_are_taken_in_turn_after_a_warm_up():
    calls = []
    works = {name: (lambda name=name: calls.append(name)) for name in ("a", "b")}
    timings = timing.compare(works, budget=0.0)
    assert calls == ["a", "b", "a", "b"]
    assert timings["a"].repeats == 1
    assert timing.compare(works, budget=0.0, rounds=3)["b"].repeats == 3
    several = timing.measure(lambda: None, budget=0.01)
    assert several.repeats > 1
    assert several.low <= several.median <= several.high


@pytest.mark.parametrize("kind", ["conv", "mlp"])
def test_pieces_multiply_what_the_network_multiplies(kind):
    """Every layer's two products, on the weights of the last draw."""
    network = workloads.conv_net(4) if kind == "conv" else workloads.mlp(6)
    posterior = workloads.draw_posterior(network, workloads.MNIST, 3)
    factors = pieces._factors(network, 2)
    found = pieces._multiply(posterior, factors)
    kernels = [kernel[2] for kernel in pieces._kernels(posterior.samples)]
    assert len(found) == len(factors) == len(kernels)
    for products, pair, kernel in zip(found, factors, kernels, strict=True):
        matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        for product, factor, weights in zip(products, pair, (matrix, matrix.T), strict=True):
            np.testing.assert_allclose(product, np.asarray(factor) @ weights, rtol=1e-4, atol=1e-4)
    pairs = zip(factors, kernels, strict=True)
    counted = sum(2 * pair[0].shape[0] * np.prod(kernel.shape) for pair, kernel in pairs)
    # Two images forward cost what one costs forward and back.
    assert counted == flops.input_gradient(network, workloads.MNIST)


def test_rates_are_shares_of_the_ceiling_around_the_work():
    result, ceiling = bracket(lambda: "done", TINY)
    assert result == "done"
    assert ceiling > 0
    row = rate_row("hmc", "work", timing.Timing(2.0, 1.0, 4.0, 3), flops=8e9, ceiling=1e10, cpu=0.5)
    assert (row.value, row.low, row.high) == pytest.approx((0.4, 0.2, 0.8))
    assert row.to_dict()["met"] is (None if row.target is None else False)


@pytest.mark.parametrize(
    ("target", "value", "is_met", "text"),
    [
        (Target(low=0.7), 0.7, True, ">= 0.7"),
        (Target(low=0.7), 0.69, False, ">= 0.7"),
        (Target(high=1.1), 1.2, False, "<= 1.1"),
        (Target(0.95, 1.05), 1.0, True, "0.95-1.05"),
        (Target(0.95, 1.05), float("nan"), False, "0.95-1.05"),
    ],
)
def test_targets(target, value, is_met, text):
    assert target.is_met(value) is is_met
    assert str(target) == text


def test_the_table_is_aligned_and_says_what_was_missed():
    rows = [
        Row("gradients", "MLP", "FLOP rate", 0.5, "of ceiling", 0.4, 0.6, 3, Target(low=0.7)),
        Row("gradients", "MLP", "time", 8.5e-5, "s"),
        Row("hmc", "chain", "FLOP rate", 0.8, "of ceiling", target=Target(low=0.75)),
    ]
    records = [row.to_dict() for row in rows]
    lines = format_rows(records).splitlines()
    assert " ".join(lines[0].split()) == "case work figure value unit min-max (n) target met"
    assert lines[2].split()[0] == "gradients"
    assert lines[2].split()[-4:] == ["(3)", ">=", "0.7", "NO"]
    assert "0.400-0.600" in lines[2]
    # What the line above says is not repeated.
    assert lines[3].split() == ["time", "8.50e-05", "s"]
    assert lines[4].endswith("yes")
    assert lines[2].index("of ceiling") == lines[4].index("of ceiling")
    assert summarise_targets(records) == "1 of 2 targets met; missed: MLP: FLOP rate."
    assert summarise_targets(records[2:]) == "1 of 1 targets met."
    assert "None" in summarise_targets(records[1:2])
    assert format_markdown(records).splitlines()[2:] == [
        "| MLP | FLOP rate | 0.500 of ceiling | >= 0.7 | NO |",
        "| chain | FLOP rate | 0.800 of ceiling | >= 0.75 | yes |",
    ]
    json.dumps(records, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.6372, "0.637"),
        (0.0123, "0.0123"),
        (1.0, "1.000"),
        (40.14, "40.14"),
        (966.84, "966.8"),
        (12345.6, "12346"),
        (8.5e-5, "8.50e-05"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert format_number(value) == text


def test_memory_counts_what_the_program_holds_beside_the_draws():
    request = {"kind": "mlp", "width": 16, "images": 4, "draws": 3}
    assert 0 < memory.compiled_bytes(request) < 10**7
    assert memory._draws_bytes(request) == 3 * 4 * (784 * 16 + 16 + 16 * 10 + 10)


@pytest.mark.slow
def test_epochs_are_timed_without_the_first_and_peers_between_them():
    count = 256
    x, y = workloads.images(count, (6,)), workloads.labels(count)
    calls = []
    ours, others = time_epochs(
        "sgd", workloads.mlp(4), Data(x, y), 3, between=lambda: calls.append(1)
    )
    assert ours.repeats == others.repeats == len(calls)
    assert ours.repeats >= 2
    assert 0 < ours.low <= ours.median


def test_a_peer_that_computes_something_else_is_not_timed():
    gradient = np.array([1.0, -2.0])
    peer.check_equal(gradient, gradient + 1e-4)
    with pytest.raises(RuntimeError, match="do not compute the same"):
        peer.check_equal(gradient, -gradient)


@needs_torch
@pytest.mark.parametrize("kind", ["conv", "mlp"])
def test_the_peer_computes_the_same_gradient_in_every_form(kind):
    network = workloads.conv_net(6) if kind == "conv" else workloads.mlp(7)
    posterior = workloads.draw_posterior(network, workloads.MNIST, 3)
    x, y = workloads.images(5, workloads.MNIST), workloads.labels(5)
    objective = peer.get_objective("expected_loss")
    ours = np.asarray(workloads.evaluate(objective, posterior, x, y).gradient)
    forms = peer_torch.expected_gradients(
        peer_torch.get_forward(network),
        peer_torch.convert(network, posterior.samples),
        peer_torch.convert_labels(y),
    )
    assert len(forms) == 3
    for form in forms.values():
        theirs = peer_torch.to_numpy(form(peer_torch.convert_images(x)))
        np.testing.assert_allclose(theirs, ours, atol=1e-4 * np.abs(ours).max())


@needs_torch
def test_the_peers_attack_stays_in_the_ball_and_its_training_trains():
    network = workloads.mlp(7)
    posterior = workloads.draw_posterior(network, workloads.MNIST, 2)
    x, y = workloads.images(4, workloads.MNIST), workloads.labels(4)
    forward, images = peer_torch.get_forward(network), peer_torch.convert_images(x)
    labels = peer_torch.convert_labels(y)
    forms = peer_torch.expected_gradients(
        forward, peer_torch.convert(network, posterior.samples), labels
    )
    attacked = peer_torch.build_pgd(forms["loop"], epsilon=0.1, num_steps=3)(images)
    assert 0 < float((attacked - images).abs().max()) <= 0.1 + 1e-6
    weights = peer_torch.convert(network, workloads.draw_params(network, workloads.MNIST))
    epoch = peer_torch.build_epoch(forward, weights, images, labels, 2)
    losses = [float(epoch()) for _ in range(20)]
    assert losses[-1] < losses[0]
