"""Try jax_verify and immrax; run by an interpreter that has them, not imported.

  python jax_child.py POINTS

Prints one JSON record: whether jax_verify can be imported; for immrax and each of some functions,
by how much a value within the input's box left the interval that it returned, or what it refused.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

warnings.filterwarnings("ignore")
_KERNEL = np.random.default_rng(7).normal(size=(3, 3, 1, 2)).astype("float32")


def convolve(x: Any) -> Any:
    """Convolve a picture."""
    kernel = jnp.asarray(_KERNEL)
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)


def pool(x: Any) -> Any:
    """Take maxima of windows."""
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


CASES: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "a * b": (lambda a, b: a * b, [(3,), (3,)]),
    "matrix times vector": (lambda a, b: a @ b, [(4, 3), (3,)]),
    "matrix times matrix": (lambda a, b: a @ b, [(2, 3), (3, 2)]),
    "jnp.tanh": (jnp.tanh, [(3,)]),
    "jnp.maximum(x, 0)": (lambda x: jnp.maximum(x, 0.0), [(3,)]),
    "jax.nn.relu": (jax.nn.relu, [(3,)]),
    "jax.nn.sigmoid": (jax.nn.sigmoid, [(3,)]),
    "jax.nn.softmax": (jax.nn.softmax, [(3,)]),
    "convolution": (convolve, [(1, 5, 5, 1)]),
    "max pooling": (pool, [(1, 4, 4, 1)]),
}


def try_immrax(fn: Any, shapes: list[tuple[int, ...]], num_points: int) -> dict[str, Any]:
    """Return how far values leave the interval, relative to the largest, or the refusal."""
    from immrax import interval, natif

    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(10):
        lower = [rng.normal(size=shape).astype("float32") * 2 for shape in shapes]
        upper = [low + abs(rng.normal(size=low.shape)).astype("float32") for low in lower]
        try:
            boxes = [interval(*map(jnp.array, pair)) for pair in zip(lower, upper, strict=True)]
            found = natif(fn)(*boxes)
        except Exception as error:
            return {"refused": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
        ends = np.asarray(found.lower, float), np.asarray(found.upper, float)
        count = max(1, num_points // 10)
        shares = [rng.random((count, *low.shape)) for low in lower]
        for share in shares:
            # Half of the points are corners of the box.
            share[::2] = share[::2] < 0.5
        points = [low + s * (up - low) for low, s, up in zip(lower, shares, upper, strict=True)]
        values = np.asarray(jax.vmap(fn)(*[jnp.asarray(p, "float32") for p in points]), float)
        size = max(1.0, float(np.abs(values).max()))
        worst = max(worst, float((ends[0] - values).max()) / size)
        worst = max(worst, float((values - ends[1]).max()) / size)
    return {"escape": worst}


def main(num_points: int) -> None:
    """Try both and print what was found."""
    try:
        importlib.import_module("jax_verify")
        imported = ""
    except Exception as error:
        imported = f"{type(error).__name__}: {error}"
    found = {name: try_immrax(fn, shapes, num_points) for name, (fn, shapes) in CASES.items()}
    versions = {name: importlib.metadata.version(name) for name in ("jax", "immrax", "jax_verify")}
    print(json.dumps({"versions": versions, "jax_verify": imported, "immrax": found}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
