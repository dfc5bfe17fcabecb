"""PGD and a suite: images per second, and how much of their time is the gradient's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from bnn_adv import get_suite, run_suite
from bnn_adv.attacks import AttackSettings, pgd, run_attack
from bnn_adv.attacks.objectives import get_objective
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from experiments.benchmark import workloads
from experiments.benchmark.rows import Row, Say, per_second_row
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import Timing, Work, compare, measure

NAME = "attacks"

_NUM_STEPS = 40
_DIGITS_UNITS, _DIGITS_DRAWS = 128, 50
# So small a ball that every image withstands every attack: the suite then does all of its work.
_HARMLESS = 1e-6


def run(size: Size, say: Say) -> list[Row]:
    """Time PGD on both data sets' shapes and a suite on the digits'."""
    digits = workloads.mlp(min(_DIGITS_UNITS, size.units))
    num_draws = min(_DIGITS_DRAWS, size.mlp_draws)
    mnist = workloads.mlp(size.units)
    return [
        *_time_pgd("digits", digits, workloads.DIGITS, num_draws, size, say),
        *_time_pgd("MNIST", mnist, workloads.MNIST, size.attack_draws, size, say),
        *_time_suite(digits, num_draws, size, say),
    ]


def _time_pgd(
    name: str,
    network: nn.Module,
    shape: tuple[int, ...],
    num_draws: int,
    size: Size,
    say: Say,
) -> list[Row]:
    count = size.attack_images
    work = f"PGD {_NUM_STEPS} steps, {name}, {_describe(network, count, num_draws)}"
    say(work)
    posterior = workloads.draw_posterior(network, shape, num_draws)
    x, y = workloads.images(count, shape), workloads.labels(count)
    objective = get_objective("expected_loss")
    attack = pgd.build(num_steps=_NUM_STEPS)

    def attack_all() -> object:
        return run_attack(
            jax.random.key(0),
            attack,
            objective,
            posterior,
            x,
            y,
            threat=workloads.linf_ball(0.1),
            settings=AttackSettings(batch_size=count),
        )

    gradient, gradient_name = _gradient("expected_loss", posterior, x, y), "gradient"
    timings = compare({"attack": attack_all, gradient_name: gradient}, budget=size.budget)
    # One evaluation at the start, one after every step.
    own = (_NUM_STEPS + 1) * timings[gradient_name].median
    return _rows(work, timings["attack"], count, own)


def _time_suite(network: nn.Module, num_draws: int, size: Size, say: Say) -> list[Row]:
    count = size.suite_images
    suite = get_suite(size.suite)
    work = f"suite {size.suite}, digits, {_describe(network, count, num_draws)}"
    say(work)
    posterior = workloads.draw_posterior(network, workloads.DIGITS, num_draws)
    x = workloads.images(count, workloads.DIGITS)
    # Labels as predicted: an image that is misclassified from the start would not be attacked.
    y = jnp.argmax(predict_log_probs(posterior, x), axis=-1)

    def attack_all() -> object:
        threat = workloads.linf_ball(_HARMLESS)
        return run_suite(jax.random.key(0), suite, posterior, x, y, threat=threat).accuracies

    timing = measure(attack_all, budget=size.budget)
    own = 0.0
    for entry in suite.entries:
        gradient = _gradient(entry.objective_name, posterior, x, y)
        evaluations = suite.restarts * (entry.attack.num_steps + 1)
        own += evaluations * measure(gradient, budget=size.budget / 10).median
    return _rows(work, timing, count, own)


def _gradient(name: str, posterior: Posterior, x: jax.Array, y: jax.Array) -> Work:
    objective = get_objective(name)
    return lambda: workloads.evaluate(objective, posterior, x, y)


def _rows(work: str, timing: Timing, count: int, gradient_seconds: float) -> list[Row]:
    return [
        per_second_row(NAME, work, timing, count=count, unit="images"),
        Row(
            NAME,
            work,
            "gradient evaluations' share of the time",
            gradient_seconds / timing.median,
            "of time",
            gradient_seconds / timing.high,
            gradient_seconds / timing.low,
            timing.repeats,
            None,
            {"gradient_seconds": gradient_seconds, "seconds": timing.median},
        ),
    ]


def _describe(network: nn.Module, count: int, num_draws: int) -> str:
    return f"MLP {network.hidden[0]}, {count} images x {num_draws} draws"
