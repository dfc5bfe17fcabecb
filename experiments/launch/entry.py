"""Start an entry point: its flags, its text for ``--help``, its errors in one line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging

from bnn_adv.compute.interruption import exit_on_signals
from experiments.launch import config as config_flags


def start(
    define: Callable[[Sequence[str]], None],
    work: Callable[[], Any],
    doc: str | None,
    *,
    errors: tuple[type[Exception], ...] = (),
) -> None:
    """Define flags, parse the command line, and work.

    Args:
      define: Defines the flags; called with the command line, which may name things that have
        flags of their own.
      work: Reads the flags and does the work. What it raises of a wrong setting, a file or numbers
        is printed in one line.
      doc: Text for ``--help``.
      errors: What else is printed in one line.
    """
    # --help prints the main module's text and flags; these are defined on its behalf.
    sys.modules["__main__"].__doc__ = doc
    with errors_in_one_line(errors):
        define(sys.argv[1:])
    values = flags.FLAGS
    for module in (__name__, config_flags.__name__, define.__module__):
        for flag in values.get_flags_for_module(module):
            values.register_key_flag_for_module(sys.argv[0], flag)

    def main(argv: list[str]) -> None:
        if not values["verbosity"].present:
            # absl shows what JAX and Orbax say in passing; --verbosity=0 still does.
            logging.set_verbosity(logging.WARNING)
        with errors_in_one_line(errors):
            if len(argv) > 1:
                raise ValueError(f"Unexpected arguments: {' '.join(argv[1:])}")
            work()

    with exit_on_signals("Interrupted; the same command continues this run."):
        app.run(main, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Parse flags; what absl refuses by itself is said like every other error."""
    with errors_in_one_line((flags.Error,)):
        rest: list[str] = flags.FLAGS(argv)
        return rest


@contextlib.contextmanager
def errors_in_one_line(more: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Print an error that a user can act on, and leave with status 1."""
    expected: tuple[type[Exception], ...] = (ValueError, OSError, FloatingPointError, *more)
    try:
        yield
    except expected as error:
        lines = str(error) if not isinstance(error, flags.Error) else " ".join(str(error).split())
        print(f"error: {lines}", file=sys.stderr)
        sys.exit(1)
