"""The posterior that public attack tools and this library attack, and who judges what they find."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv import networks
from bnn_adv.data import load_dataset
from bnn_adv.evaluation.confirmation import state_claims
from bnn_adv.evaluation.verification import verify_arrays
from bnn_adv.inference import sgd
from bnn_adv.inference.densities import Data
from bnn_adv.posteriors.posterior import Posterior, hash_draws, predict_log_probs
from experiments.benchmark import workloads
from experiments.benchmark.sizes import PeersSize

NOISE = 0.3
"""Standard deviation of what is added to weights, in units of their layer's root mean square."""

_LAYERS = ("hidden_0", "logits")
# Logarithms of probabilities in float32, by another order of summation.
_TOLERANCE = 1e-3


class Problem(NamedTuple):
    """What is attacked.

    posterior: Draws of a network with one hidden layer of rectified units.
    x: Images in [0, 1], [N, H, W, C].
    y: Labels, [N].
    """

    posterior: Posterior
    x: np.ndarray
    y: np.ndarray


class Judgement(NamedTuple):
    """How many images are classified correctly, as shares.

    accuracy: When clean.
    accuracy_left: When clean and under attack.
    """

    accuracy: float
    accuracy_left: float


def train_problem(size: PeersSize) -> Problem:
    """Train a network on digits, and add noise to its weights: a posterior's cost and confidence.

    Draw s is ``w + NOISE rms(w) n_s`` with standard normal n_s, layer by layer.
    """
    dataset = load_dataset("digits", num_test=size.images, seed=0)
    data = Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train))
    config = sgd.Config(num_epochs=size.epochs, minibatch_size=32)
    network = workloads.mlp(size.units)
    trained = sgd.run(jax.random.key(0), network, data, config).posterior.samples
    rng = np.random.default_rng(0)

    def perturb(leaf: jax.Array) -> jax.Array:
        array = np.asarray(leaf)
        scale = NOISE * float(np.sqrt(np.mean(array**2)))
        noise = rng.normal(0.0, scale, (size.draws, *array.shape[1:]))
        return jnp.asarray(array + noise, jnp.float32)

    posterior = Posterior(networks.get_apply_fn(network), jax.tree.map(perturb, trained))
    return Problem(posterior, np.asarray(dataset.x_test), np.asarray(dataset.y_test))


def save(path: Path, problem: Problem) -> None:
    """Write the arrays that ``peers_child`` and ``load`` read."""
    arrays = {"x": problem.x, "y": problem.y}
    for number, name in enumerate(_LAYERS):
        layer = problem.posterior.samples[name]
        arrays[f"w{number}"] = np.asarray(layer["kernel"])
        arrays[f"b{number}"] = np.asarray(layer["bias"])
    np.savez(path, **arrays)  # type: ignore[arg-type]


def load(path: str) -> Problem:
    """Return what was saved."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    samples = {
        name: {"kernel": jnp.asarray(arrays[f"w{i}"]), "bias": jnp.asarray(arrays[f"b{i}"])}
        for i, name in enumerate(_LAYERS)
    }
    network = workloads.mlp(arrays["b0"].shape[1])
    return Problem(Posterior(networks.get_apply_fn(network), samples), arrays["x"], arrays["y"])


def check_predictions(problem: Problem, tool: str, log_probs: np.ndarray) -> None:
    """Refuse to compare with a tool that attacks another model.

    Raises:
      RuntimeError: A logarithm of a probability of a clean image differs by over a thousandth, or
        by a thousandth of itself where that is more.
    """
    ours = np.asarray(predict_log_probs(problem.posterior, problem.x))
    if not np.allclose(log_probs, ours, rtol=_TOLERANCE, atol=_TOLERANCE):
        difference = np.max(np.abs(log_probs - ours))
        raise RuntimeError(
            f"The model that {tool} attacks predicts other probabilities of the clean images: "
            f"logarithms differ by up to {difference:.2g} nats. The two are not compared."
        )


def judge(problem: Problem, attacker: str, x_adv: np.ndarray, epsilon: float) -> Judgement:
    """Predict adversarial images by the referee of this library, whoever made them.

    Raises:
      RuntimeError: An image lies outside ball or box by more than the rounding of float32.
    """
    posterior, x, y = problem
    threat = workloads.linf_ball(epsilon)
    # Whatever the attacker claims: the referee predicts clean and adversarial images itself.
    nothing = np.zeros(len(x), bool)
    claims = state_claims(
        posterior,
        x,
        y,
        threat,
        np.asarray(x_adv, x.dtype),
        clean_correct=nothing,
        broken=nothing,
        draws_hash=hash_draws(posterior),
    )
    seen = verify_arrays(claims, posterior, threat=threat)
    outside = np.flatnonzero(~seen.is_allowed)
    if outside.size:
        raise RuntimeError(
            f"{outside.size} of {len(x)} images of {attacker} lie outside the l_inf ball of radius "
            f"{epsilon:g} or outside [0, 1], by a distance of up to {seen.distance.max():.6g}: it "
            "solves an easier problem and is not compared."
        )
    return Judgement(seen.accuracy, seen.adversarial_accuracy)
