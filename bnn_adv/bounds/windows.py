"""Slices of one variable side by side, as convolutions by patches have them: one step, not many.

The gradient that JAX derives pads each slice to the size of the whole and adds them up, in loops
that on a CPU take many times what the network takes. Here they are added up in place.
"""

from __future__ import annotations

import collections
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from bnn_adv.bounds.affine import AFFINE, Affine
from bnn_adv.bounds.graph import Graph, Step, Variable

_FEWEST = 3


class Windows(NamedTuple):
    """Which slices there are, and along which axis they are put side by side.

    places: Starts, limits and strides of every slice.
    axis: The axis.
    shape: Of what is cut.
    """

    places: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...]
    axis: int
    shape: tuple[int, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _cut(a: jax.Array, windows: Windows) -> jax.Array:
    return lax.concatenate([lax.slice(a, *place) for place in windows.places], windows.axis)


def _cut_forward(a: jax.Array, windows: Windows) -> tuple[jax.Array, None]:
    return _cut(a, windows), None


def _cut_backward(windows: Windows, _: None, cotangent: jax.Array) -> tuple[jax.Array]:
    total, first = jnp.zeros(windows.shape, cotangent.dtype), 0
    for starts, limits, strides in windows.places:
        cut = tuple(map(slice, starts, limits, strides))
        size = len(range(*cut[windows.axis].indices(windows.shape[windows.axis])))
        own = lax.slice_in_dim(cotangent, first, first + size, axis=windows.axis)
        total, first = total.at[cut].add(own), first + size
    return (total,)


_cut.defvjp(_cut_forward, _cut_backward)

_RULE = Affine(lambda params, a: _cut(a, params["windows"]))


def merge_windows(graph: Graph) -> None:
    """Make one step of slices of one variable that are put side by side, in place.

    It computes the same; its derivatives are of reverse mode only.
    """
    made = {item.output.number: item for item in graph.items if isinstance(item, Step)}
    merged: dict[int, Step] = {}
    for step in made.values():
        if step.rule is AFFINE["concatenate"]:
            slices = [made.get(o.number) for o in step.inputs if isinstance(o, Variable)]
            found = _merge(step, slices)
            if found is not None:
                merged[step.output.number] = found
    items = [merged.get(item.output.number, item) for item in graph.items]
    uses = collections.Counter(number for item in items for number in _inputs_of(item))
    uses[graph.output.number] += 1
    graph.items = [
        item
        for item in items
        if uses[item.output.number] or not (isinstance(item, Step) and _is_slice(item))
    ]


def _merge(step: Step, slices: list[Step | None]) -> Step | None:
    if len(slices) < max(len(step.inputs), _FEWEST):
        return None
    sources, places = set(), []
    for one in slices:
        if one is None or not _is_slice(one):
            return None
        (source,) = one.inputs
        sources.add(source)
        params = one.params
        strides = params["strides"] or (1,) * len(one.output.shape)
        limits = params["limit_indices"]
        places.append((tuple(params["start_indices"]), tuple(limits), tuple(strides)))
    if len(sources) != 1:
        return None
    (whole,) = sources
    assert isinstance(whole, Variable)
    windows = Windows(tuple(places), step.params["dimension"], whole.shape)
    return Step(_RULE, {"windows": windows}, (whole,), step.output)


def _is_slice(step: Step) -> bool:
    return step.rule is AFFINE["slice"]


def _inputs_of(item: Any) -> list[int]:
    inputs = item.inputs if isinstance(item, Step) else (item.input,)
    return [operand.number for operand in inputs if isinstance(operand, Variable)]
