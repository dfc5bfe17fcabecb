"""Settings of ensembles by number of members."""

from __future__ import annotations

import dataclasses
from typing import Any

from bnn_adv.compute.settings import Settings, data_folder, seed, setting
from bnn_adv.data import DATASETS
from bnn_adv.networks import ACTIVATIONS, ARCHITECTURES


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.ensembles``."""

    dataset: str = setting("mnist", "Data set of images.", choices=tuple(DATASETS))
    data_dir: str = data_folder()
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
