"""Numbers of small runs of the code before it was moved, and the comparison.

Those of ``half_moons`` were written again when kernels became files of their own: its chains of
hundreds of leapfrog steps amplify the rounding of a program that is fused otherwise. Of ``compare``
those under ``strong`` were, when that suite got another order.
"""

import json
import math
from pathlib import Path

import jax

FOLDER = Path(__file__).parent / "baseline"
_OF_THE_MACHINE = ("seconds", "hash", "environment", "command")


def strip(value):
    """Return a record without times and hashes, which are no results."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not any(word in k for word in _OF_THE_MACHINE)}
        return {key: strip(one) for key, one in kept.items()}
    if isinstance(value, list):
        return [strip(one) for one in value]
    return value


def write(name, record):
    """Write the numbers of a run."""
    text = {"jax": jax.__version__, "record": strip(record)}
    (FOLDER / f"{name}.json").write_text(json.dumps(text) + "\n", "utf-8")


def assert_same(name, record):
    """Compare a run with the numbers that it had; another JAX may round otherwise."""
    stored = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    found = json.loads(json.dumps(strip(record)))
    _compare(name, stored["record"], found, numbers=stored["jax"] == jax.__version__)


def _compare(where, old, new, *, numbers):
    if isinstance(old, dict):
        assert set(old) <= set(new), where
        for key in old:
            _compare(f"{where}.{key}", old[key], new[key], numbers=numbers)
    elif isinstance(old, list):
        assert not numbers or len(old) == len(new), where
        for index, pair in enumerate(zip(old, new, strict=False)):
            _compare(f"{where}[{index}]", *pair, numbers=numbers)
    elif isinstance(old, float) and isinstance(new, float | int):
        close = math.isclose(old, new, rel_tol=0.02, abs_tol=1e-4)
        assert not numbers or close or old != old, (where, old, new)
    elif numbers and not isinstance(old, str):
        assert old == new, where
