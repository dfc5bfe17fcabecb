"""Guides of variational inference as arrays: kept, read back, and drawn from as before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict

from bnn_adv.inference.svi import Config, build_problem, make_sampler
from bnn_adv.networks import init_params
from bnn_adv.posteriors.sampler import Sampler


def get_guide_params(sampler: Sampler) -> dict[str, jax.Array]:
    """Return the parameters by name of a sampler that ``svi.run`` or ``restore_sampler`` made."""
    (params,) = sampler.draw.args  # type: ignore[attr-defined]
    return dict(params)


def restore_sampler(
    network: nn.Module,
    config: Config,
    input_shape: tuple[int, ...],
    guide_params: Mapping[str, Any],
) -> Sampler:
    """Return the sampler of a guide that was trained before.

    Args:
      network: The network.
      config: The settings of the training.
      input_shape: Shape of one input.
      guide_params: From ``get_guide_params``.

    Raises:
      ValueError: A parameter is missing, unknown or of another shape; the message names it.
    """
    start = init_params(jax.random.key(0), network, input_shape)
    weights = flatten_dict(start, sep="/")
    problem = build_problem(network, config, tuple(weights), input_shape)
    expected = {
        f"{name}_auto_{part}": value.shape
        for name, value in weights.items()
        for part in ("loc", "scale")
    }
    if config.guide == "mean_field":
        given = {name: np.shape(value) for name, value in guide_params.items()}
        wrong = {name for name in expected | given if expected.get(name) != given.get(name)}
        if wrong:
            name = min(wrong)
            raise ValueError(
                f"The guide's parameter {name} has the shape {given.get(name)} where this network "
                f"needs {expected.get(name)}: give the network and guide of the training."
            )
    params = {name: jnp.asarray(value) for name, value in guide_params.items()}
    return make_sampler(problem, network, params)
