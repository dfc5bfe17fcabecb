"""Single networks whose margins are compared, and the two draws on which averages go wrong."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.data import Dataset
from bnn_adv.inference import sgd
from bnn_adv.inference.densities import Data
from bnn_adv.networks import Params, build_network
from bnn_adv.posteriors.posterior import Posterior

NETWORKS = {"fc 32": ("fc", 32), "fc2 24": ("fc2", 24), "fc4 16": ("fc4", 16)}
"""Name: architecture and width; all with relu, trained on digits."""

TRAP_X, TRAP_EPSILON, _CLASSES = 0.3, 0.3, 10


def train(rng_key: jax.Array, name: str, dataset: Dataset, num_epochs: int) -> Posterior:
    """Return a trained network as one draw whose logits are compared."""
    architecture, hidden = NETWORKS[name]
    network = build_network(
        architecture, hidden=hidden, num_classes=dataset.num_classes, activation="relu"
    )
    data = Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train))
    config = sgd.Config(num_epochs=num_epochs, learning_rate=0.003, minibatch_size=32)
    found = sgd.run(rng_key, network, data, config).posterior
    return Posterior(found.apply_fn, found.samples, decision_rule="mean_logits")


def export(params: Params) -> dict[str, np.ndarray]:
    """Return a draw's layers in order: kernels ``w0`` [in, out], biases ``b0``, and so on."""
    layers = sorted((name for name in params if name != "logits"), key=_number)
    found = {}
    for number, name in enumerate([*layers, "logits"]):
        found[f"w{number}"] = np.asarray(params[name]["kernel"][0], np.float64)
        found[f"b{number}"] = np.asarray(params[name]["bias"][0], np.float64)
    return found


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def make_trap() -> dict[str, np.ndarray]:
    """Return two linear draws of an input that is one number, as ``b + w x``.

    Class 0 is predicted at 0.3, and class 1 from about 0.45 on. Class 2 is likely at 0 in the first
    draw: who averages probabilities of the worst logits of each class takes what class 2 has there
    off class 1, which is highest elsewhere.
    """
    weights = np.zeros((2, 1, _CLASSES), np.float32)
    weights[0, 0, 2] = -4.5
    biases = np.full((2, _CLASSES), -40.0, np.float32)
    biases[0, :3] = np.log([1.0, 2.25, 2.0]) + np.array([0.0, 0.0, 1.35])
    biases[1, :3] = [0.0, np.log(0.35 / 0.65), -20.0]
    return {
        "w": weights,
        "b": biases,
        "x": np.full((1, 1), TRAP_X, np.float32),
        "epsilon": np.asarray(TRAP_EPSILON, np.float32),
    }


def trap_posterior(trap: dict[str, np.ndarray]) -> Posterior:
    """Return the two draws as a posterior."""
    samples = {name: jnp.asarray(trap[name]) for name in ("w", "b")}
    return Posterior(_linear, samples)


def _linear(params: Params, x: jax.Array) -> jax.Array:
    logits: jax.Array = x @ params["w"] + params["b"]
    return logits
