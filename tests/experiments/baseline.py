"""Numbers of small runs of the code before it was moved, and the comparison.

Chains of hundreds of leapfrog steps amplify rounding, which is another where a program is fused
otherwise or a processor vectorises sums otherwise: of ``half_moons`` and ``robustness_accuracy``
only what there is is compared, and no numbers. Of ``compare`` those under ``strong`` were written
again when that suite got another order.
"""

import json
import math
from pathlib import Path

import jax

FOLDER = Path(__file__).parent / "baseline"
_AMPLIFY_ROUNDING = ("half_moons", "robustness_accuracy")
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
    """Compare a run with what it had; another JAX may round otherwise."""
    stored = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    found = json.loads(json.dumps(strip(record)))
    is_same = stored["jax"] == jax.__version__ and name not in _AMPLIFY_ROUNDING
    _compare(name, stored["record"], found, numbers=is_same)


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
