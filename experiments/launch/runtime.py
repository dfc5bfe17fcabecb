"""Where and how fast an experiment runs; none of it is part of what is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
from jax.sharding import Mesh

from bnn_adv.compute import parallel
from bnn_adv.compute.settings import setting
from bnn_adv.data.cache import user_folder


@dataclasses.dataclass(frozen=True)
class CacheConfig:
    """The flag that every experiment shares."""

    compilation_cache: str = setting(
        "auto",
        "Folder for compiled programs, so that a second start compiles nothing anew; auto: in the "
        "user's cache folder, unless JAX was given one; off: as JAX is set.",
    )


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(CacheConfig):
    """The flags of experiments that run on several devices."""

    mesh: str = setting(
        "",
        "Devices to split work over, as draws:4,data:2: draws, chains and members over the first "
        "axis, images and training data over the second; empty uses one device.",
    )
    distributed: bool = setting(
        False,
        "Join the other processes of this job (Slurm, Kubernetes and cloud TPUs are detected).",
    )
    coordinator_address: str = setting("", "host:port of process 0, where nothing is detected.")
    num_processes: int = setting(0, "Processes in all, where nothing is detected.")
    process_id: int = setting(-1, "This process, from 0, where nothing is detected.")


def start(config: RuntimeConfig) -> Mesh | None:
    """Set up JAX for this process; call it before anything is computed.

    Returns:
      The mesh, or None for one device.

    Raises:
      ValueError: A mesh that does not fit the devices, or an incomplete description of the
        processes.
    """
    parallel.parse_mesh(config.mesh)
    cache_programs(config)
    if config.distributed:
        parallel.initialize(
            coordinator_address=config.coordinator_address,
            num_processes=config.num_processes,
            process_id=config.process_id,
        )
    if not config.mesh:
        if jax.process_count() > 1:
            raise ValueError(
                f"--distributed needs --mesh, for instance --mesh=draws:{jax.device_count()}."
            )
        return None
    return parallel.make_mesh(config.mesh)


def compile_quickly() -> None:
    """Compile programs without most of XLA's optimisations, where each is run a few times only."""
    jax.config.update("jax_disable_most_optimizations", True)


def cache_programs(config: CacheConfig) -> None:
    """Keep compiled programs for the next start; call it before anything is computed."""
    folder = config.compilation_cache
    if folder == "off":
        return
    # A folder that the user gave JAX itself (JAX_COMPILATION_CACHE_DIR) wins over the default.
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    chosen = given or str(user_folder() / "programs")
    jax.config.update(
        "jax_compilation_cache_dir", chosen if folder == "auto" else str(Path(folder).expanduser())
    )
    # Everything: hundreds of small programs cost more of a start than a few large ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
