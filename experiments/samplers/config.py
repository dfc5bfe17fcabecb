"""Settings of ``experiments.samplers`` and its scales, and the posteriors that they name."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from flax import linen as nn

from bnn_adv.compute.settings import Settings, data_folder, seed, setting
from bnn_adv.networks import NETWORKS, build_network, find_network
from experiments.launch.apart import processes

HMC_PUBLISHED, HMC, NUTS = "hmc_published", "hmc", "nuts"
MCLMC, ADJUSTED_MCLMC = "mclmc", "adjusted_mclmc"
SGLD, SGHMC, CSGMCMC = "sgld", "sghmc", "csgmcmc"
HMC_CURVATURE = "hmc_curvature"
METHODS = (HMC_PUBLISHED, HMC, NUTS, MCLMC, ADJUSTED_MCLMC, SGLD, SGHMC, CSGMCMC, HMC_CURVATURE)
"""Rows; a method's name decides its random keys."""
USUAL = METHODS[:-1]
"""Those that are run unless others are named: the last is a variant, with results of its own."""
ADJUSTED = (HMC, NUTS, ADJUSTED_MCLMC, HMC_CURVATURE)
"""Methods whose draws have the posterior's law where chains have mixed, in the order in which they
are taken to judge the others."""
MINIBATCH = (SGLD, SGHMC, CSGMCMC)
"""Methods whose transitions see one minibatch each."""


class Posterior(NamedTuple):
    """A posterior that is sampled: a data set and a network, under the prior N(0, 1).

    title: Its name in tables and figures.
    dataset: Name of the data set.
    num_train: Training examples, drawn by seed; 0: all.
    architecture: Of the network: a key of ``NETWORKS``, or see ``build_network``.
    hidden: Its units.
    activation: Its nonlinearity.
    """

    title: str
    dataset: str
    num_train: int
    architecture: str
    hidden: int
    activation: str

    def network(self, num_classes: int) -> nn.Module:
        """Return the network."""
        if self.architecture in NETWORKS:
            found = find_network(self.architecture)
            settings = found.Config(hidden=self.hidden, activation=self.activation)
            built: nn.Module = found.build(settings, num_classes)
            return built
        return build_network(
            self.architecture,
            hidden=self.hidden,
            num_classes=num_classes,
            activation=self.activation,
        )


POSTERIORS = {
    "digits": Posterior("digits", "digits", 0, "fc", 128, "relu"),
    "half_moons": Posterior("half moons", "half_moons", 5000, "fc2", 32, "leaky_relu"),
    "mnist_6000": Posterior("MNIST 6,000", "mnist", 6000, "fc", 32, "relu"),
    "fashion_mnist_6000": Posterior("Fashion MNIST 6,000", "fashion_mnist", 6000, "fc", 32, "relu"),
    "mnist_60000": Posterior("MNIST 60,000", "mnist", 60000, "fc", 32, "relu"),
    "digits_conv": Posterior("digits, small ConvNet", "digits", 0, "small_conv", 100, "relu"),
}
TARGETS = tuple(POSTERIORS)
"""Posteriors; a posterior's name decides its random keys, as a method's does."""


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of ``experiments.samplers``."""

    targets: tuple[str, ...] = setting(
        ("digits", "half_moons"),
        "Posteriors that are sampled; the MNIST ones need the data.",
        choices=TARGETS,
        is_distinct=True,
        least_length=1,
    )
    methods: tuple[str, ...] = setting(
        USUAL, "Methods.", choices=METHODS, is_distinct=True, least_length=1
    )
    data_dir: str = data_folder()
    num_chains: int = setting(4, "Chains of each method, each from its own draw.", least=2)
    budget: int = setting(
        50_000, "Gradients of all data that each chain may take, about.", least=100
    )
    minibatch_share: float = setting(
        0.25,
        "Share of the budget that methods of minibatches have, where one counts B/N of a gradient: "
        "of equal numbers of gradients these take several times as long.",
        above=0,
        most=1,
    )
    num_draws: int = setting(400, "Draws kept of each chain, at most.", least=8)
    num_points: int = setting(
        8, "Numbers of gradients at which chains are judged, evenly spaced by ratio.", least=1
    )
    num_train: int = setting(0, "Training examples, drawn by seed; 0: the posterior's.", least=0)
    num_held_out: int = setting(
        200, "Held-out examples for R-hat, ESS and likelihood (the first ones).", least=1
    )
    hidden: int = setting(0, "Hidden units; 0: the posterior's.", least=0)
    step_factor: float = setting(
        1.0, "Factor of the step sizes that no warm-up learns: a half shows bias.", above=0
    )
    seed: int = seed()
    jobs: int = processes()
    checkpoint_every: float = setting(60.0, "Seconds between checkpoints; 0 writes none.", least=0)


# cpu: sized for two cores, nothing to download. mnist: hours. paper: all posteriors.
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {
        "targets": ("digits",),
        "num_chains": 2,
        "budget": 160,
        "minibatch_share": 1.0,
        "num_draws": 8,
        "num_points": 2,
        "num_train": 60,
        "num_held_out": 10,
        "hidden": 4,
        "checkpoint_every": 0.0,
    },
    "cpu": {},
    "mnist": {"targets": ("mnist_6000", "fashion_mnist_6000", "mnist_60000"), "budget": 60_000},
    "paper": {"targets": TARGETS, "budget": 60_000},
}


def build_posterior(config: Config, name: str) -> Posterior:
    """Return a posterior, overlaid by the settings that are given, which its title then names."""
    found = POSTERIORS[name]
    num_train, hidden = config.num_train or found.num_train, config.hidden or found.hidden
    title = found.title
    if num_train != found.num_train:
        title = f"{title.removesuffix(f' {found.num_train:,}')}, {num_train:,} examples"
    if hidden != found.hidden:
        title += f", {hidden} units"
    return found._replace(title=title, num_train=num_train, hidden=hidden)
