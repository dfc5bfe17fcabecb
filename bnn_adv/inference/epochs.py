"""The host loop of methods that pass over the data in minibatches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from bnn_adv.compute import parallel
from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.identity import Named
from bnn_adv.compute.pacing import Pacer
from bnn_adv.inference.base import RunOptions, check_finite


class _Step(Protocol):
    def __call__(self, state: Any, *, batches: Any, first: int, count: int) -> Any: ...


class Epochs(NamedTuple):
    """What one pass over the data is, and how many there are.

    start: Maps an epoch's key, the state and the epoch's number, from 0, to the state and the
      minibatches.
    step: Trains on ``count`` of the minibatches, from number ``first``.
    summarise: Maps the mean loss to numbers for the trace and for progress.
    num_epochs: Passes over the data.
    num_batches: Minibatches of one pass.
    loss_name: For errors.
    """

    start: Callable[[jax.Array, Any, int], tuple[Any, Any]]
    step: _Step
    summarise: Callable[[np.ndarray], dict[str, float]]
    num_epochs: int
    num_batches: int
    loss_name: str


def run_epochs(
    rng_key: jax.Array,
    state: Any,
    epochs: Epochs,
    *,
    options: RunOptions,
    identity: Named,
) -> tuple[Any, list[dict[str, float]]]:
    """Train for some epochs, however they are cut into device calls.

    Args:
      rng_key: Epoch e uses ``fold_in(rng_key, 1 + e)``.
      state: The first state, a NamedTuple with a ``loss`` summed over the epoch's minibatches.
      epochs: What an epoch is, and how many there are.
      options: Whom to tell of minibatches done, and where to save progress.
      identity: What is computed, for the checkpoints.

    Returns:
      The last state, and the numbers of every epoch.

    Raises:
      FloatingPointError: The loss stopped being finite.
    """
    num_batches, done = epochs.num_batches, 0
    total = epochs.num_epochs * num_batches
    trace: list[dict[str, float]] = []
    keeper = options.checkpoints or NoCheckpoints()
    pacer = Pacer()
    batches: Any = None
    with keeper.session(identity) as saved:
        if saved is not None:
            state, done, trace = saved.fit(state), saved.step, saved.meta["trace"]
        while done < total:
            epoch, first = divmod(done, num_batches)
            if batches is None or first == 0:
                key = jax.random.fold_in(rng_key, 1 + epoch)
                started, batches = epochs.start(key, state, epoch)
                # Within an epoch the state is further on; only the minibatches are missing.
                state = started if first == 0 else state
            count = pacer.next(num_batches - first)
            with pacer.timed(count):
                state = epochs.step(state, batches=batches, first=first, count=count)
                # Waits for the device.
                mean = parallel.to_host(state.loss).astype(np.float64) / (first + count)
            check_finite(epochs.loss_name, mean, f"epoch {epoch + 1}", "learning_rate")
            numbers = epochs.summarise(mean)
            done += count
            if first + count == num_batches:
                trace.append(numbers)
            options.progress(done, total, numbers)
            keeper.tick(done, state, {"trace": list(trace)})
    return state, trace
