"""What is trained on the same data and network, by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from bnn_adv.inference import csgmcmc, hmc, laplace, mclmc, sgd, svi, swag

_PUBLISHED_STEPS = 10


class Training(NamedTuple):
    """How draws are made.

    words: What it is called.
    module: The inference method.
    configure: Maps the study's settings and the number of training images to the method's.
    has_chains: Whether draws come from Markov chains, which may not have mixed.
    is_swept: Whether every number of draws is attacked, not only all.
    is_redrawn: Whether its draws are those of a distribution that could draw anew.
    """

    words: str
    module: Any
    configure: Callable[[Any, int], Any]
    has_chains: bool = False
    is_swept: bool = False
    is_redrawn: bool = False


def _sgd(config: Any, num_train: int) -> sgd.Config:
    return sgd.Config(
        num_members=config.num_draws,
        num_epochs=config.sgd_epochs,
        learning_rate=config.learning_rate,
        minibatch_size=min(config.minibatch_size, num_train),
    )


def _map(config: Any, num_train: int) -> sgd.Config:
    return sgd.Config(
        num_members=config.members,
        num_epochs=config.map_epochs,
        learning_rate=config.learning_rate,
        minibatch_size=min(config.minibatch_size, num_train),
        map_prior=True,
    )


def count_stored(config: Any) -> int:
    """Return the draws of a method that could make any number: also those held back."""
    return max(config.num_draws, 4 * config.num_fresh)


def _vi(config: Any, num_train: int) -> svi.Config:
    return svi.Config(
        num_samples=count_stored(config),
        num_epochs=config.vi_epochs,
        learning_rate=5 * config.learning_rate,
        minibatch_size=min(config.minibatch_size, num_train),
    )


def _laplace(config: Any, num_train: int) -> laplace.Config:
    return laplace.Config(
        num_samples=count_stored(config),
        num_epochs=config.map_epochs,
        learning_rate=config.learning_rate,
        minibatch_size=min(config.minibatch_size, num_train),
    )


def _swag(config: Any, num_train: int) -> swag.Config:
    return swag.Config(
        num_samples=count_stored(config),
        num_epochs=config.map_epochs,
        num_swag_epochs=max(config.map_epochs // 2, 2),
        minibatch_size=min(config.minibatch_size, num_train),
    )


def _csgmcmc(config: Any, num_train: int) -> csgmcmc.Config:
    found = csgmcmc.Config(
        num_chains=config.chains,
        num_samples=config.num_draws // config.chains,
        samples_per_cycle=math.gcd(5, config.num_draws // config.chains),
        thinning=config.sgmcmc_thinning,
        step_size=config.sgmcmc_step_size,
        minibatch_size=min(config.minibatch_size, num_train),
    )
    # The first cycle, which comes from the prior, leads to where the others sample.
    return dataclasses.replace(found, num_warmup=found.cycle.length)


def _hmc(config: Any, num_train: int) -> hmc.Config:
    return _mixed(config, config.hmc_draws, config.hmc_length, temperature=1.0)


def _cold_hmc(config: Any, num_train: int) -> hmc.Config:
    found = _mixed(config, config.cold_draws, config.cold_length, temperature=config.cold)
    return dataclasses.replace(
        found,
        num_warmup=config.cold_warmup or config.hmc_warmup,
        thinning=config.cold_thinning or config.hmc_thinning,
    )


def _mixed(config: Any, draws: int, length: float, temperature: float) -> hmc.Config:
    # Tempering makes the prior's scale the root of T times itself; steps scale with it.
    scale = math.sqrt(temperature)
    return hmc.Config(
        num_chains=config.chains,
        num_warmup=config.hmc_warmup,
        num_samples=draws // config.chains,
        thinning=config.hmc_thinning,
        step_size=scale * config.hmc_step_size,
        trajectory_length=length,
        max_integration_steps=config.hmc_most_steps,
        adapt="step_size",
        target_acceptance_rate=config.hmc_acceptance,
        precondition=config.hmc_precondition,
        temperature=temperature,
    )


def _mclmc(config: Any, num_train: int) -> mclmc.Config:
    return mclmc.Config(
        num_chains=config.chains,
        num_warmup=config.mclmc_warmup,
        num_samples=config.hmc_draws // config.chains,
        thinning=config.mclmc_thinning,
        step_size=config.mclmc_step_size,
        length=config.mclmc_length,
    )


def _published_hmc(config: Any, num_train: int) -> hmc.Config:
    return hmc.Config(
        num_chains=config.chains,
        num_warmup=config.hmc_warmup,
        num_samples=config.num_draws // config.chains,
        step_size=config.hmc_step_size,
        num_integration_steps=_PUBLISHED_STEPS,
        adapt="step_size",
    )


TRAININGS: dict[str, Training] = {
    "sgd": Training("ensemble", sgd, _sgd, is_swept=True),
    "map": Training("MAP", sgd, _map),
    "vi": Training("VI", svi, _vi, is_redrawn=True),
    "laplace": Training("Laplace, last layer", laplace, _laplace, is_redrawn=True),
    "swag": Training("SWAG", swag, _swag, is_redrawn=True),
    "csgmcmc": Training("cyclical SGMCMC", csgmcmc, _csgmcmc, has_chains=True),
    "hmc": Training("HMC", hmc, _hmc, has_chains=True, is_swept=True, is_redrawn=True),
    "mclmc": Training("MCLMC", mclmc, _mclmc, has_chains=True, is_swept=True, is_redrawn=True),
    "hmc_cold": Training("HMC, cold", hmc, _cold_hmc, has_chains=True),
    "hmc_published": Training(
        f"HMC, {_PUBLISHED_STEPS} steps", hmc, _published_hmc, has_chains=True
    ),
}
"""All predict by the mean of their draws' probabilities. Priors are N(0, 1) on every weight."""
SAMPLERS = ("hmc", "mclmc")
"""Those whose draws may stand for the posterior."""
USUAL = tuple(name for name in TRAININGS if name != "mclmc")
"""Those that are run unless others are named: one sampler of the posterior."""


def list_sizes(config: Any, name: str) -> tuple[list[int], list[int]]:
    """Return the numbers of draws of a training that are attacked.

    Args:
      config: The study's settings.
      name: Of the training.

    Returns:
      Those attacked at every radius; those at the few that are looked at closely alone.
    """
    if name in ("sgd", "map"):
        full = {1, config.members, *({config.num_draws} if name == "sgd" else ())}
    else:
        full = {config.num_draws}
    training, few = TRAININGS[name], set()
    if training.is_swept:
        most = config.hmc_draws if name in SAMPLERS else config.num_draws
        few |= {size for size in config.sizes if size <= most}
    if config.num_fresh and (training.is_redrawn or name == "sgd"):
        few.add(config.num_fresh)
    return sorted(full), sorted(few - full)
