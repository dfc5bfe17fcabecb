"""Compiled programs on disk, so that a second start of the same work compiles nothing anew.

JAX keeps them where it is told to, for the whole process: nothing here does that unasked.
"""

from __future__ import annotations

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from bnn_adv.compute import files

SWITCH = "BNN_ADV_COMPILATION_CACHE"
"""Variable of the environment: a folder, or ``off``."""


def enable_compilation_cache(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Keep compiled programs on disk for the next start: one call, before or between evaluations.

    It sets JAX's own cache, for all that this process compiles from now on. Several processes may
    share a folder: what one of them reads half written is compiled anew, with a warning, and so is
    what one has left half written, at each start until the file is deleted.

    Args:
      folder: Where to; ``~`` is the home. None: a folder that JAX was given before
        (``JAX_COMPILATION_CACHE_DIR``) stays as the user has set it up; else that of the variable
        ``BNN_ADV_COMPILATION_CACHE``; else ``programs`` in the user's cache folder,
        ``$XDG_CACHE_HOME/bnn_adv``.

    Returns:
      The folder in use; None where ``BNN_ADV_COMPILATION_CACHE`` is ``off`` and no folder given, or
      where the user's cache folder cannot be made.

    Raises:
      ValueError: The folder that was given, here or by the variable, cannot be made.
    """
    is_asked_for = folder is not None or bool(os.environ.get(SWITCH))
    if folder is None:
        given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        if given:
            return Path(given)
        folder = os.environ.get(SWITCH) or files.user_folder() / "programs"
        if folder == "off":
            return None
    chosen = Path(folder).expanduser()
    try:
        chosen.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if not is_asked_for:
            return None
        raise ValueError(
            f"Compiled programs need a folder, and {chosen} is none: {error}. Give another one."
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    keep_everything()
    # JAX looks once, at the first program, whether there is a cache.
    compilation_cache.reset_cache()
    return chosen


def keep_everything() -> None:
    """Keep small programs too: hundreds of them cost more of a start than a few large ones."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
