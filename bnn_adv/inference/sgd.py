"""Train networks by stochastic gradient descent: one, or a deep ensemble under ``vmap``.

Deep ensembles: Lakshminarayanan, Pritzel, Blundell 2017, arXiv 1612.01474. Members differ in
their initialisation and in the order of their minibatches. The loss of a minibatch is the plain
negative log likelihood, as in the published comparison (Carbone et al. 2020, supplement section
11), or with ``map_prior`` the negative log posterior over N, whose minimum is the posterior's mode:

    -(1 / B) sum_{i in batch} log p(y_i | f(x_i, w)) [ - log p(w) / N ]
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import linen as nn

from bnn_adv.compute.settings import SettingError, setting
from bnn_adv.inference.base import (
    InferenceResult,
    RunOptions,
    identify,
    open_data,
    summarise_held_out,
)
from bnn_adv.inference.densities import (
    LIKELIHOODS,
    Data,
    MethodConfig,
    Prior,
    get_likelihood,
    log_likelihood,
)
from bnn_adv.inference.members import Training, posterior_loss, train
from bnn_adv.networks import Params, get_apply_fn
from bnn_adv.posteriors.posterior import Posterior

UNIT = "minibatches"
"""What progress counts."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """How networks are trained.

    Args:
      num_members: Networks trained side by side; 1 is a deterministic network.
      num_epochs: Passes over the data.
      learning_rate: Adam's step size; a tuple gives every member its own.
      minibatch_size: Examples a gradient step sees.
      member_chunk: Members that are vmapped at once; None chooses, see ``blocks.choose_chunk``.
      map_prior: Add the prior to the loss: maximum a posteriori (MAP) in place of likelihood.
      prior: The prior, where ``map_prior`` asks for one.
      likelihood: A name in ``densities.LIKELIHOODS``.
    """

    num_members: int = setting(1, least=1)
    num_epochs: int = setting(5, least=1)
    learning_rate: float | tuple[float, ...] = setting(0.001, above=0)
    minibatch_size: int = setting(128, least=1)
    member_chunk: int | None = setting(None, least=1)
    map_prior: bool = False
    prior: Prior = Prior()
    likelihood: str = setting("categorical", choices=tuple(LIKELIHOODS))

    def __post_init__(self) -> None:
        """Check every field, and that there is one learning rate, or one a member."""
        super().__post_init__()
        rates = self.learning_rate
        if isinstance(rates, tuple) and len(rates) != self.num_members:
            problem = f"must be one, or one a member: got {len(rates)} for {self.num_members}"
            raise SettingError("learning_rate", f"{problem} members.")

    @property
    def num_draws(self) -> int:
        """Draws of the posterior."""
        return self.num_members


def likelihood_loss(
    params: Params, batch: Data, rng_key: jax.Array, *, num_data: int, training: Training
) -> jax.Array:
    """Return the mean negative log likelihood of a minibatch; see ``members.Loss``."""
    apply_fn, likelihood = get_apply_fn(training.network), get_likelihood(training.config)
    return -log_likelihood(params, batch, apply_fn, likelihood) / len(batch.y)


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    options: RunOptions = RunOptions(),
) -> InferenceResult:
    """Train the members and return them as a posterior of ``num_members`` draws.

    Args:
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings.
      options: How it runs; of its mesh members are split over ``draws``, minibatches over ``data``.

    Raises:
      ValueError: A setting is out of range, or the checkpoints are those of another run.
      FloatingPointError: The loss stopped being finite.
    """
    data, options = open_data(rng_key, network, data, options, likelihood=config.likelihood)
    loss = posterior_loss if config.map_prior else likelihood_loss
    members, chunk = config.num_members, config.member_chunk
    params, losses = train(
        rng_key,
        data,
        Training(network, config, loss, num_members=members, member_chunk=chunk),
        options=options,
        identity=identify("sgd", rng_key, network, config, data, options.mesh),
    )
    posterior = Posterior(get_apply_fn(network), options.store(params))
    diagnostics: dict[str, Any] = {"loss": losses}
    diagnostics |= summarise_held_out(posterior, options.held_out) | {"warnings": []}
    return InferenceResult(posterior, diagnostics, None)
