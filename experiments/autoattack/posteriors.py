"""Small posteriors of the digits on which suites are compared with AutoAttack, and their weights.

Each is trained on the spot from a fixed seed. ``read_run`` takes one of ``experiments.compare``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.data import Dataset, load_dataset
from bnn_adv.data.dataset import subset
from bnn_adv.inference import Data, InferenceResult, hmc, sgd, svi
from bnn_adv.networks import MLP
from bnn_adv.posteriors.posterior import Posterior
from experiments.autoattack.torch_child import ACTIVATIONS
from experiments.launch import stages
from experiments.launch.attack_config import make_target as find_target
from experiments.launch.attack_config import read_posterior
from experiments.launch.run_directory import RunDirectory

Train = Callable[[nn.Module, Data], InferenceResult]


class Recipe(NamedTuple):
    """How a posterior is made.

    network: Its network.
    train: ``(network, data) -> InferenceResult``.
    """

    network: MLP
    train: Train


class Target(NamedTuple):
    """What is attacked.

    network: The fully connected network.
    posterior: Its draws, in memory.
    x: Images, [N, H, W, C] in [0, 1].
    y: Labels, [N].
    """

    network: MLP
    posterior: Posterior
    x: np.ndarray
    y: np.ndarray


def _train(method: Any, config: Any, network: nn.Module, data: Data) -> InferenceResult:
    return method.run(jax.random.key(7), network, data, config)


def _sgd(num_members: int) -> Train:
    config = sgd.Config(
        num_members=num_members, num_epochs=30, learning_rate=0.005, minibatch_size=64
    )
    return functools.partial(_train, sgd, config)


_VI = functools.partial(
    _train,
    svi,
    svi.Config(num_samples=20, num_epochs=100, learning_rate=0.01, minibatch_size=64),
)
_VI_PUBLISHED_INIT = functools.partial(
    _train,
    svi,
    svi.Config(
        num_samples=10, num_epochs=60, learning_rate=0.05, minibatch_size=64, init="published"
    ),
)
_HMC = functools.partial(
    _train,
    hmc,
    hmc.Config(
        num_samples=20,
        step_size=0.005,
        num_integration_steps=30,
        adapt="step_size",
    ),
)


def scale_logits(train: Train, factor: float, network: nn.Module, data: Data) -> InferenceResult:
    """Train, and multiply the last layer of every draw: its softmax saturates further."""
    result = train(network, data)
    last = jax.tree.map(lambda w: factor * w, result.posterior.samples["logits"])
    samples = {**result.posterior.samples, "logits": last}
    return result._replace(posterior=Posterior(result.posterior.apply_fn, samples))


_WIDE = MLP((256, 256), 10, "leaky_relu")

POSTERIORS: dict[str, Recipe] = {
    "det_relu": Recipe(MLP((32,), 10, "relu"), _sgd(1)),
    "det_tanh": Recipe(MLP((32,), 10, "tanh"), _sgd(1)),
    "ensemble": Recipe(MLP((32,), 10, "leaky_relu"), _sgd(3)),
    "ensemble_deep": Recipe(MLP((32, 32), 10, "tanh"), _sgd(3)),
    "vi": Recipe(MLP((64,), 10, "relu"), _VI),
    # Pyro's first means and standard deviations: logits of hundreds, gradients that round to zero.
    "vi_published_init": Recipe(_WIDE, _VI_PUBLISHED_INIT),
    "vi_saturated": Recipe(_WIDE, functools.partial(scale_logits, _VI_PUBLISHED_INIT, 30.0)),
    "hmc": Recipe(MLP((16,), 10, "tanh"), _HMC),
}


def load_images(num_images: int, name: str = "digits", data_dir: str = "", **more: Any) -> Dataset:
    """Return a data set with the first of its test images.

    Args:
      num_images: How many.
      name: Of the data set.
      data_dir: Where its files are; empty looks in the usual places.
      more: What ``load_dataset`` takes beside.

    Raises:
      ValueError: More images than there are.
      OSError: The data are absent.
    """
    dataset = load_dataset(name, data_dir or None, **more)
    if num_images > (most := len(dataset.y_test)):
        raise ValueError(
            f"--num_images must be at most {most}, the test images of {dataset.name}, got "
            f"{num_images}."
        )
    return subset(dataset, num_test=num_images)


def make_target(run: RunDirectory, name: str, num_images: int) -> Target:
    """Return a posterior of the registry and the first test images of the digits.

    Args:
      run: Keeps the draws, so that a second start finds them.
      name: A key of ``POSTERIORS``.
      num_images: How many images.

    Raises:
      ValueError: More images than there are.
    """
    dataset = stages.note_data(run, load_images(num_images))
    network, train = POSTERIORS[name]
    data = Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train))
    posterior, _ = stages.cached_posterior(
        run, name, network, dataset.x_test.shape[1:], functools.partial(train, network, data)
    )
    return Target(network, posterior, dataset.x_test, dataset.y_test)


def read_run(path: str, model: str, num_images: int, data_dir: str) -> Target:
    """Return a posterior of a run of ``experiments.compare``, and the first images of its set.

    Raises:
      ValueError: There is no such model, its network is not fully connected, or its classes are
        fewer than the four that AutoAttack's difference of logits ratio needs.
      OSError: There is no such run, or no such data.
    """
    # The radii are the comparison's own.
    values = {"posterior": path, "model": model, "num_test": num_images, "data_dir": data_dir}
    target = find_target({**values, "epsilon": 0.0})
    config = target.config
    dataset = load_images(num_images, config.dataset, data_dir, seed=config.seed)
    network = target.build(dataset.num_classes)
    if not isinstance(network, MLP) or network.activation not in ACTIVATIONS:
        raise ValueError(
            f"--model={model} of {path} has the network {config.network}: only fully "
            f"connected networks of {', '.join(ACTIVATIONS)} are exported to PyTorch."
        )
    if dataset.num_classes < 4 or dataset.x_test.ndim != 4:
        raise ValueError(
            f"AutoAttack needs images of 4 classes at least, and {config.dataset} has inputs of "
            f"shape {dataset.x_test.shape[1:]} in {dataset.num_classes} classes."
        )
    posterior, _ = read_posterior(target, dataset, None)
    # Draws that lie on disk are read: both sides need all of them.
    posterior = posterior.take(np.arange(posterior.num_samples))
    return Target(network, posterior, dataset.x_test, dataset.y_test)


def export(target: Target) -> dict[str, np.ndarray]:
    """Return draws, images and labels as ``autoattack_torch`` reads them."""
    names = [f"hidden_{index}" for index in range(len(target.network.hidden))] + ["logits"]
    layers = [target.posterior.samples[name] for name in names]
    return {
        **{f"w{i}": np.asarray(layer["kernel"]) for i, layer in enumerate(layers)},
        **{f"b{i}": np.asarray(layer["bias"]) for i, layer in enumerate(layers)},
        "x": np.asarray(target.x, np.float32),
        "y": np.asarray(target.y, np.int64),
        "activation": np.asarray(target.network.activation),
        "decision_rule": np.asarray(target.posterior.decision_rule),
    }
