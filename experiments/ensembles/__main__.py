"""Deep ensembles under attack, by number of members: Table 2's ensemble as a curve.

  python -m experiments.ensembles --scale=cpu --workdir=runs/ensembles
  python -m experiments.ensembles --dataset=mnist --architecture=fc --hidden=64 --sizes=1,2,5,10

All members are trained side by side; an ensemble of S is the first S of them. The same command
continues a run that was stopped.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.attacks.threat import LInf
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.progress import progress
from bnn_adv.compute.settings import Settings, seed, setting
from bnn_adv.data import DATASETS, Dataset, load_dataset
from bnn_adv.evaluation import Settings as AttackSettings
from bnn_adv.evaluation import run_suite
from bnn_adv.evaluation.cascade import predict
from bnn_adv.evaluation.suites import Suite, list_compared
from bnn_adv.inference import InferenceResult, RunOptions, sgd
from bnn_adv.inference.densities import Data
from bnn_adv.networks import ACTIVATIONS, ARCHITECTURES, build_network
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior
from experiments.ensembles.report import Size, build_study
from experiments.launch import stages
from experiments.launch.checks import check_inputs
from experiments.launch.run_directory import RunDirectory
from experiments.launch.study import launch, run_study
from experiments.launch.tables import Study

NAME = "ensembles"
_TRAIN, _ATTACK = range(2)
_TABLE2 = {"dataset": "mnist", "architecture": "conv", "hidden": 512}


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.ensembles``."""

    dataset: str = setting("mnist", "Data set of images.", choices=tuple(DATASETS))
    data_dir: str = setting(
        "",
        "Folder with TFDS-prepared sets or the IDX files; empty looks in the usual places.",
        is_path=True,
    )
    num_train: int = setting(0, "Training images, drawn by seed; 0: all.", least=0)
    num_test: int = setting(1000, "Test images that are attacked (the first ones).", least=1)
    architecture: str = setting("conv", "Network.", choices=ARCHITECTURES)
    hidden: int = setting(
        512, "Units a hidden layer, or channels of the second convolution.", least=1
    )
    activation: str = setting("leaky_relu", "Activation.", choices=tuple(ACTIVATIONS))
    sizes: tuple[int, ...] = setting(
        (1, 2, 5, 10, 20, 50, 100),
        "Numbers of members.",
        least=1,
        is_distinct=True,
        least_length=1,
    )
    sgd_epochs: int = setting(5, "Passes over the data.", least=1)
    sgd_learning_rate: float = setting(0.01, "Adam's rate.", above=0)
    sgd_minibatch_size: int = setting(128, "Examples of a step.", least=1)
    member_chunk: int = setting(
        0, "Members trained at once; 0 chooses from the network's size.", least=0
    )
    epsilons: tuple[float, ...] = setting(
        (0.1, 0.3),
        "Radii of the l_inf ball, in units of inputs in [0, 1]; Table 2: 0.3.",
        least=0,
        is_distinct=True,
        least_length=1,
    )
    suite: str = setting("strong", "The strong attack.", choices=("strong", "fast", "full"))
    batch_size: int = setting(250, "Images attacked at once.", least=1)
    seed: int = seed()
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)

    def __post_init__(self) -> None:
        """Check every field, and sort what is attacked in order."""
        super().__post_init__()
        object.__setattr__(self, "sizes", tuple(sorted(self.sizes)))
        object.__setattr__(self, "epsilons", tuple(sorted(self.epsilons)))


# The paper's network and radius, with 100 members; a CPU gets 32 narrow fully connected ones.
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "dataset": "digits",
        "num_train": 200,
        "num_test": 12,
        "architecture": "fc",
        "hidden": 16,
        "activation": "relu",
        "sizes": (1, 4),
        "sgd_epochs": 10,
        "sgd_minibatch_size": 32,
        "epsilons": (0.1,),
        "suite": "fast",
        "batch_size": 12,
        "checkpoint_every": 0.0,
    },
    "cpu": {
        "num_test": 500,
        "architecture": "fc",
        "hidden": 128,
        "sizes": (1, 2, 4, 8, 16, 32),
        "sgd_epochs": 3,
        "sgd_learning_rate": 0.001,
    },
    "paper": {},
}


def run(config: Config, workdir: str, *, scale: str = "") -> dict[str, Any]:
    """Fill a run directory and return its results.

    Raises:
      ValueError: The data or network do not allow the run, or the folder holds another one.
      OSError: The folder cannot be written to.
    """
    return run_study(NAME, config, workdir, _work, scale=scale, check=check)


def check(config: Config) -> None:
    """Raise unless there are as many images as are asked for, which the network takes.

    Raises:
      ValueError: The message names what is wrong.
    """
    dataset = _load(config)
    network = _build(config, dataset.num_classes)
    check_inputs(network, dataset, flag=f"--architecture={config.architecture}")


def _load(config: Config) -> Dataset:
    return load_dataset(
        config.dataset,
        config.data_dir or None,
        num_train=config.num_train or None,
        num_test=config.num_test,
        seed=config.seed,
    )


def _build(config: Config, num_classes: int) -> nn.Module:
    return build_network(
        config.architecture,
        hidden=config.hidden,
        num_classes=num_classes,
        activation=config.activation,
    )


def _work(config: Config, run: RunDirectory) -> Study:
    dataset = _load(config)
    stages.note_data(run, dataset)
    stages.note_suites(run, list_compared(config.suite).values())
    members = _train(config, run, dataset)
    sizes = [
        _attack(config, run, dataset, members, count, epsilon)
        for count in config.sizes
        for epsilon in config.epsilons
    ]
    return build_study(
        sizes,
        setting=f"{config.dataset}, {config.architecture} of {config.hidden}",
        is_paper_network=all(getattr(config, name) == value for name, value in _TABLE2.items()),
    )


def _train(config: Config, run: RunDirectory, dataset: Dataset) -> Posterior:
    """Train all members, or read them back."""
    network = _build(config, dataset.num_classes)
    settings = sgd.Config(
        num_members=config.sizes[-1],
        num_epochs=config.sgd_epochs,
        learning_rate=config.sgd_learning_rate,
        minibatch_size=min(config.sgd_minibatch_size, len(dataset.y_train)),
        member_chunk=config.member_chunk or None,
    )

    def train() -> InferenceResult:
        with progress("members", "minibatches") as report:
            return sgd.run(
                _key(config, _TRAIN),
                network,
                Data(jnp.asarray(dataset.x_train), jnp.asarray(dataset.y_train)),
                settings,
                RunOptions(
                    progress=report,
                    checkpoints=run.checkpoints("members", config.checkpoint_every),
                ),
            )

    posterior, _ = stages.cached_posterior(
        run,
        "members",
        network,
        dataset.input_shape,
        train,
        # As the published code's ensembles.
        decision_rule="mean_logits",
    )
    return posterior


def _attack(
    config: Config,
    run: RunDirectory,
    dataset: Dataset,
    members: Posterior,
    count: int,
    epsilon: float,
) -> Size:
    """Attack the ensemble of the first ``count`` members."""
    posterior = members.take(np.arange(count))
    x, y, settings = dataset.x_test, dataset.y_test, AttackSettings(config.batch_size)

    def is_correct(images: np.ndarray) -> np.ndarray:
        return predicted_class(predict(posterior, images, settings)) == y

    stored = {}
    for key, suite in list_compared(config.suite).items():
        name = f"attack-{count}-{config.epsilons.index(epsilon)}-{key}"
        checkpoints = run.checkpoints(name, config.checkpoint_every)

        def compute(
            key: str = key,
            suite: Suite = suite,
            checkpoints: Checkpoints | None = checkpoints,
        ) -> dict[str, np.ndarray]:
            with progress(f"{count} members: {key}", "image-steps") as report:
                found = run_suite(
                    _key(config, _ATTACK),
                    suite,
                    posterior,
                    x,
                    y,
                    threat=LInf(epsilon),
                    settings=dataclasses.replace(settings, checkpoints=checkpoints),
                    progress=lambda attack, done, total: report(done, total, label=attack),
                )
            correct = {name: is_correct(images) for name, images in found.adversarial.items()}
            return {
                **correct,
                "clean": is_correct(x),
                "softmax_robustness": np.asarray(found.softmax_robustness),
                "zero_gradient_share": np.asarray(found.zero_gradient_share),
            }

        stored[key] = stages.cached_arrays(run, name, compute)
    numbers = ("softmax_robustness", "zero_gradient_share")
    correct = {
        f"{key}/{attack}": values
        for key, arrays in stored.items()
        for attack, values in arrays.items()
        if attack not in ("clean", *numbers)
    }
    # An image that any attack breaks is not robust.
    correct["strong/worst"] = np.logical_and.reduce(list(correct.values()))
    return Size(
        epsilon,
        count,
        stored["published"]["clean"],
        correct,
        *({key: float(arrays[name]) for key, arrays in stored.items()} for name in numbers),
    )


def _key(config: Config, purpose: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(config.seed), purpose)


if __name__ == "__main__":
    launch(NAME, Config, SCALES, run, __doc__)
