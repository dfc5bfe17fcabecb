"""Work on the parts of a run in processes of their own, beside each other."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, NamedTuple

import jax

from bnn_adv.compute import identity
from bnn_adv.compute.interruption import exit_on_signals
from bnn_adv.compute.settings import setting
from experiments.launch import runtime
from experiments.launch.run_directory import RunDirectory
from experiments.launch.runtime import CacheConfig

_INHERITED = ("jax_disable_most_optimizations", *identity.SETTINGS)
"""Settings of JAX that a process gives to those that it starts."""


def processes() -> Any:
    """Return the setting of how many processes work beside each other; results do not change."""
    return setting(
        1,
        "Processes that work on parts of the study beside each other; the device's memory must "
        "hold what all of them compute.",
        least=1,
    )


def share_devices(jobs: int) -> None:
    """Let several processes use one GPU; call it before anything is computed.

    Args:
      jobs: Processes beside each other.
    """
    if jobs > 1:
        # Processes share a GPU only if none takes most of its memory at the start.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _check_module(work: Callable[..., Any]) -> None:
    """Raise unless a process that is started anew finds ``work`` where its module says."""
    function = work
    while isinstance(function, functools.partial):
        function = function.func
    name = f"{function.__module__}.{getattr(function, '__name__', function)}"
    # ``python -m package`` runs the package's __main__, which children do not import.
    if function.__module__.rpartition(".")[2] == "__main__":
        raise ValueError(f"{name} is worked on apart: it must be a function of another module.")


def work_apart(
    work: Callable[[RunDirectory, Any], Any], run: RunDirectory, parts: Sequence[Any], jobs: int
) -> list[Any]:
    """Return what ``work`` returns for each part, in their order.

    Several processes work on parts beside each other, each in a copy of the run: stages that they
    write are found by whoever asks for them later. What one raises is raised here, and the others
    are stopped. The time that is logged is that of the whole, not the sum of its processes.

    Args:
      work: Maps the run and a part to a value; a function of a module, or a ``partial`` of one.
      run: The run.
      parts: What is worked on, each with a text that names it.
      jobs: Processes at most; 1: this one works on all.

    Raises:
      ValueError: ``work`` is a function of a command's ``__main__``, which its children lack.
    """
    _check_module(work)
    if min(jobs, len(parts)) <= 1:
        return [work(run, part) for part in parts]
    # A child that were forked would inherit JAX's threads' locks, but not the threads.
    context = multiprocessing.get_context("spawn")
    started = time.monotonic()
    try:
        with ProcessPoolExecutor(
            min(jobs, len(parts)), context, initializer=_begin, initargs=(_read_settings(),)
        ) as pool:
            one = functools.partial(_work, work, run)
            futures = [pool.submit(one, part) for part in parts]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
            return [future.result() for future in futures]
    finally:
        run.log(stage="apart", stage_seconds=round(time.monotonic() - started, 2))


class _Settings(NamedTuple):
    """What a process has set up, for those that it starts.

    cache: Where compiled programs are kept.
    jax: JAX's settings on which numbers depend, by name.
    """

    cache: CacheConfig
    jax: dict[str, Any]


def _read_settings() -> _Settings:
    cache = CacheConfig(jax.config.jax_compilation_cache_dir or "off")  # type: ignore[attr-defined]
    return _Settings(cache, {name: _read(name) for name in _INHERITED})


def _read(name: str) -> Any:
    # JAX keeps settings in two ways, and each refuses the names of the other.
    return getattr(jax.config, name) if hasattr(jax.config, name) else jax.config.read(name)


def _begin(settings: _Settings) -> None:
    """Set up a process that the pool started."""
    # What the system kills says goodbye to nobody: its children would go on in the folder.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name, value in settings.jax.items():
        if _read(name) != value:
            jax.config.update(name, value)
    runtime.cache_programs(settings.cache)


def _work(work: Callable[..., Any], run: RunDirectory, part: Any) -> Any:
    """Work on one part."""
    run.is_apart = True
    with exit_on_signals(f"{part}: interrupted."):
        return work(run, part)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
