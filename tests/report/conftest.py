"""Results as a run would write them, for the tests of the report.

The fixtures are functions that make new ones, so that a test may change what it gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bnn_adv.report import Example

NUM_TEST = 500


def _interval(share: float, count: int = NUM_TEST) -> list[float]:
    """Wilson's interval, written out so that the report's tests need nothing else."""
    z = 1.959963985
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def _suite(robustness: float, zeros: float, **accuracies: float) -> dict[str, Any]:
    return {
        **accuracies,
        "softmax_robustness": robustness,
        "zero_gradient_share": zeros,
        "intervals": {name: _interval(share) for name, share in accuracies.items()},
    }


def _strong(robustness: float, *shares: float) -> dict[str, Any]:
    names = ("mean_logit_margin", "normalised_vote", "expected_loss", "loss_of_mean")
    stages = {f"pgd_{name}": share for name, share in zip(names, shares, strict=False)}
    return _suite(robustness, 0.0, **stages, worst=shares[-1])


def _fresh(accuracy: float, count: int, **suites: dict[str, float]) -> dict[str, Any]:
    return {
        "num_samples": count,
        "accuracy": accuracy,
        "accuracy_interval": _interval(accuracy),
        "protocols": {
            name: {**shares, "intervals": {key: _interval(value) for key, value in shares.items()}}
            for name, shares in suites.items()
        },
    }


def _row(model: str, count: int, accuracy: float, **rest: Any) -> dict[str, Any]:
    return {
        "model": model,
        "network": "conv, 512 units, leaky_relu",
        "num_parameters": 661_834,
        "num_samples": count,
        "accuracy": accuracy,
        "accuracy_interval": _interval(accuracy),
        "fresh": None,
        "seconds": {"training": 470.1, "evaluation": 88.0},
        **rest,
    }


def _make_results() -> dict[str, Any]:
    """Table 2's preset with the numbers that are known of the published code."""
    epochs = np.arange(15)
    rng = np.random.default_rng(0)
    rows = [
        _row(
            "deterministic",
            1,
            0.986,
            protocols={
                "published": _suite(0.921, 0.002, fgsm=0.212, pgd=0.014),
                "corrected": _suite(0.061, 0.002, fgsm=0.198, pgd=0.002),
                "strong": _strong(0.054, 0.0, 0.0, 0.0, 0.0),
            },
            diagnostics={"warnings": [], "loss": list(0.9 * np.exp(-epochs / 3) + 0.01)},
        ),
        _row(
            "ensemble",
            100,
            0.994,
            protocols={
                "published": _suite(0.913, 0.0, fgsm=0.206, pgd=0.018),
                "corrected": _suite(0.102, 0.0, fgsm=0.242, pgd=0.004),
                "strong": _strong(0.098, 0.002, 0.002, 0.0, 0.0),
            },
            diagnostics={"warnings": [], "loss": list(0.8 * np.exp(-epochs / 3) + 0.012)},
        ),
        _row(
            "vi",
            10,
            0.976,
            protocols={
                "published": _suite(0.988, 0.84, fgsm=0.9, pgd=0.92),
                "corrected": _suite(0.702, 0.66, fgsm=0.776, pgd=0.67),
                "strong": _strong(0.03, 0.012, 0.002, 0.002, 0.0),
            },
            fresh=_fresh(
                0.974,
                10,
                published={"fgsm": 0.908, "pgd": 0.938},
                corrected={"fgsm": 0.742, "pgd": 0.672},
                strong={"worst": 0.022},
            ),
            diagnostics={
                "warnings": [
                    "84 % of the published attack's gradients are exactly zero: the attack is "
                    "blind there and the accuracy that it leaves says nothing."
                ],
                "elbo": list(-(2.1e6 * np.exp(-epochs / 4) + 4.4e5)),
                "mean_scale": 0.71,
            },
        ),
        _row(
            "hmc",
            100,
            0.958,
            protocols={
                "published": _suite(0.958, 0.31, fgsm=0.64, pgd=0.552),
                "corrected": _suite(0.35, 0.12, fgsm=0.31, pgd=0.094),
                "strong": _strong(0.02, 0.004, 0.004, 0.002, 0.002),
            },
            fresh=_fresh(
                0.956,
                100,
                published={"fgsm": 0.652, "pgd": 0.57},
                corrected={"fgsm": 0.33, "pgd": 0.12},
                strong={"worst": 0.046},
            ),
            diagnostics={
                "warnings": ["max R-hat of the predictions is 1.40 (above 1.05): too few draws."],
                "acceptance_rate": 0.81,
                "num_divergent": 0,
                "step_size": [0.0021, 0.0019],
                "max_rhat": 1.4,
                "median_rhat": 1.1,
                "min_ess": 12.0,
                "num_distinct_draws": 100,
                "energy_error": {"mean": 0.021, "max": 0.31},
                "log_density": (-6.1e5 + 900 * rng.standard_normal((2, 50))).tolist(),
            },
        ),
    ]
    return {
        "schema_version": 1,
        "experiment": "evaluate",
        "preset": "table2_mnist",
        "dataset": "mnist",
        "num_train": 60_000,
        "num_test": NUM_TEST,
        "epsilon": 0.3,
        "norm": "linf",
        "seed": 0,
        "seconds": 1234.5,
        "protocols": {
            "published": "As the published code: a second softmax; FGSM; PGD of 40 steps of 2.",
            "corrected": "As the paper defines it: the mean of the draws' loss gradients.",
            "strong": "PGD of 100 steps on four objectives with restarts; per-image worst case.",
        },
        "rows": rows,
        "command": "python -m experiments.compare --preset=table2_mnist --run_dir=runs/table2",
        "environment": {"python": "3.11.9", "jax": "0.10.2", "device": "cpu", "commit": "abc123"},
        "config": {"preset": "table2_mnist", "num_test": 500, "hmc": {"num_draws": 100}},
    }


def _make_images(
    models: tuple[str, ...] = ("deterministic", "vi"), *, count: int = 3, channels: int = 1
) -> list[Example]:
    """Blobs with a chequered perturbation of size 0.3."""
    grid = np.linspace(-1, 1, 28)
    blob = np.exp(-4 * (grid[:, None] ** 2 + grid**2))[..., None].repeat(channels, axis=-1)
    chequers = 0.3 * np.sign(np.sin(9 * grid)[:, None] * np.sin(7 * grid))[..., None]
    return [
        Example(
            index=17 * number,
            label=number % 10,
            clean=blob,
            clean_prediction=number % 10,
            clean_probability=0.991,
            adversarial=np.clip(blob + (-1) ** number * chequers, 0, 1),
            adversarial_prediction=(number + 3) % 10 if number != 1 else 1,
            adversarial_probability=0.873,
            model=model,
            attack="pgd_mean_logit_margin" if number != 1 else "",
        )
        for number in range(count)
        for model in models
    ]


def _make_points(count: int = 12) -> list[Example]:
    """Points of two classes, each moved by 0.1."""
    rng = np.random.default_rng(1)
    return [
        Example(
            index=number,
            label=number % 2,
            clean=(clean := rng.uniform(0.1, 0.9, 2)),
            clean_prediction=number % 2,
            clean_probability=0.9,
            adversarial=clean + rng.choice([-0.1, 0.1], 2),
            adversarial_prediction=number % 3 % 2,
            adversarial_probability=0.6,
            model=model,
            attack="pgd_expected_loss",
        )
        for number in range(count)
        for model in ("vi", "hmc")
    ]


def _shown_accuracies(results: dict[str, Any]) -> list[str]:
    """Every accuracy that a table has to show, worked out from the schema alone."""
    texts = []
    for row in results["rows"]:
        for part in filter(None, (row, row["fresh"])):
            texts.append(_measured(part["accuracy"], part["accuracy_interval"]))
            for numbers in part["protocols"].values():
                names = ["worst"] if "worst" in numbers else ["fgsm", "pgd"]
                texts += [_measured(numbers[name], numbers["intervals"][name]) for name in names]
    return texts


def _measured(share: float, ends: list[float]) -> str:
    # The shares are multiples of 1/500 and the ends of their intervals are no ties.
    return f"{100 * share:.1f} [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


@pytest.fixture(scope="session")
def make_results() -> Callable[[], dict[str, Any]]:
    return _make_results


@pytest.fixture(scope="session")
def make_suite() -> Callable[..., dict[str, Any]]:
    return _suite


@pytest.fixture(scope="session")
def make_images() -> Callable[..., list[Example]]:
    return _make_images


@pytest.fixture(scope="session")
def make_points() -> Callable[..., list[Example]]:
    return _make_points


@pytest.fixture(scope="session")
def shown_accuracies() -> Callable[[dict[str, Any]], list[str]]:
    return _shown_accuracies
