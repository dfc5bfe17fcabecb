"""Spread draws, images, data and chains over the devices that JAX can reach.

A mesh has two axes. ``draws`` splits what has one entry a network: posterior draws, chains,
ensemble members. ``data`` splits what has one entry an example: attacked images, training data.
Arrays are placed on the mesh once; the compiler (GSPMD) derives every communication from that, and
results equal those of one device up to the order of float32 sums. With several processes
(``jax.distributed``) the mesh spans them, every process runs the same program on the same inputs,
and process 0 alone writes files.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("draws", "data")


def parse_mesh(text: str) -> dict[str, int]:
    """Read a mesh such as ``"draws:4,data:2"``; an axis that is not named has size 1.

    Raises:
      ValueError: An unknown or repeated axis, or a size below one.
    """
    sizes: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, size = part.partition(":")
        if name not in AXES or name in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(
                f"Cannot read {part!r} in the mesh {text!r}. Give each axis of {', '.join(AXES)} "
                "at most once, with its number of devices: draws:4,data:2."
            )
        sizes[name] = int(size)
    return {name: sizes.get(name, 1) for name in AXES}


def make_mesh(text: str) -> Mesh:
    """Return the mesh of ``text`` over the first devices of all processes.

    Args:
      text: See ``parse_mesh``.

    Raises:
      ValueError: The text cannot be read, or asks for more devices than there are; with several
        processes also if it leaves out any.
    """
    sizes = parse_mesh(text)
    needed, devices = math.prod(sizes.values()), jax.devices()
    wrong = needed != len(devices) if jax.process_count() > 1 else needed > len(devices)
    if wrong:
        raise ValueError(
            f"The mesh {text!r} takes {needed} devices and JAX sees {len(devices)} "
            f"({devices[0].platform}). Give sizes whose product fits."
        )
    # Explicit axes, the default of newer versions, would ask for a sharding at every operation.
    return jax.make_mesh(
        tuple(sizes.values()),
        AXES,
        axis_types=(AxisType.Auto,) * len(AXES),
        devices=devices[:needed],
    )


def shard_members(tree: Any, mesh: Mesh | None, *, what: str = "members") -> Any:
    """Split the leading axis of every leaf (chains, members, draws) over the axis ``draws``.

    Raises:
      ValueError: The leading axis is no multiple of the mesh axis; ``what`` names it.
    """
    return _shard(tree, mesh, "draws", what)


def shard_examples(tree: Any, mesh: Mesh | None, *, what: str = "examples") -> Any:
    """Split the leading axis of every leaf (images, labels) over the axis ``data``.

    Raises:
      ValueError: The leading axis is no multiple of the mesh axis; ``what`` names it.
    """
    return _shard(tree, mesh, "data", what)


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """Place every leaf on all devices of the mesh."""
    if mesh is None:
        return tree
    return _put(tree, NamedSharding(mesh, PartitionSpec()))


def spread(tree: Any, mesh: Mesh | None, axis: str) -> Any:
    """Split the leading axis of every leaf where it is a multiple of a mesh axis.

    Where it is not, every device holds, and works on, the whole: right, and no faster.

    Args:
      tree: Leaves that share their leading axis: chains, members, training data.
      mesh: The mesh; None changes nothing.
      axis: ``"draws"`` or ``"data"``.
    """
    if mesh is None:
        return tree
    parts = shards(mesh, jax.tree.leaves(tree)[0].shape[0], axis)
    return _put(tree, NamedSharding(mesh, PartitionSpec(axis if parts > 1 else None)))


def shards(mesh: Mesh | None, size: int, axis: str) -> int:
    """Return into how many parts ``spread`` splits a leading axis of ``size``."""
    parts = 1 if mesh is None else mesh.shape[axis]
    return 1 if size % parts else parts


def constrain_examples(tree: Any, mesh: Mesh | None) -> Any:
    """Ask the compiler, inside ``jit``, to split a minibatch over the axis ``data``."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec("data")))


def gather(tree: Any, mesh: Mesh | None) -> Any:
    """Return arrays that lie on a mesh as arrays of this process's first device."""
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())
    whole = jax.jit(lambda leaves: leaves, out_shardings=everywhere)(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)


def barrier(name: str) -> None:
    """Wait until every process is here; ``name`` must be the same on all."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def agree(value: bool) -> bool:
    """Return process 0's value on every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def to_host(tree: Any) -> Any:
    """Return every leaf as a NumPy array, gathered from all processes where need be."""

    def gather(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(gather, tree)


def initialize(
    *, coordinator_address: str = "", num_processes: int = 0, process_id: int = -1
) -> None:
    """Join the processes of a cluster; call it before anything else touches JAX.

    Slurm, Kubernetes and cloud TPUs are detected by JAX; elsewhere all three arguments are needed.

    Args:
      coordinator_address: ``host:port`` of process 0.
      num_processes: Processes in all.
      process_id: This process, from 0.

    Raises:
      ValueError: Some of the three are given, but not all.
    """
    given = (bool(coordinator_address), num_processes > 0, process_id >= 0)
    if any(given) and not all(given):
        raise ValueError(
            "Give --coordinator_address, --num_processes and --process_id together, or none of "
            f"them; got {coordinator_address!r}, {num_processes}, {process_id}."
        )
    if all(given):
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    else:
        jax.distributed.initialize()


def is_writer() -> bool:
    """Return whether this process writes files: process 0 alone does."""
    return jax.process_index() == 0


def _shard(tree: Any, mesh: Mesh | None, axis: str, what: str) -> Any:
    if mesh is None:
        return tree
    parts = mesh.shape[axis]
    for leaf in jax.tree.leaves(tree):
        if leaf.shape[0] % parts:
            raise ValueError(
                f"{leaf.shape[0]} {what} cannot be split evenly over {axis}:{parts} of the mesh. "
                f"Give a multiple of {parts}."
            )
    return _put(tree, NamedSharding(mesh, PartitionSpec(axis)))


def _put(tree: Any, sharding: NamedSharding) -> Any:
    def one(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # Keys cannot be put on the devices of other processes, their data can.
            data = jax.device_put(jax.random.key_data(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(leaf, sharding)

    return jax.tree.map(one, tree)
