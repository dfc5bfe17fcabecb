"""The host loop of Markov chains: warm-up, then draws, in calls of about a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.compute import parallel
from bnn_adv.compute.checkpoint import NoCheckpoints
from bnn_adv.compute.checkpoint_store import Saved
from bnn_adv.compute.identity import Named, OtherWorkError
from bnn_adv.compute.pacing import Pacer
from bnn_adv.inference.base import RunOptions


class Calls(NamedTuple):
    """A sampler's device calls.

    tune: Maps the first state to the one that the warm-up starts from.
    warm_up: Maps (state, first, count) to the state and a record of the last transition.
    step: Maps (state, first, count) to the state and (positions, records), padded at the end.
    most: Maps ``first`` to how many transitions ``step`` has room for.
    """

    tune: Callable[[Any], Any]
    warm_up: Callable[[Any, int, int], tuple[Any, Any]]
    step: Callable[[Any, int, int], tuple[Any, tuple[Any, Any]]]
    most: Callable[[int], int]


class Plan(NamedTuple):
    """How long chains run, and which of their transitions end a draw.

    num_warmup: Transitions before the others.
    num_transitions: The others.
    count_draws: Maps a number of the others to how many draws have ended by then.
    records_draws: Whether ``Calls.step`` records draws; else it records every transition.
    """

    num_warmup: int
    num_transitions: int
    count_draws: Callable[[int], int]
    records_draws: bool = False


def run_chains(
    state: Any,
    calls: Calls,
    plan: Plan,
    *,
    options: RunOptions,
    identity: Named,
) -> tuple[Any, Any, Any]:
    """Run chains, however they are cut into device calls.

    Args:
      state: The first state.
      calls: The sampler.
      plan: Transitions and draws.
      options: Whom to tell of transitions done, and where to save progress.
      identity: What is computed, for the checkpoints.

    Returns:
      The last state; positions, [draws, chains, ...]; the records of all transitions after warm-up,
      or of all draws, [records, chains].
    """
    num_warmup, num_transitions, count_draws, records_draws = plan
    total, done = num_warmup + num_transitions, 0
    numbers: dict[str, float] = {}
    kept: list[tuple[Any, Any]] = []
    keeper = options.checkpoints or NoCheckpoints()
    warming, sampling = Pacer(), Pacer()
    with keeper.session(identity) as saved:
        if saved is not None:
            state, done = saved.fit(state), saved.step
            if saved.parts:
                shapes = jax.eval_shape(lambda: calls.step(state, 0, 1)[1])
                kept = _recall(saved, jax.tree.structure(shapes), done - num_warmup)
        else:
            state = calls.tune(state)
        while done < num_warmup:
            count = warming.next(num_warmup - done)
            with warming.timed(count):
                state, record = calls.warm_up(state, done, count)
                numbers = _summarise(parallel.to_host(record))
            done += count
            options.progress(done, total, numbers)
            keeper.tick(done, state)
        while done < total:
            first = done - num_warmup
            count = sampling.next(min(total - done, calls.most(first)))
            with sampling.timed(count):
                state, (positions, record) = calls.step(state, first, count)
                draws = count_draws(first + count) - count_draws(first)
                record = _head(record, draws if records_draws else count)
            kept.append((_head(positions, draws), record))
            leaves = jax.tree.leaves(kept[-1])
            arrays = {f"{i}": leaf for i, leaf in enumerate(leaves)}
            rows = np.array([first, first + count])
            keeper.add_part(f"{first}", {**arrays, "transitions": rows})
            done += count
            if not records_draws or draws:
                numbers = _summarise(record)
            options.progress(done, total, numbers)
            keeper.tick(done, state)
    positions, record = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    return state, positions, record


def stack_chains(draws: np.ndarray) -> np.ndarray:
    """Return draws of all chains, chain after chain: [S, chains, ...] -> [S * chains, ...]."""
    return draws.swapaxes(0, 1).reshape(-1, *draws.shape[2:])


def _recall(saved: Saved, structure: Any, done: int) -> list[tuple[Any, Any]]:
    """Return the parts, which must hold one after the other the transitions that were done."""
    after = 0
    for name, part in saved.parts.items():
        first, last = map(int, part.get("transitions", (-1, -1)))
        if first != after or last <= first:
            raise OtherWorkError(
                f"The checkpoint's part {name} holds the transitions {first} to {last} where "
                f"those from {after} on are wanted: it is a checkpoint of something else. Give "
                "another folder, or delete this one."
            )
        after = last
    if after != done:
        raise OtherWorkError(
            f"The checkpoint's parts hold {after} transitions where {done} were done: it is a "
            "checkpoint of something else. Give another folder, or delete this one."
        )
    return [
        jax.tree.unflatten(structure, [part[f"{i}"] for i in range(structure.num_leaves)])
        for part in saved.parts.values()
    ]


def _head(tree: Any, count: int) -> Any:
    """Fetch the first ``count`` entries of every leaf, without holding on to the rest."""
    return jax.tree.map(lambda all_: all_[:count].copy(), parallel.to_host(tree))


def _summarise(record: Any) -> dict[str, float]:
    """Return what is shown of transitions: the mean acceptance rate, the last log density."""
    found = {"logdensity": float(np.mean(np.atleast_2d(record.logdensity)[-1]))}
    if (accepted := getattr(record, "acceptance_rate", None)) is not None:
        found = {"acceptance": float(np.mean(accepted)), **found}
    return found
