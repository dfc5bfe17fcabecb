"""Try deepbayes on cases with closed forms; run by an interpreter that has it, not imported.

  python deepbayes_child.py FOLDER

``FOLDER`` holds the draws of the case (``two_draws.npz``: weights ``w`` [2, 1, C], ``b`` [2, C],
input ``x`` [1, 1], ``epsilon``), and draws are written into it in the layout that deepbayes reads.
Prints one JSON record.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

# Of Keras it wants version 2.
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", TF_USE_LEGACY_KERAS="1")

import numpy as np
import tensorflow as tf
import tf_keras
from deepbayes.analyzers import probverification, verifiers


class Draws:
    """A posterior of given draws of a linear network, with the members that deepbayes asks for."""

    def __init__(self, w: np.ndarray, b: np.ndarray) -> None:
        """Build the network."""
        layers = [tf_keras.layers.Dense(w.shape[2], activation="softmax", input_shape=(1,))]
        self.model = tf_keras.Sequential(layers)
        self._draws = itertools.cycle([[one, own] for one, own in zip(w, b, strict=True)])
        self.frequency = [1] * len(w)
        self.num_post_samps = len(w)
        self.path_to_model = ""

    def sample(self) -> list[np.ndarray]:
        """Return the next draw."""
        return next(self._draws)

    def set_weights(self, weights: list[np.ndarray]) -> None:
        """Give the network a draw."""
        self.model.set_weights(weights)


def try_convolution(propagate: Any) -> float:
    """Return how far a convolution of a point is outside of the point's own interval."""
    rng = np.random.default_rng(0)
    x = rng.random((1, 5, 5, 1))
    kernel, bias = rng.normal(size=(3, 3, 1, 2)), np.zeros(2)
    lower, upper = propagate(kernel, bias, x, x)
    exact = tf.nn.convolution(x, kernel) + bias
    return float(max(np.max(lower - exact), np.max(exact - upper)))


def main(folder: str) -> None:
    """Try all cases and print what was found."""
    with np.load(Path(folder, "two_draws.npz"), allow_pickle=False) as stored:
        w, b, x, epsilon = (stored[name] for name in ("w", "b", "x", "epsilon"))
    posterior = Draws(w, b)
    (Path(folder) / "samples").mkdir(exist_ok=True)
    for number, pair in enumerate(zip(w, b, strict=True)):
        both = np.empty(2, object)
        both[:] = pair
        np.save(Path(folder, "samples", f"sample_{number}.npy"), both)
    posterior.path_to_model = str(folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        averaged = verifiers.chernoff_bound_verification(posterior, x, float(epsilon), 0)
        averaged = np.asarray(averaged)[: w.shape[2]]

        def difference(_: Any, __: Any, lower: np.ndarray, upper: np.ndarray) -> float:
            return float(lower[2] - upper[0])

        smallest = probverification.decision_veri_samp(
            posterior, x - epsilon, x + epsilon, 0.0, 2, None, difference
        )
    names = ("deepbayes", "tensorflow", "numpy")
    record = {
        "versions": {name.replace("_cpu", ""): _version(name) for name in names},
        "averaged_worst_softmax": (averaged / averaged.sum()).tolist(),
        "smallest_difference": float(smallest),
        "convolution_escape": {
            "verifiers": try_convolution(verifiers.propagate_conv2d),
            "probverification": try_convolution(probverification.propagate_conv2d),
        },
    }
    print(json.dumps(record))


def _version(name: str) -> str:
    for package in (name, f"{name}_cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return "unknown"


if __name__ == "__main__":
    main(sys.argv[1])
