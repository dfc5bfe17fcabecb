"""Where and how fast an experiment runs; none of it is part of what is computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
from jax.sharding import Mesh

from bnn_adv.compute import parallel, program_cache
from bnn_adv.compute.settings import SettingError, Settings, setting


@dataclasses.dataclass(frozen=True)
class CacheConfig(Settings):
    """The setting that every experiment shares."""

    compilation_cache: str = setting(
        "auto",
        "Folder for compiled programs, so that a second start compiles nothing anew; auto: in the "
        "user's cache folder, unless JAX was given one; off: as JAX is set.",
        is_path=True,
    )

    def __post_init__(self) -> None:
        """Check every field, and that a folder is named."""
        super().__post_init__()
        name = self.compilation_cache
        if not name or (name not in ("auto", "off") and Path(name).expanduser().is_file()):
            problem = f"must be auto, off or a folder, got {name!r}."
            raise SettingError("compilation_cache", problem)


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(CacheConfig):
    """Settings of experiments that run on several devices."""

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
    num_processes: int = setting(0, "Processes in all, where nothing is detected.", least=0)
    process_id: int = setting(-1, "This process, from 0, where nothing is detected.", least=-1)

    def __post_init__(self) -> None:
        """Check every field, the mesh's text, and that the processes are described in full."""
        super().__post_init__()
        try:
            parallel.parse_mesh(self.mesh)
        except ValueError as error:
            raise SettingError("mesh", f"is no mesh. {error}") from None
        given = {
            "coordinator_address": bool(self.coordinator_address),
            "num_processes": self.num_processes > 0,
            "process_id": self.process_id >= 0,
        }
        if not any(given.values()):
            return
        name = next(name for name in given if given[name])
        value = f"got {getattr(self, name)!r}"
        if not self.distributed:
            raise SettingError(name, f"is for several processes and needs distributed, {value}.")
        if missing := [other for other in given if not given[other]]:
            raise SettingError(
                name, f"needs {' and '.join(missing)} too, or none of the three is given, {value}."
            )
        _, colon, port = self.coordinator_address.rpartition(":")
        if not (colon and port.isdecimal()):
            problem = f"must be host:port, got {self.coordinator_address!r}."
            raise SettingError("coordinator_address", problem)
        if self.process_id >= self.num_processes:
            problem = f"must be below num_processes ({self.num_processes}), got {self.process_id}."
            raise SettingError("process_id", problem)


def start(config: RuntimeConfig) -> Mesh | None:
    """Set up JAX for this process; call it before anything is computed.

    Returns:
      The mesh, or None for one device.

    Raises:
      ValueError: The mesh does not fit the devices, or there are several processes and none.
    """
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
    if program_cache.enable_compilation_cache(None if folder == "auto" else folder) is not None:
        program_cache.keep_everything()
