"""How the zoo's posteriors are trained, by name; the likelihood is given to each alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from bnn_adv.inference import csgmcmc, hmc, laplace, mc_dropout, sgd, svi, swag
from bnn_adv.inference.densities import Prior
from bnn_adv.inference.robust import OFF, Robust
from bnn_adv.inference.states import Ensemble


class Method(NamedTuple):
    """How draws are made.

    words: What it is called.
    module: The inference method.
    configure: Maps the study's settings, the likelihood and passes over the data to the method's.
    has_chains: Whether its draws are those of Markov chains, on a fully connected network and
      fewer images where ``is_small``.
    is_small: See there.
    is_redrawn: Whether its draws surround one network: half of them are held back, to say what
      those do that nobody knows, and the mean of the others' weights is attacked as a network.
    rival: The method of fewest differences, against which it is tested; None of the simplest, and
      of what is trained on other images.
    """

    words: str
    module: Any
    configure: Callable[[Any, Robust, int], Any]
    has_chains: bool = False
    is_small: bool = False
    is_redrawn: bool = False
    rival: str | None = "map"


def _prior(config: Any) -> Prior:
    return Prior(kind=config.prior_kind)


def _sgd(config: Any, robust: Robust, epochs: int) -> sgd.Config:
    return sgd.Config(
        num_epochs=epochs,
        learning_rate=config.learning_rate,
        minibatch_size=config.minibatch_size,
        robust=robust,
    )


def _map(config: Any, robust: Robust, epochs: int) -> sgd.Config:
    return dataclasses.replace(_sgd(config, robust, epochs), map_prior=True, prior=_prior(config))


def _ensemble(config: Any, robust: Robust, epochs: int) -> sgd.Config:
    return dataclasses.replace(_sgd(config, robust, epochs), num_members=config.num_members)


def _vi(config: Any, robust: Robust, epochs: int) -> svi.Config:
    return svi.Config(
        num_samples=2 * config.num_draws,
        num_epochs=epochs,
        learning_rate=config.learning_rate,
        minibatch_size=config.minibatch_size,
        prior=_prior(config),
        robust=robust,
    )


def _drawn(module: Any) -> Callable[[Any, Robust, int], Any]:
    def configure(config: Any, robust: Robust, epochs: int) -> Any:
        return module.Config(
            num_samples=2 * config.num_draws,
            num_epochs=epochs,
            learning_rate=config.learning_rate,
            minibatch_size=config.minibatch_size,
            prior=_prior(config),
            robust=robust,
        )

    return configure


def _swag(config: Any, robust: Robust, epochs: int) -> swag.Config:
    return swag.Config(
        num_samples=2 * config.num_draws,
        num_epochs=epochs,
        num_swag_epochs=max(epochs // 3, 2),
        minibatch_size=config.minibatch_size,
        prior=_prior(config),
        robust=robust,
    )


def _csgmcmc(config: Any, robust: Robust, epochs: int) -> csgmcmc.Config:
    each = -(-config.num_draws // config.chains)
    found = csgmcmc.Config(
        num_chains=config.chains,
        num_samples=each,
        samples_per_cycle=1 if each % 5 else 5,
        thinning=config.sgmcmc_thinning,
        step_size=config.sgmcmc_step_size,
        minibatch_size=config.minibatch_size,
        init="ensemble",
        # Trained as the others are, so that the chains start where those end.
        ensemble=Ensemble(
            num_epochs=epochs,
            learning_rate=config.learning_rate,
            minibatch_size=config.minibatch_size,
            warmup=0.0 if robust.is_off else config.warmup,
        ),
        prior=_prior(config),
        robust=robust,
    )
    return dataclasses.replace(found, num_warmup=found.cycle.length)


def _hmc(config: Any, robust: Robust, epochs: int) -> hmc.Config:
    return hmc.Config(
        num_chains=config.chains,
        num_samples=-(-config.hmc_draws // config.chains),
        num_warmup=config.hmc_warmup,
        thinning=config.hmc_thinning,
        trajectory_length=config.hmc_length,
        max_integration_steps=config.hmc_most_steps,
        step_size=0.003,
        adapt="step_size",
        target_acceptance_rate=0.7,
        precondition=config.hmc_precondition,
        robust=robust,
    )


METHODS: dict[str, Method] = {
    "sgd": Method("SGD", sgd, _sgd, rival=None),
    "map": Method("MAP", sgd, _map, rival="sgd"),
    "ensemble": Method("ensemble", sgd, _ensemble, rival="sgd"),
    "vi": Method("VI", svi, _vi, is_redrawn=True),
    "laplace": Method("Laplace, last layer", laplace, _drawn(laplace), is_redrawn=True),
    "swag": Method("SWAG", swag, _swag, is_redrawn=True),
    "mc_dropout": Method("MC dropout", mc_dropout, _drawn(mc_dropout), is_redrawn=True),
    "csgmcmc": Method("cyclical SGMCMC", csgmcmc, _csgmcmc, has_chains=True),
    "hmc": Method("HMC", hmc, _hmc, has_chains=True, is_small=True, rival=None),
}
"""All predict by the mean of their draws' probabilities. MAP is one network of others' prior."""


def make_likelihood(config: Any, training: str, epsilon: float, method: Method) -> Robust | None:
    """Return the likelihood of a training; None where a method cannot have it.

    Args:
      config: The study's settings.
      training: ``"standard"``, ``"adversarial"`` or ``"interval"``.
      epsilon: Radius.
      method: Whose.
    """
    if training == "standard":
        return OFF
    if training == "adversarial" and method.is_small:
        # Its density has no key: an attack from random starts is no function of the weights.
        return None
    return Robust(
        worst="pgd" if training == "adversarial" else "interval",
        weight=config.weight,
        epsilon=epsilon,
        num_steps=config.num_pgd,
        # Chains sample one density; the networks at which some start are trained as others.
        warmup=0.0 if method.has_chains else config.warmup,
        init="network" if method.is_small or training == "adversarial" else "ibp",
    )
