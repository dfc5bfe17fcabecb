"""Methods on equal terms: one network, the same images, and HMC whose chains mix.

The paper's grids give every method other networks and trainings, and their chains do not mix. Here
mixed HMC stands beside stochastic gradient descent, ensembles, VI, Laplace and SWAG with nothing
else changed. A network's repetitions differ in their random keys alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from bnn_adv.compute.settings import setting
from bnn_adv.inference import laplace, sgd, svi, swag
from experiments.launch.mixed import SampledChains, mixed_hmc
from experiments.robustness_accuracy.grids import GridNetwork

SOURCE = "matched"
"""Of these networks, where others have a table of the supplement."""

METHODS = ("hmc", "sgd", "ensemble", "vi", "laplace", "swag")
_TRAINED = ("sgd", "ensemble", "laplace", "swag")
"""Methods of ``matched_epochs``."""


@dataclasses.dataclass(frozen=True)
class Matched(SampledChains):
    """Settings of the methods on equal terms; the study adds them to its own."""

    matched: tuple[str, ...] = setting(
        (),
        "Methods that are set side by side on the same network and images; none leaves it out.",
        choices=METHODS,
        is_distinct=True,
    )
    matched_hidden: tuple[int, ...] = setting(
        (32,),
        "Matched: units of the network's hidden layer.",
        least=1,
        is_distinct=True,
        least_length=1,
    )
    matched_num_train: int = setting(
        6000, "Matched: training images, drawn by seed; 0: all.", least=0
    )
    matched_num_draws: int = setting(
        50, "Matched: draws that predict, of HMC's evenly spaced along the chains.", least=1
    )
    matched_repeats: int = setting(3, "Matched: networks of each method but HMC.", least=1)
    matched_hmc_repeats: int = setting(1, "Matched: posteriors sampled by mixed HMC.", least=1)
    matched_members: int = setting(10, "Matched: networks of an ensemble.", least=1)
    matched_epochs: tuple[int, ...] = setting(
        (20,),
        "Matched: epochs of SGD, ensembles, Laplace's mode and SWAG's iterates; several train "
        "networks of each.",
        least=2,
        is_distinct=True,
        least_length=1,
    )
    matched_vi_epochs: int = setting(60, "Matched: epochs of VI, as corrected.", least=1)


def list_networks(config: Matched) -> Iterator[list[GridNetwork]]:
    """Yield networks that train side by side; mixed HMC, which takes longest, comes last."""
    several = config.matched_epochs if len(config.matched_epochs) > 1 else (None,)
    for hidden in config.matched_hidden:
        for method in sorted(config.matched, key=lambda method: method == "hmc"):
            count = config.matched_hmc_repeats if method == "hmc" else config.matched_repeats
            for epochs in several if method in _TRAINED else (None,):
                networks = [_network(method, hidden, epochs, repeat) for repeat in range(count)]
                yield from [networks] if method == "sgd" else ([network] for network in networks)


def _network(method: str, hidden: int, epochs: int | None, repeat: int) -> GridNetwork:
    """Return a network; that it trains for some epochs is said where others train for others."""
    shape = {"architecture": "fc", "hidden": hidden, "activation": "relu"}
    trained = {} if epochs is None else {"num_epochs": epochs}
    return GridNetwork(SOURCE, method, (*shape.items(), *trained.items(), ("repeat", repeat)))


def method_config(config: Matched, members: tuple[GridNetwork, ...], num_train: int) -> Any:
    """Return the settings of the inference method for networks that train side by side."""
    draws, batch = config.matched_num_draws, min(128, num_train)
    epochs: int = members[0].get("num_epochs") or config.matched_epochs[0]
    match members[0].method:
        case "hmc":
            return mixed_hmc(config)
        case "sgd":
            return sgd.Config(num_members=len(members), num_epochs=epochs, minibatch_size=batch)
        case "ensemble":
            return sgd.Config(
                num_members=config.matched_members, num_epochs=epochs, minibatch_size=batch
            )
        case "vi":
            return svi.Config(
                num_samples=draws, num_epochs=config.matched_vi_epochs, minibatch_size=batch
            )
        case "laplace":
            return laplace.Config(
                num_samples=draws,
                num_epochs=epochs,
                minibatch_size=batch,
                structure="kronecker",
            )
        case _:
            return swag.Config(num_samples=draws, num_swag_epochs=epochs, minibatch_size=batch)
