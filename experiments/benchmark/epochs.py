"""Time the epochs of an inference method through the progress that it reports."""

from __future__ import annotations

import time

import jax
from flax import linen as nn

from bnn_adv.inference import METHODS, RunOptions
from bnn_adv.inference.densities import Data
from experiments.benchmark.timing import Timing, Work, summarise, time_once

MINIBATCH = 128


def time_epochs(
    method_name: str,
    network: nn.Module,
    data: Data,
    num_epochs: int,
    *,
    between: Work | None = None,
) -> tuple[Timing, Timing]:
    """Return the seconds of an epoch, and of what was called between two epochs.

    What comes before the first report holds the compilation and is left out.

    Args:
      method_name: A key in ``METHODS`` whose progress counts epochs.
      network: The network.
      data: Training data.
      num_epochs: Epochs, two at least.
      between: Called after every timed epoch, for instance a peer that is timed under the same
        load; not part of the epoch's time.

    Raises:
      RuntimeError: The method reported fewer than two epochs.
    """
    method = METHODS[method_name]
    # So small a step that random labels do not make the loss overflow.
    config = method.Config(num_epochs=num_epochs, minibatch_size=MINIBATCH, learning_rate=1e-4)
    epochs: list[float] = []
    others: list[float] = []
    last_time, last_done = 0.0, 0.0

    def progress(done: int, total: int, metrics: dict[str, float]) -> None:
        nonlocal last_time, last_done
        reached = num_epochs * done / total
        if reached <= last_done:
            return
        if last_done:
            epochs.append((time.perf_counter() - last_time) / (reached - last_done))
            others.append(0.0 if between is None else time_once(between))
        last_time, last_done = time.perf_counter(), reached

    method.run(jax.random.key(0), network, data, config, RunOptions(progress=progress))
    if not epochs:
        raise RuntimeError(
            f"{method_name}.run reported progress once or never in {num_epochs} epochs, and an "
            "epoch is timed between two reports. Give a size with more epochs."
        )
    return summarise(epochs), summarise(others)
