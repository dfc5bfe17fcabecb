"""How each method runs on each posterior: step sizes found by short trials, and how many draws."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from bnn_adv.inference import adjusted_mclmc, csgmcmc, hmc, mclmc, nuts, sghmc, sgld
from experiments.samplers.config import (
    ADJUSTED_MCLMC,
    CSGMCMC,
    HMC,
    HMC_CURVATURE,
    HMC_PUBLISHED,
    MCLMC,
    NUTS,
    POSTERIORS,
    SGHMC,
    SGLD,
    Config,
    build_posterior,
)

TRAJECTORY = 1.3
"""Length of HMC's trajectories, in units of the prior's scale, which is 1: near pi / 2, a quarter
of a period of the directions that the data say nothing about."""

_PUBLISHED_STEPS = 10
_PRECONDITION = 0.5
_WARMUP, _LEAST_WARMUP = 0.2, 30
"""Share of the transitions in which a step is adapted, and how many there are unless that were more
than half."""
_LEAST_TRANSITIONS, _LEAST_DRAWS = 40, 8
_GRADIENTS_OF_STEP = 2
"""Of the McLachlan integrator."""
_CYCLES, _EXPLORATION = 4, 0.1
"""Cycles of cyclical Langevin dynamics, and the share of each without noise. It ends near a mode;
shorter cycles, or a longer share, leave too few steps to come back from there."""


class Tuned(NamedTuple):
    """Step sizes of a posterior, by short trials.

    published_step: First leapfrog step of HMC as published.
    leapfrog_step: First step of HMC and NUTS; their warm-up adapts it.
    curvature_step: The same of HMC in coordinates of the curvature.
    nuts_steps: Most leapfrog steps of a NUTS transition, one less than a power of two: a length
      of one and a half, about, where trees would grow to three and pay twice for it.
    adjusted_steps: Steps of an adjusted microcanonical trajectory, in the mean.
    adjusted_step: Its first step; the warm-up adapts it.
    mclmc_step: Step of unadjusted microcanonical Langevin.
    mclmc_length: Distance after which its direction is renewed.
    sgld_step: Step of Langevin dynamics, along the gradient of the log density.
    sghmc_step: Step of stochastic-gradient HMC.
    sghmc_friction: Its friction.
    csgmcmc_step: First step of a cycle.
    minibatch_size: Examples of a minibatch.
    """

    published_step: float
    leapfrog_step: float
    curvature_step: float
    nuts_steps: int
    adjusted_steps: int
    adjusted_step: float
    mclmc_step: float
    mclmc_length: float
    sgld_step: float
    sghmc_step: float
    sghmc_friction: float
    csgmcmc_step: float
    minibatch_size: int


_MNIST = Tuned(
    published_step=0.002,
    leapfrog_step=0.0032,
    curvature_step=0.02,
    nuts_steps=511,
    adjusted_steps=75,
    adjusted_step=1.0,
    mclmc_step=2.0,
    mclmc_length=150.0,
    sgld_step=2e-5,
    sghmc_step=1.5e-3,
    sghmc_friction=10.0,
    csgmcmc_step=4e-5,
    minibatch_size=256,
)
TUNED = {
    "digits": _MNIST._replace(
        published_step=0.001,
        leapfrog_step=0.0068,
        curvature_step=0.03,
        nuts_steps=255,
        mclmc_length=100.0,
        sgld_step=1e-4,
        sghmc_step=3e-3,
        csgmcmc_step=2e-4,
    ),
    "half_moons": _MNIST._replace(
        published_step=0.001,
        leapfrog_step=0.0028,
        curvature_step=0.006,
        adjusted_steps=100,
        adjusted_step=0.1,
        mclmc_step=0.15,
        mclmc_length=25.0,
        sgld_step=1e-5,
        sghmc_step=2e-3,
        csgmcmc_step=2e-5,
        minibatch_size=500,
    ),
    "mnist_6000": _MNIST,
    "fashion_mnist_6000": _MNIST._replace(published_step=0.001, curvature_step=0.015),
    # Ten times the data: the stiffest directions are narrower by about sqrt(10).
    "mnist_60000": _MNIST._replace(
        leapfrog_step=0.001,
        curvature_step=0.01,
        nuts_steps=1023,
        adjusted_steps=200,
        adjusted_step=0.35,
        mclmc_step=0.7,
        sgld_step=2e-6,
        sghmc_step=5e-4,
        csgmcmc_step=4e-6,
        minibatch_size=500,
    ),
    # By short trials: with twice mclmc's step some chains leave the posterior, with less friction
    # the noise of minibatches keeps sghmc away from it.
    "digits_conv": _MNIST._replace(
        published_step=0.0005,
        leapfrog_step=0.001,
        curvature_step=0.005,
        nuts_steps=1023,
        adjusted_steps=300,
        adjusted_step=0.25,
        mclmc_step=0.25,
        mclmc_length=100.0,
        sgld_step=3e-6,
        sghmc_step=3e-4,
        sghmc_friction=100.0,
        csgmcmc_step=1e-5,
    ),
}
"""By posterior."""


class Plan(NamedTuple):
    """How one method runs.

    module: Has the method's ``build``.
    settings: Its ``Config``.
    """

    module: Any
    settings: Any


def build_plan(config: Config, target: str, method: str, num_data: int) -> Plan:
    """Return how a method runs so that its budget of gradients is used up, about.

    Args:
      config: Settings.
      target: Name of the posterior.
      method: Name of the row.
      num_data: Training examples, N.
    """
    tuned, width = TUNED[target], _width_factor(config, target)
    tuned = tuned._replace(
        adjusted_step=width * tuned.adjusted_step,
        mclmc_step=width * tuned.mclmc_step,
        mclmc_length=width * tuned.mclmc_length,
    )
    return _PLANS[method](config, tuned, num_data)


def _split(config: Config, num_transitions: int, num_warmup: int = 0) -> dict[str, Any]:
    """Return how transitions become draws: as many as may be kept, evenly spaced."""
    left = max(num_transitions - num_warmup, _LEAST_DRAWS)
    thinning = -(-left // config.num_draws)
    return {
        "num_samples": left // thinning,
        "thinning": thinning,
        "num_warmup": num_warmup,
        "num_chains": config.num_chains,
    }


def _plan_published(config: Config, tuned: Tuned, num_data: int) -> Plan:
    transitions = config.budget // _PUBLISHED_STEPS
    settings = hmc.Config(
        # The paper does not give the warm-up.
        **_split(config, transitions, min(100, transitions // 5)),
        step_size=tuned.published_step,
        num_integration_steps=_PUBLISHED_STEPS,
        adapt="step_size",
    )
    return Plan(hmc, settings)


def _plan_hmc(config: Config, tuned: Tuned, num_data: int) -> Plan:
    return Plan(hmc, _long_trajectories(config, tuned.leapfrog_step))


def _plan_curvature(config: Config, tuned: Tuned, num_data: int) -> Plan:
    settings = _long_trajectories(config, tuned.curvature_step)
    return Plan(hmc, dataclasses.replace(settings, precondition=_PRECONDITION))


def _long_trajectories(config: Config, first_step: float) -> hmc.Config:
    steps = _limit(config, math.ceil(TRAJECTORY / first_step))
    transitions = config.budget // steps
    return hmc.Config(
        **_split(config, transitions, _adapting(transitions)),
        step_size=first_step,
        trajectory_length=TRAJECTORY,
        max_integration_steps=2 * steps,
        adapt="step_size",
    )


def _plan_nuts(config: Config, tuned: Tuned, num_data: int) -> Plan:
    steps = _limit(config, tuned.nuts_steps)
    transitions = config.budget // steps
    settings = nuts.Config(
        **_split(config, transitions, _adapting(transitions)),
        step_size=tuned.leapfrog_step,
        max_num_doublings=math.ceil(math.log2(steps)),
        adapt="step_size",
    )
    return Plan(nuts, settings)


def _limit(config: Config, steps: int) -> int:
    """Return the gradients of a transition, of which a budget must allow a few dozen."""
    return max(min(steps, config.budget // _LEAST_TRANSITIONS), 2)


def _adapting(transitions: int) -> int:
    return max(int(_WARMUP * transitions), min(_LEAST_WARMUP, transitions // 2), 1)


def _width_factor(config: Config, target: str) -> float:
    """Return by how much microcanonical lengths grow with a network's width: as sqrt(d)."""
    posterior = build_posterior(config, target)
    return math.sqrt(posterior.hidden / POSTERIORS[target].hidden)


def _plan_mclmc(config: Config, tuned: Tuned, num_data: int) -> Plan:
    settings = mclmc.Config(
        **_split(config, config.budget // _GRADIENTS_OF_STEP),
        step_size=config.step_factor * tuned.mclmc_step,
        length=tuned.mclmc_length,
    )
    return Plan(mclmc, settings)


def _plan_adjusted(config: Config, tuned: Tuned, num_data: int) -> Plan:
    each = _limit(config, _GRADIENTS_OF_STEP * tuned.adjusted_steps)
    transitions = config.budget // each
    settings = adjusted_mclmc.Config(
        **_split(config, transitions, _adapting(transitions)),
        step_size=tuned.adjusted_step,
        num_integration_steps=each / _GRADIENTS_OF_STEP,
    )
    return Plan(adjusted_mclmc, settings)


def _minibatches(config: Config, tuned: Tuned, num_data: int) -> int:
    """Return how many minibatches take as much as their share of the budget of gradients."""
    gradients = config.budget * config.minibatch_share
    return round(gradients * num_data / min(tuned.minibatch_size, num_data))


def _plan_sgld(config: Config, tuned: Tuned, num_data: int) -> Plan:
    settings = sgld.Config(
        **_split(config, _minibatches(config, tuned, num_data)),
        step_size=config.step_factor * tuned.sgld_step,
        minibatch_size=tuned.minibatch_size,
    )
    return Plan(sgld, settings)


def _plan_sghmc(config: Config, tuned: Tuned, num_data: int) -> Plan:
    settings = sghmc.Config(
        **_split(config, _minibatches(config, tuned, num_data)),
        step_size=config.step_factor * tuned.sghmc_step,
        friction=tuned.sghmc_friction,
        minibatch_size=tuned.minibatch_size,
    )
    return Plan(sghmc, settings)


def _plan_csgmcmc(config: Config, tuned: Tuned, num_data: int) -> Plan:
    transitions = _minibatches(config, tuned, num_data)
    each = max(config.num_draws // _CYCLES, 1)
    settings = csgmcmc.Config(
        num_samples=each * _CYCLES,
        samples_per_cycle=each,
        thinning=max(int(transitions * (1 - _EXPLORATION) / (each * _CYCLES)), 1),
        exploration=_EXPLORATION,
        num_chains=config.num_chains,
        step_size=config.step_factor * tuned.csgmcmc_step,
        minibatch_size=tuned.minibatch_size,
    )
    return Plan(csgmcmc, settings)


_PLANS = {
    HMC_PUBLISHED: _plan_published,
    HMC: _plan_hmc,
    NUTS: _plan_nuts,
    MCLMC: _plan_mclmc,
    ADJUSTED_MCLMC: _plan_adjusted,
    SGLD: _plan_sgld,
    SGHMC: _plan_sghmc,
    CSGMCMC: _plan_csgmcmc,
    HMC_CURVATURE: _plan_curvature,
}
