r"""Energies of large networks, accurate in float32.

The kinetic energy ``(1/2) p^T M^{-1} p`` of n parameters is near n / 2: at eleven million, float32
numbers of that size lie half a nat apart, and the Metropolis test compares noise. The same energy
less the constant n / 2,

    K(p) = sum_i (p_i v_i - 1) / 2,    v = M^{-1} p,

is of the order of sqrt(n / 2), has the same gradient and gives the same test (constants cancel).
``densities.log_prior(centred=True)`` treats the prior alike.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from bnn_adv.inference.densities import accurate_sum
from bnn_adv.networks import Params


def centred_metric(inverse_mass_matrix: jax.Array) -> Any:
    """Return BlackJAX's Gaussian metric with its kinetic energy less half the dimension.

    Args:
      inverse_mass_matrix: Diagonal of ``M^{-1}``, [parameters].
    """

    def kinetic_energy(momentum: Params, position: Params | None = None) -> jax.Array:
        del position
        flat, _ = ravel_pytree(momentum)
        return accurate_sum(0.5 * (flat * inverse_mass_matrix * flat - 1.0))

    # Not at the top: importing BlackJAX starts JAX's devices, see ``hmc``.
    from blackjax.mcmc import metrics

    metric = metrics.default_metric(inverse_mass_matrix)
    return metric._replace(kinetic_energy=kinetic_energy)
