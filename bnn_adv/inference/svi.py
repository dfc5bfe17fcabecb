"""Fit a Gaussian to the posterior by stochastic variational inference (NumPyro).

Mean-field: Blundell et al. 2015, arXiv 1505.05424; low-rank covariance: Ong, Nott, Smith 2018,
arXiv 1701.04031. The guide q minimises, a minibatch at a time,

    KL(q || prior) - (N / B) sum_{i in batch} E_q[ log p(y_i | x_i, w) ]

The published code charges the full KL to every minibatch (weight 1 instead of N / B on the
likelihood) and starts at means ~ N(0, 1), scales = softplus(N(0, 1)); both are switches here.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import numpyro
import numpyro.distributions as dist
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO, autoguide, init_to_value

from bnn_adv.densities import Data, Prior, check_likelihood, log_likelihood, prior_scales
from bnn_adv.inference import minibatches
from bnn_adv.inference.base import (
    InferenceResult,
    Progress,
    check_finite,
    check_positive,
    ignore_progress,
    summarise_held_out,
)
from bnn_adv.networks import Params, get_apply_fn, init_params
from bnn_adv.posterior import Posterior


@dataclasses.dataclass(frozen=True)
class Config:
    """Say how the guide is trained.

    Args:
      num_samples: Draws of the returned posterior.
      num_epochs: Passes over the data.
      learning_rate: Adam's step size.
      minibatch_size: Examples a gradient step sees.
      guide: ``"mean_field"`` or ``"low_rank"`` (joint, covariance of rank ``rank`` plus diagonal).
      rank: Rank of the low-rank guide.
      init_scale: Starting standard deviation of every weight (``init="network"``).
      kl_weight: ``"corrected"`` (N / B on the likelihood) or ``"published"`` (1).
      init: ``"network"``: means at the network's initialisation; ``"published"``, see above.
      prior: The prior.
      likelihood: A name in ``densities.LIKELIHOODS``.
      temperature: Target ``p(w | D)^(1 / T)``.
    """

    num_samples: int = 10
    num_epochs: int = 5
    learning_rate: float = 0.01
    minibatch_size: int = 128
    guide: Literal["mean_field", "low_rank"] = "mean_field"
    rank: int = 10
    init_scale: float = 0.01
    kl_weight: Literal["corrected", "published"] = "corrected"
    init: Literal["network", "published"] = "network"
    prior: Prior = Prior()
    likelihood: str = "categorical"
    temperature: float = 1.0


class State(NamedTuple):
    """Hold the optimiser's view of the guide.

    svi: NumPyro's state: unconstrained parameters, Adam's moments, a key.
    """

    svi: Any


class Problem(NamedTuple):
    """Hold the static parts: NumPyro's objects, the network's shapes, the loss.

    svi: NumPyro's ``SVI``.
    guide: NumPyro's guide.
    template: Shapes of one draw.
    """

    svi: SVI
    guide: autoguide.AutoGuide
    template: Params


def init(
    rng_key: jax.Array, network: nn.Module, data: Data, config: Config
) -> tuple[Problem, State]:
    """Build model and guide and initialise the guide's parameters."""
    network_key, guide_key, published_key = jax.random.split(rng_key, 3)
    start = init_params(network_key, network, data.x.shape[1:])
    model = functools.partial(_model, network=network, template=start, config=config)
    strategy = init_to_value(values=flatten_dict(start, sep="/"))
    if config.guide == "mean_field":
        guide = autoguide.AutoNormal(model, init_loc_fn=strategy, init_scale=config.init_scale)
        loss: Any = TraceMeanField_ELBO()
    else:
        guide = autoguide.AutoLowRankMultivariateNormal(
            model, init_loc_fn=strategy, init_scale=config.init_scale, rank=config.rank
        )
        loss = Trace_ELBO()
    svi = SVI(model, guide, optax.adam(config.learning_rate), loss)
    one = Data(data.x[:1], data.y[:1])
    state = svi.init(guide_key, one, data.x.shape[0])
    if config.init == "published":
        values = _published_init(published_key, svi.get_params(state))
        state = svi.init(guide_key, one, data.x.shape[0], init_params=values)
    return Problem(svi, guide, jax.eval_shape(lambda: start)), State(state)


@functools.partial(jax.jit, static_argnames=("svi", "minibatch_size"))
def _epoch(
    rng_key: jax.Array, state: State, data: Data, svi: SVI, minibatch_size: int
) -> tuple[State, jax.Array]:
    shuffle_key, noise_key = jax.random.split(rng_key)
    num_data = data.x.shape[0]

    def one_batch(carry: Any, indices: jax.Array) -> tuple[Any, jax.Array]:
        return svi.update(carry, Data(data.x[indices], data.y[indices]), num_data)

    batches = minibatches.shuffle(shuffle_key, num_data, minibatch_size)
    # A key of the epoch's own, so that an interrupted run continues with the same noise.
    svi_state, losses = jax.lax.scan(one_batch, state.svi._replace(rng_key=noise_key), batches)
    return State(svi_state), losses.mean()


def step(
    rng_key: jax.Array, state: State, data: Data, *, problem: Problem, config: Config
) -> tuple[State, jax.Array]:
    """Train the guide for one epoch; return the state and the mean negative ELBO in nats."""
    return _epoch(rng_key, state, data, problem.svi, config.minibatch_size)


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    *,
    held_out: Data | None = None,
    progress: Progress = ignore_progress,
) -> InferenceResult:
    """Fit the guide and draw from it.

    Args:
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings.
      held_out: Data for a check of the result; not trained on.
      progress: Called with (epochs done, epochs, metrics).

    Returns:
      ``num_samples`` draws; ``sample(key, n)`` draws fresh ones.

    Raises:
      ValueError: A setting is out of range.
      FloatingPointError: The ELBO stopped being finite.
    """
    _check(config)
    check_likelihood(config.likelihood)
    problem, state = init(jax.random.fold_in(rng_key, 0), network, data, config)
    trace = []
    for epoch in range(config.num_epochs):
        key = jax.random.fold_in(rng_key, 1 + epoch)
        state, loss = step(key, state, data, problem=problem, config=config)
        trace.append(-float(loss))
        check_finite("ELBO", trace[-1], f"epoch {epoch + 1}", "learning_rate")
        progress(epoch + 1, config.num_epochs, {"elbo": trace[-1]})
    sample = make_sampler(problem, network, state)
    posterior = sample(jax.random.fold_in(rng_key, 1 + config.num_epochs), config.num_samples)
    diagnostics: dict[str, Any] = {"elbo": trace}
    diagnostics |= summarise_held_out(posterior, held_out) | {"warnings": []}
    return InferenceResult(posterior, diagnostics, sample)


def make_sampler(
    problem: Problem, network: nn.Module, state: State
) -> Callable[[jax.Array, int], Posterior]:
    """Return ``sample(rng_key, num_samples) -> Posterior``, which draws from the trained guide."""
    guide_params = problem.svi.get_params(state.svi)

    def sample(rng_key: jax.Array, num_samples: int) -> Posterior:
        draws = problem.guide.sample_posterior(rng_key, guide_params, sample_shape=(num_samples,))
        names = flatten_dict(problem.template, sep="/")
        samples = unflatten_dict({name: draws[name] for name in names}, sep="/")
        return Posterior(get_apply_fn(network), samples)

    return sample


def _model(
    batch: Data, num_data: int, *, network: nn.Module, template: Params, config: Config
) -> None:
    scales = flatten_dict(
        prior_scales(template, config.prior, temperature=config.temperature), sep="/"
    )
    weights = {
        name: numpyro.sample(
            name, dist.Normal(0.0, scales[name]).expand(leaf.shape).to_event(leaf.ndim)
        )
        for name, leaf in flatten_dict(template, sep="/").items()
    }
    weight = num_data / batch.x.shape[0] if config.kl_weight == "corrected" else 1.0
    log_lik = log_likelihood(
        unflatten_dict(weights, sep="/"), batch, get_apply_fn(network), config.likelihood
    )
    numpyro.factor("log_likelihood", weight * log_lik / config.temperature)


def _published_init(rng_key: jax.Array, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    values = {}
    for index, (name, value) in enumerate(sorted(params.items())):
        noise = jax.random.normal(jax.random.fold_in(rng_key, index), value.shape, value.dtype)
        values[name] = jax.nn.softplus(noise) if name.endswith("_scale") else noise
    return values


def _check(config: Config) -> None:
    check_positive(config, "num_samples", "num_epochs", "minibatch_size", "rank")
    for name in ("learning_rate", "init_scale", "temperature"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}.")
    for name, known in (
        ("guide", ("mean_field", "low_rank")),
        ("kl_weight", ("corrected", "published")),
        ("init", ("network", "published")),
    ):
        if getattr(config, name) not in known:
            raise ValueError(
                f"Unknown {name} {getattr(config, name)!r}. Known: {', '.join(known)}."
            )
    if config.init == "published" and config.guide != "mean_field":
        raise ValueError("init='published' is defined for guide='mean_field' only.")
