"""This library against batched PyTorch: the same gradient, PGD and training step, in turn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from bnn_adv.attacks import AttackSettings, pgd, run_attack
from bnn_adv.attacks.objectives import get_objective
from bnn_adv.inference.densities import Data
from experiments.benchmark import peer_torch, workloads
from experiments.benchmark.epochs import MINIBATCH, time_epochs
from experiments.benchmark.rows import Row, Say, Target
from experiments.benchmark.sizes import Size
from experiments.benchmark.timing import Timing, compare, time_once

NAME = "peer"

_NUM_STEPS = 40
_ROUNDS = 3
# Forty gradients each: they vary less.
_ATTACK_ROUNDS = 2
_TOLERANCE = 1e-3


def run(size: Size, say: Say) -> list[Row]:
    """Compare both networks' gradients and attacks, then the training of one ConvNet."""
    conv, mlp = workloads.conv_net(size.channels), workloads.mlp(size.units)
    conv_name, mlp_name = f"ConvNet {size.channels}", f"MLP {size.units}"
    return [
        _compare_gradients(conv_name, conv, size, say),
        _compare_gradients(mlp_name, mlp, size, say),
        _compare_attacks(conv_name, conv, size, say),
        _compare_attacks(mlp_name, mlp, size, say),
        _compare_training(conv_name, conv, size, say),
    ]


def check_equal(ours: np.ndarray, peer: np.ndarray) -> None:
    """Refuse to time two programs that do not compute the same.

    Compared in norm: where rounding decides which of two pooled values is larger, single pixels of
    two correct gradients differ by more.

    Raises:
      RuntimeError: The difference has more than a thousandth of the norm.
    """
    difference = float(np.linalg.norm(ours - peer) / np.linalg.norm(ours))
    if not difference <= _TOLERANCE:
        raise RuntimeError(
            f"The peer's gradient differs by {difference:.2g} of its norm where {_TOLERANCE:g} is "
            "allowed: the two do not compute the same and are not compared."
        )


def _compare_gradients(name: str, network: nn.Module, size: Size, say: Say) -> Row:
    count, num_draws = size.peer_images, size.peer_draws
    work = f"gradient, {name}, {count} images x {num_draws} draws"
    say(work)
    posterior, x, y = _problem(network, count, num_draws)
    objective = get_objective("expected_loss")

    def ours() -> jax.Array:
        return workloads.evaluate(objective, posterior, x, y).gradient

    form, gradient = _fastest_gradient(network, posterior.samples, x, y)
    images = peer_torch.convert_images(x)
    check_equal(np.asarray(ours()), peer_torch.to_numpy(gradient(images)))
    works = {"ours": ours, "peer": lambda: gradient(images)}
    timings = compare(works, budget=size.budget, rounds=_ROUNDS)
    return _row(work, timings["ours"], timings["peer"], Target(low=1.3), form)


def _compare_attacks(name: str, network: nn.Module, size: Size, say: Say) -> Row:
    count, num_draws = size.peer_attack_images, size.peer_draws
    work = f"PGD {_NUM_STEPS} steps, {name}, {count} images x {num_draws} draws"
    say(work)
    posterior, x, y = _problem(network, count, num_draws)
    objective, attack = get_objective("expected_loss"), pgd.build(num_steps=_NUM_STEPS)
    form, gradient = _fastest_gradient(network, posterior.samples, x, y)
    peer = peer_torch.build_pgd(gradient, epsilon=0.1, num_steps=_NUM_STEPS)
    images = peer_torch.convert_images(x)

    def ours() -> np.ndarray:
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

    works = {"ours": ours, "peer": lambda: peer(images)}
    timings = compare(works, budget=size.budget, rounds=_ATTACK_ROUNDS)
    return _row(work, timings["ours"], timings["peer"], Target(low=1.3), form)


def _compare_training(name: str, network: nn.Module, size: Size, say: Say) -> Row:
    count = size.epoch_batches * MINIBATCH
    work = f"training, one {name}, {count} images in minibatches of {MINIBATCH}"
    say(work)
    x, y = workloads.images(count, workloads.MNIST), workloads.labels(count)
    epoch = peer_torch.build_epoch(
        peer_torch.get_forward(network),
        peer_torch.convert(network, workloads.draw_params(network, workloads.MNIST)),
        peer_torch.convert_images(x),
        peer_torch.convert_labels(y),
        MINIBATCH,
    )
    time_once(epoch)
    ours, peer = time_epochs("sgd", network, Data(x, y), size.epochs, between=epoch)
    return _row(work, ours, peer, Target(low=1.0), "autograd, fused Adam")


def _problem(network: nn.Module, count: int, num_draws: int) -> tuple[Any, jax.Array, jax.Array]:
    posterior = workloads.draw_posterior(network, workloads.MNIST, num_draws)
    return posterior, workloads.images(count, workloads.MNIST), workloads.labels(count)


def _fastest_gradient(
    network: nn.Module, samples: Any, x: jax.Array, y: jax.Array
) -> tuple[str, Callable[[Any], Any]]:
    """Return the peer's fastest form: the strongest peer is the honest one.

    They are tried on a quarter of the images, for the slow ones are several times slower.
    """
    forward, weights = peer_torch.get_forward(network), peer_torch.convert(network, samples)
    few = -(-x.shape[0] // 4)
    images = peer_torch.convert_images(x[:few])
    trials = peer_torch.expected_gradients(forward, weights, peer_torch.convert_labels(y[:few]))
    works = {name: functools.partial(form, images) for name, form in trials.items()}
    timings = compare(works, budget=0.0)
    name = min(timings, key=lambda form: timings[form].median)
    forms = peer_torch.expected_gradients(forward, weights, peer_torch.convert_labels(y))
    return name, forms[name]


def _row(work: str, ours: Timing, peer: Timing, target: Target, form: str) -> Row:
    return Row(
        NAME,
        work,
        "PyTorch's time / ours",
        peer.median / ours.median,
        "x",
        peer.low / ours.high,
        peer.high / ours.low,
        ours.repeats,
        target,
        {
            "seconds": ours.median,
            "peer_seconds": peer.median,
            "peer_form": form,
            "peer": peer_torch.describe(),
        },
    )
