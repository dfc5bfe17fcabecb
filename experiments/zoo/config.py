"""Settings of the zoo: which posteriors are trained, how, and how they are judged."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from bnn_adv.compute.settings import Settings, data_folder, seed, setting
from bnn_adv.data import DATASETS
from experiments.launch.sampled import sampled_runs
from experiments.zoo.methods import METHODS

TRAININGS = ("standard", "adversarial", "interval")
_OTHERS = {"mnist": "fashion_mnist", "fashion_mnist": "mnist"}
_RADII = {"mnist": (0.1, 0.3), "fashion_mnist": (0.05, 0.1)}


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.zoo``."""

    datasets: tuple[str, ...] = setting(
        ("mnist", "fashion_mnist"),
        "Data sets of pictures.",
        choices=tuple(DATASETS),
        is_distinct=True,
        least_length=1,
    )
    data_dir: str = data_folder()
    methods: tuple[str, ...] = setting(
        tuple(METHODS), "Methods.", choices=tuple(METHODS), is_distinct=True, least_length=1
    )
    trainings: tuple[str, ...] = setting(
        TRAININGS,
        "Likelihoods: standard; adversarial, of the input that PGD finds around each example; "
        "interval, of a bound of the worst one.",
        choices=TRAININGS,
        is_distinct=True,
        least_length=1,
    )
    num_train: int = setting(0, "Training images, drawn by seed; 0: all.", least=0)
    num_train_hmc: int = setting(6000, "The same of HMC, which sees all at every step.", least=1)
    num_test: int = setting(500, "Test images that are attacked (the first ones).", least=1)
    epsilons: tuple[float, ...] = setting(
        (),
        "Radii of the l_inf ball; empty: 0.1 and 0.3 (MNIST), 0.05 and 0.1 (others). Robust "
        "likelihoods count the largest.",
        above=0,
        is_distinct=True,
    )
    width: int = setting(
        16, "Channels of the first convolution; the second has twice as many.", least=1
    )
    hidden: int = setting(100, "Units of the dense layer behind them.", least=1)
    hmc_hidden: int = setting(32, "Units of HMC's network, one hidden layer.", least=1)
    num_epochs: int = setting(10, "Passes over the data, standard likelihood.", least=1)
    num_robust_epochs: int = setting(30, "The same, robust likelihoods.", least=1)
    warmup: float = setting(
        0.5, "Share of the passes in which the radius grows from zero.", least=0, most=1
    )
    weight: float = setting(
        0.0, "Weight of the clean example in a robust likelihood.", least=0, most=1
    )
    num_pgd: int = setting(7, "Steps of PGD while training.", least=1)
    learning_rate: float = setting(0.001, "Adam's rate.", above=0)
    minibatch_size: int = setting(128, "Examples of a step.", least=1)
    num_draws: int = setting(20, "Draws that predict; chains and dropout too.", least=1)
    num_members: int = setting(10, "Networks of the ensemble.", least=1)
    prior_kind: Literal["isotropic", "fan_in"] = setting(
        "fan_in", "Prior of kernels, see --hmc.prior.kind of experiments.compare."
    )
    chains: int = setting(4, "Chains of HMC and of cyclical SGMCMC.", least=1)
    hmc_draws: int = setting(
        400,
        "Draws of HMC over all chains, by which mixing is judged; as many of them predict as "
        "draws of others, evenly spaced along the chains.",
        least=1,
    )
    hmc_warmup: int = setting(50, "HMC: transitions before the first draw.", least=1)
    hmc_thinning: int = setting(3, "HMC: transitions a draw.", least=1)
    hmc_length: float = setting(1.3, "HMC: trajectories, in units of the prior's scale.", above=0)
    hmc_most_steps: int = setting(500, "HMC: most leapfrog steps of one.", least=1)
    hmc_precondition: float = setting(
        0.0, "HMC: see --hmc.precondition of experiments.compare.", least=0, most=1
    )
    mixed_runs: tuple[str, ...] = sampled_runs()
    sgmcmc_step_size: float = setting(
        4e-6,
        "Cyclical SGMCMC: first step of a cycle; of ten times fewer images ten times as long.",
        above=0,
    )
    sgmcmc_thinning: int = setting(200, "Cyclical SGMCMC: steps a draw.", least=1)
    suite: str = setting("strong", "The strong attack.", choices=("strong", "fast", "full"))
    certify: Literal["ibp", "crown-ibp", "crown"] = setting(
        "crown-ibp", "Bounds of convolutional networks; HMC's has crown."
    )
    num_probe: int = setting(
        50, "Images on which signs of masking are looked for; 0: none.", least=0
    )
    num_curve: int = setting(50, "Images of the detection of attacks; 0: leave it out.", least=0)
    num_shift: int = setting(
        100, "Images of each kind of semantic shift; 0: leave it out.", least=0
    )
    batch_size: int = setting(100, "Images attacked at once.", least=1)
    join: tuple[str, ...] = setting(
        (),
        "Finished run directories of this study, or folders of them, whose posteriors are put into "
        "one table; nothing is trained, and of other flags --join_across_code alone counts. What "
        "was joined before is joined too: other runs' posteriors replace the same of it.",
        is_distinct=True,
    )
    join_across_code: bool = setting(
        False,
        "Join runs also where the code of attacks of one name has changed in between; the summary "
        "names the states of the code.",
    )
    seed: int = seed()
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)

    def radii(self, dataset: str) -> tuple[float, ...]:
        """Return the radii of a data set, ascending."""
        return tuple(sorted(self.epsilons or _RADII.get(dataset, (0.05, 0.1))))

    def outside(self, dataset: str) -> str:
        """Return the inputs that are out of a data set's distribution."""
        return _OTHERS.get(dataset, "rotated")


SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "datasets": ("digits",),
        "methods": ("sgd", "vi", "hmc"),
        "trainings": ("standard", "interval"),
        "num_train": 200,
        "num_train_hmc": 60,
        "num_test": 10,
        "epsilons": (0.05,),
        "width": 2,
        "hidden": 6,
        "hmc_hidden": 4,
        "num_epochs": 2,
        "num_robust_epochs": 2,
        "num_draws": 4,
        "chains": 2,
        "hmc_draws": 4,
        "hmc_warmup": 2,
        "hmc_thinning": 1,
        "hmc_most_steps": 5,
        "suite": "fast",
        "num_probe": 0,
        "num_curve": 4,
        "num_shift": 5,
        "batch_size": 10,
        "checkpoint_every": 0.0,
    },
    "cpu": {"num_test": 300, "num_probe": 30, "num_curve": 30},
    "paper": {"num_test": 1000, "num_draws": 50, "num_robust_epochs": 60},
}
