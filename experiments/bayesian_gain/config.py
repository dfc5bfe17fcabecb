"""Settings of ``experiments.bayesian_gain``, and its scales."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from bnn_adv.compute.settings import SettingError, Settings, data_folder, seed, setting
from bnn_adv.data import DATASETS
from bnn_adv.networks import small_convnet
from experiments.bayesian_gain.architectures import ARCHITECTURES
from experiments.bayesian_gain.trainings import SAMPLERS, TRAININGS, USUAL
from experiments.launch.apart import processes
from experiments.launch.mixed import GAIN, Chains
from experiments.launch.sampled import sampled_runs

_CHAINS = GAIN["paper"]


class Case(NamedTuple):
    """Data, network and repetition.

    dataset: Name of the data set.
    network: Name of the network, one of ``ARCHITECTURES``.
    hidden: Units of its hidden dense layer.
    repeat: Number of the repetition: of the random keys of training and attack; data are the same.
    """

    dataset: str
    network: str
    hidden: int
    repeat: int

    @property
    def name(self) -> str:
        """What its stages begin with."""
        return f"{self.dataset}-{self.network}{self.hidden}-r{self.repeat}"


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.bayesian_gain``."""

    datasets: tuple[str, ...] = setting(
        ("mnist", "fashion_mnist"),
        "Data sets of images.",
        choices=tuple(DATASETS),
        is_distinct=True,
        least_length=1,
    )
    data_dir: str = data_folder()
    num_train: int = setting(6000, "Training images, drawn by seed; 0: all.", least=0)
    num_test: int = setting(1000, "Test images that are attacked (the first ones).", least=1)
    networks: tuple[str, ...] = setting(
        ("fc",),
        "Networks: fc has one hidden layer, small_conv convolutions (--channels) before it.",
        choices=tuple(ARCHITECTURES),
        is_distinct=True,
        least_length=1,
    )
    hidden: tuple[int, ...] = setting(
        (32, 128), "Units of the hidden dense layer.", least=1, is_distinct=True, least_length=1
    )
    channels: tuple[int, ...] = setting(
        small_convnet.Config.channels,
        "Channels of small_conv's convolutions.",
        least=1,
        least_length=1,
    )
    num_repeats: int = setting(
        3, "Repetitions of all training and attacks, each with random keys of its own.", least=1
    )
    methods: tuple[str, ...] = setting(
        USUAL,
        "What is trained; sgd and the sampler are what the others are compared with.",
        choices=tuple(TRAININGS),
        is_distinct=True,
        least_length=1,
    )
    sampler: str = setting(
        "hmc",
        "The method whose draws stand for the posterior; mclmc takes fewer gradients and has no "
        "Metropolis test: its claims are judged where its energy errors are small.",
        choices=SAMPLERS,
    )
    epsilons: tuple[float, ...] = setting(
        (0.02, 0.05, 0.1, 0.15, 0.2, 0.3),
        "Radii of the l_inf ball, in units of inputs in [0, 1].",
        above=0,
        most=1,
        is_distinct=True,
        least_length=1,
    )
    close_epsilons: tuple[float, ...] = setting(
        (0.05, 0.1),
        "Those of the radii at which numbers of draws, fresh draws and signs of masking are "
        "looked at.",
        above=0,
        most=1,
        is_distinct=True,
        least_length=1,
    )
    num_draws: int = setting(
        100, "Draws of each posterior, members of the largest ensemble.", least=2
    )
    members: int = setting(10, "Members of the small ensembles.", least=1)
    sizes: tuple[int, ...] = setting(
        (1, 2, 5, 10, 25, 50, 100, 200, 400),
        "Numbers of draws of the sampler and of members of the ensemble; what is larger than there "
        "are is left out.",
        least=1,
        is_distinct=True,
        least_length=1,
    )
    num_fresh: int = setting(
        25,
        "Draws of a prediction that draws anew; 0 leaves fresh draws out. They come from the half "
        "of the draws that the attacker does not know.",
        least=0,
    )
    num_predictions: int = setting(100, "Predictions of an image by fresh draws.", least=1)
    num_probe: int = setting(
        50, "Images on which signs of masking are looked for; 0 leaves that out.", least=0
    )
    suite: str = setting("strong", "The attack.", choices=("strong", "fast", "full"))
    chains: int = setting(_CHAINS.num_chains, "Chains of the samplers.", least=1)
    hmc_warmup: int = setting(_CHAINS.num_warmup, "Warm-up transitions of a chain of HMC.", least=0)
    hmc_draws: int = setting(
        _CHAINS.num_draws, "Draws of HMC, or of MCLMC, over all chains.", least=1
    )
    hmc_thinning: int = setting(
        _CHAINS.thinning, "Transitions of HMC a draw that is kept.", least=1
    )
    hmc_step_size: float = setting(
        _CHAINS.step_size,
        "First leapfrog step, in units of the prior's scale; the warm-up adapts it.",
        above=0,
    )
    hmc_length: float = setting(
        _CHAINS.trajectory_length,
        "Length of a trajectory, in units of the prior's scale.",
        above=0,
    )
    hmc_most_steps: int = setting(
        _CHAINS.max_integration_steps, "Leapfrog steps of a trajectory at most.", least=1
    )
    hmc_acceptance: float = setting(
        _CHAINS.target_acceptance_rate,
        "Acceptance rate that the warm-up aims at.",
        above=0,
        below=1,
    )
    hmc_precondition: float = setting(
        0.0,
        "Power of the curvature in whose coordinates HMC moves; 0: in the weights.",
        least=0,
        most=1,
    )
    mclmc_warmup: int = setting(10_000, "Warm-up transitions of a chain of MCLMC.", least=0)
    mclmc_thinning: int = setting(100, "Transitions of MCLMC a draw that is kept.", least=1)
    mclmc_step_size: float = setting(
        2.0,
        "Its step, in the space of all weights, of every width; found on MNIST with 32 units.",
        above=0,
    )
    mclmc_length: float = setting(
        150.0, "Distance after which its direction is renewed; likewise.", above=0
    )
    mixed_runs: tuple[str, ...] = sampled_runs()
    cold: float = setting(0.1, "Temperature of the cold posterior.", above=0, below=1)
    cold_draws: int = setting(200, "Draws of the cold posterior, over all chains.", least=1)
    cold_length: float = setting(
        1.5, "Length of its trajectories, in units of its own prior's scale.", above=0
    )
    cold_warmup: int = setting(
        0, "Its warm-up: it is a longer way from the prior; 0: that of HMC.", least=0
    )
    cold_thinning: int = setting(
        0, "Its transitions a draw that is kept; 0: those of HMC.", least=0
    )
    sgd_epochs: int = setting(30, "Passes over the data of SGD.", least=1)
    map_epochs: int = setting(60, "The same of all that looks for the posterior's mode.", least=1)
    vi_epochs: int = setting(60, "The same of variational inference.", least=1)
    learning_rate: float = setting(0.002, "Adam's rate; VI's is five times that.", above=0)
    minibatch_size: int = setting(128, "Examples of a step.", least=1)
    sgmcmc_step_size: float = setting(1e-4, "First step of a cycle of SGMCMC.", above=0)
    sgmcmc_thinning: int = setting(100, "Transitions a draw while a cycle samples.", least=1)
    batch_size: int = setting(25, "Images attacked at once.", least=1)
    seed: int = seed()
    jobs: int = processes()
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)

    def __post_init__(self) -> None:
        """Check every field, and that numbers of draws and radii fit together."""
        super().__post_init__()
        for name in ("epsilons", "close_epsilons", "sizes"):
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))
        if other := sorted(set(self.close_epsilons) - set(self.epsilons)):
            raise SettingError("close_epsilons", f"must be some of epsilons, got {other}.")
        if self.channels != small_convnet.Config.channels and "small_conv" not in self.networks:
            networks, given = ", ".join(self.networks), ",".join(map(str, self.channels))
            problem = (
                f"of {given} are for small_conv; the networks are {networks}: add it there, or "
                "leave the channels out."
            )
            raise SettingError("channels", problem)
        if not {"sgd", self.sampler} <= set(self.methods):
            given = ", ".join(self.methods)
            problem = (
                f"needs sgd and {self.sampler}, which all others are compared with, got {given}: "
                "add them, or change --sampler."
            )
            raise SettingError("methods", problem)
        if "mclmc" not in self.methods:
            for field in dataclasses.fields(self):
                value = getattr(self, field.name)
                if field.name.startswith("mclmc_") and value != field.default:
                    problem = f"is of mclmc, got {value}: add it to --methods, or leave this out."
                    raise SettingError(field.name, problem)
        for name in ("num_draws", "hmc_draws", "cold_draws"):
            draws = getattr(self, name)
            is_taken = name == "hmc_draws" and self.mixed_runs and "mclmc" not in self.methods
            if draws % self.chains and not is_taken:
                problem = f"must be a multiple of chains ({self.chains}), got {draws}."
                raise SettingError(name, problem)
            if draws < self.num_draws:
                problem = f"must be at least num_draws ({self.num_draws}), got {draws}."
                raise SettingError(name, problem)
        if self.members > self.num_draws:
            problem = f"must be at most num_draws ({self.num_draws}), got {self.members}."
            raise SettingError("members", problem)
        if 2 * self.num_fresh > self.num_draws:
            problem = f"must be at most half of num_draws ({self.num_draws}), got {self.num_fresh}."
            raise SettingError("num_fresh", problem)

    @property
    def cases(self) -> list[Case]:
        """Data, network and repetition, in order: one of each before the next repetition."""
        return [
            Case(dataset, network, hidden, repeat)
            for repeat in range(self.num_repeats)
            for dataset in self.datasets
            for network in self.networks
            for hidden in self.hidden
        ]


def _settings(chains: Chains) -> dict[str, Any]:
    """Return HMC that mixes: the step is adapted, the length of trajectories is kept."""
    return {
        "chains": chains.num_chains,
        "hmc_warmup": chains.num_warmup,
        "hmc_draws": chains.num_draws,
        "hmc_thinning": chains.thinning,
        "hmc_step_size": chains.step_size,
        "hmc_length": chains.trajectory_length,
        "hmc_most_steps": chains.max_integration_steps,
        "hmc_acceptance": chains.target_acceptance_rate,
    }


SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "datasets": ("digits",),
        "num_train": 100,
        "num_test": 12,
        "hidden": (8,),
        "num_repeats": 2,
        "methods": ("sgd", "hmc"),
        "epsilons": (0.05, 0.1),
        "close_epsilons": (0.1,),
        "num_draws": 4,
        "members": 4,
        "sizes": (1, 4),
        "num_fresh": 0,
        "num_probe": 0,
        "suite": "fast",
        "chains": 2,
        "hmc_warmup": 5,
        "hmc_draws": 4,
        "cold_draws": 4,
        "hmc_most_steps": 5,
        "sgd_epochs": 2,
        "map_epochs": 2,
        "vi_epochs": 2,
        "minibatch_size": 50,
        "batch_size": 12,
        "checkpoint_every": 0.0,
    },
    "digits": {
        "datasets": ("digits",),
        "num_train": 0,
        "num_test": 150,
        "hidden": (32,),
        "num_repeats": 3,
        "num_probe": 40,
        "minibatch_size": 64,
        "vi_epochs": 200,
        "batch_size": 50,
        "cold_draws": 400,
        "cold_length": 3.0,
        "cold_warmup": 400,
        "cold_thinning": 5,
        **_settings(GAIN["digits"]),
    },
    "cpu": {
        "num_test": 100,
        "hidden": (32,),
        "num_repeats": 2,
        "num_probe": 20,
        "num_predictions": 50,
        "cold_draws": 100,
        "cold_length": 1.3,
        **_settings(GAIN["cpu"]),
    },
    "paper": {
        "num_test": 500,
        "hidden": (32,),
        "num_repeats": 2,
        "sizes": (1, 5, 25, 100, 400),
        "batch_size": 500,
    },
}
"""smoke: seconds, to see that it runs. digits: the embedded 8x8 digits. cpu: MNIST and Fashion
MNIST on two cores. The paper did not ask this question: paper is what a data-centre GPU does in a
quarter of an hour, by eleven processes on 16 cores."""
