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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jax.tree_util import Partial
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO, autoguide, init_to_feasible

from bnn_adv.compute import parallel
from bnn_adv.compute.settings import SettingError, setting
from bnn_adv.inference import minibatches
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
    prior_scales,
)
from bnn_adv.inference.epochs import Epochs, run_epochs
from bnn_adv.inference.robust import make_step, start_params
from bnn_adv.networks import Params, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler

UNIT = "minibatches"
"""What progress counts."""


@dataclasses.dataclass(frozen=True)
class Config(MethodConfig):
    """How the guide is trained.

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

    num_samples: int = setting(10, least=1)
    num_epochs: int = setting(5, least=1)
    learning_rate: float = setting(0.01, above=0)
    minibatch_size: int = setting(128, least=1)
    guide: Literal["mean_field", "low_rank"] = "mean_field"
    rank: int = setting(10, least=1)
    init_scale: float = setting(0.01, above=0)
    kl_weight: Literal["corrected", "published"] = "corrected"
    init: Literal["network", "published"] = "network"
    prior: Prior = Prior()
    likelihood: str = setting("categorical", choices=tuple(LIKELIHOODS))
    temperature: float = setting(1.0, above=0)

    def __post_init__(self) -> None:
        """Check every field, and that the published start has a guide that it is defined for."""
        super().__post_init__()
        if self.init == "published" and self.guide != "mean_field":
            raise SettingError("init", "published is defined for guide mean_field only.")

    @property
    def num_draws(self) -> int:
        """Draws of the posterior."""
        return self.num_samples


class State(NamedTuple):
    """The optimiser's view of the guide.

    svi: NumPyro's state: unconstrained parameters, Adam's moments, a key.
    loss: Sum of the negative ELBOs of this epoch's minibatches so far, in nats.
    """

    svi: Any
    loss: jax.Array


class Problem(NamedTuple):
    """The static parts: NumPyro's objects, the network's shapes, the loss.

    svi: NumPyro's ``SVI``.
    guide: NumPyro's guide.
    template: Shapes of one draw.
    config: The settings.
    """

    svi: SVI
    guide: autoguide.AutoGuide
    template: Params
    config: Config


class Batches(NamedTuple):
    """An epoch's minibatches.

    indices: Examples of every minibatch, [minibatches, B].
    epoch: Number of the epoch, from 0.
    """

    indices: jax.Array
    epoch: jax.Array | int


def init(
    rng_key: jax.Array, network: nn.Module, data: Data, config: Config
) -> tuple[Problem, State]:
    """Build model and guide and initialise the guide's parameters."""
    network_key, guide_key, published_key = jax.random.split(rng_key, 3)
    start = start_params(network_key, network, data.x.shape[1:], config)
    one = Data(data.x[:1], data.y[:1], make_step(config, guide_key))
    weights = flatten_dict(start, sep="/")
    problem = build_problem(network, config, tuple(weights), data.x.shape[1:])
    if config.guide == "mean_field":
        values = {f"{name}_auto_loc": value for name, value in weights.items()}
        values |= {
            f"{name}_auto_scale": jnp.full(value.shape, config.init_scale)
            for name, value in weights.items()
        }
    else:
        values = {"auto_loc": jnp.concatenate([value.ravel() for value in weights.values()])}
        values["auto_scale"] = jnp.full(values["auto_loc"].shape, config.init_scale)
    state = _start(guide_key, one, values, problem.svi)
    if config.init == "published":
        values = _published_init(published_key, problem.svi.get_params(state))
        state = _start(guide_key, one, values, problem.svi)
    return problem, State(state, jnp.zeros(()))


# NumPyro's objects are compared by identity: runs of the same settings share them, and with them
# the compiled programs. A guide asks the model for nothing but its weights: it is shown the prior.
@functools.lru_cache(maxsize=64)
def build_problem(
    network: nn.Module, config: Config, names: tuple[str, ...], input_shape: tuple[int, ...]
) -> Problem:
    """Return model, guide and loss; ``names`` are the weights' in the network's own order."""
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), network, input_shape))
    leaves = flatten_dict(shapes, sep="/")
    # In the network's own order, which says what noise each weight gets; JAX sorts by name.
    template = unflatten_dict({name: leaves[name] for name in names}, sep="/")
    weights = functools.partial(_weights, template=template, config=config)
    options: Any = {"init_loc_fn": init_to_feasible, "init_scale": config.init_scale}
    if config.guide == "mean_field":
        guide: Any = autoguide.AutoNormal(weights, **options)
        loss: Any = TraceMeanField_ELBO()
        _set_up(guide)
    else:
        guide = autoguide.AutoLowRankMultivariateNormal(weights, rank=config.rank, **options)
        loss = Trace_ELBO()
        # Within a program NumPyro would lay the weights out in another order than ours.
        handlers.seed(guide, 0)()
    model = functools.partial(_model, network=network, template=template, config=config)
    svi = SVI(model, guide, optax.adam(config.learning_rate), loss)
    return Problem(svi, guide, template, config)


def _set_up(guide: autoguide.AutoNormal) -> None:
    """Show a guide its model in one program; left alone, it compiles each operation by itself.

    What it keeps of that program are values whose shapes it asks for later, when they must not be
    the program's: they are replaced by those that it returns, in the order that they had.
    """

    def look() -> tuple[dict[str, Any], dict[str, Any]]:
        handlers.seed(guide, 0)()
        return guide._init_locs, {k: site["value"] for k, site in guide.prototype_trace.items()}

    locs, values = jax.jit(look)()
    guide._init_locs = {name: locs[name] for name in guide.prototype_trace}
    for name, value in values.items():
        guide.prototype_trace[name]["value"] = value


@functools.partial(jax.jit, static_argnames="svi")
def _start(rng_key: jax.Array, one: Data, values: dict[str, jax.Array], svi: SVI) -> Any:
    return svi.init(rng_key, one, 1, init_params=values)


@functools.partial(jax.jit, static_argnames=("num_data", "config"))
def start_epoch(
    rng_key: jax.Array, state: State, num_data: int, config: Config, epoch: jax.Array | int = 0
) -> tuple[State, Batches]:
    """Shuffle the data of an epoch and give it a noise key of its own.

    Returns:
      The state with that key and a loss of zero; the minibatches.
    """
    shuffle_key, noise_key = jax.random.split(rng_key)
    indices = minibatches.shuffle(shuffle_key, num_data, config.minibatch_size)
    started = State(state.svi._replace(rng_key=noise_key), jnp.zeros_like(state.loss))
    return started, Batches(indices, epoch)


@functools.partial(jax.jit, static_argnames=("svi", "config", "mesh"))
def _step(
    state: State,
    data: Data,
    batches: Batches,
    first: jax.Array | int,
    count: jax.Array | int,
    svi: SVI,
    config: Config,
    mesh: Mesh | None,
) -> State:
    num_data, num_batches = data.x.shape[0], batches.indices.shape[0]

    def one_batch(index: jax.Array, before: State) -> State:
        rows, done = batches.indices[index], batches.epoch * num_batches + index
        own = make_step(config, before.svi.rng_key, done, config.num_epochs * num_batches)
        batch = parallel.constrain_examples(Data(data.x[rows], data.y[rows]), mesh)
        after, loss = svi.update(before.svi, batch._replace(step=own), num_data)
        return State(after, before.loss + loss)

    found: State = jax.lax.fori_loop(first, first + count, one_batch, state)
    return found


def step(
    state: State,
    data: Data,
    batches: Batches,
    first: jax.Array | int,
    count: jax.Array | int,
    *,
    problem: Problem,
    mesh: Mesh | None = None,
) -> State:
    """Train the guide on ``count`` minibatches of an epoch, from number ``first``.

    Args:
      state: The state; the noise key within moves on with every minibatch.
      data: Training data.
      batches: From ``start_epoch``.
      first: Number of the first minibatch.
      count: Number of minibatches; data, so that one program serves however an epoch is cut.
      problem: From ``init``.
      mesh: Devices, see ``run``.
    """
    svi, config = problem.svi, problem.config
    found: State = _step(state, data, batches, first, count, svi, config, mesh)
    return found


def run(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    config: Config,
    options: RunOptions = RunOptions(),
) -> InferenceResult:
    """Fit the guide and draw from it.

    Args:
      rng_key: Typed key; everything follows from it.
      network: The network.
      data: Training data, x [N, ...] and y [N].
      config: Settings.
      options: How it runs; minibatches are split over its mesh's axis ``data``.

    Returns:
      ``num_samples`` draws; ``sample`` and ``sampler`` draw fresh ones.

    Raises:
      ValueError: A setting is out of range, or the checkpoints are those of another run.
      FloatingPointError: The ELBO stopped being finite.
    """
    data, options = open_data(rng_key, network, data, options, likelihood=config.likelihood)
    mesh = options.mesh
    problem, state = init(jax.random.fold_in(rng_key, 0), network, data, config)
    num_data = data.x.shape[0]
    data = parallel.replicate(data, mesh)
    state, trace = run_epochs(
        rng_key,
        parallel.replicate(state, mesh),
        Epochs(
            start=lambda key, now, epoch: start_epoch(key, now, num_data, config, epoch),
            step=functools.partial(step, data=data, problem=problem, mesh=mesh),
            summarise=lambda loss: {"elbo": -float(loss)},
            num_epochs=config.num_epochs,
            num_batches=minibatches.count(num_data, config.minibatch_size),
            loss_name="ELBO",
        ),
        options=options,
        identity=identify("svi", rng_key, network, config, data, mesh),
    )
    state = parallel.gather(state, mesh)
    sample = functools.partial(_sample, problem, network, problem.svi.get_params(state.svi))
    posterior = sample(jax.random.fold_in(rng_key, 1 + config.num_epochs), config.num_samples)
    posterior = dataclasses.replace(posterior, samples=options.store(posterior.samples))
    diagnostics: dict[str, Any] = {"elbo": [numbers["elbo"] for numbers in trace]}
    diagnostics |= summarise_held_out(posterior, options.held_out) | {"warnings": []}
    sampler = make_sampler(problem, network, problem.svi.get_params(state.svi))
    return InferenceResult(posterior, diagnostics, sample, sampler)


def _sample(
    problem: Problem,
    network: nn.Module,
    guide_params: dict[str, jax.Array],
    rng_key: jax.Array,
    num_samples: int,
) -> Posterior:
    draws = problem.guide.sample_posterior(rng_key, guide_params, sample_shape=(num_samples,))
    return Posterior(get_apply_fn(network), _nest(problem, draws))


def _nest(problem: Problem, weights: dict[str, jax.Array]) -> Params:
    names = flatten_dict(problem.template, sep="/")
    return unflatten_dict({name: weights[name] for name in names}, sep="/")


def make_sampler(
    problem: Problem, network: nn.Module, guide_params: dict[str, jax.Array]
) -> Sampler:
    """Return a sampler of a guide; its parameters are data of the sampler."""

    def draw(guide_params: dict[str, jax.Array], rng_key: jax.Array) -> Params:
        weights = problem.guide.sample_posterior(rng_key, guide_params, sample_shape=())
        return _nest(problem, weights)

    return Sampler(get_apply_fn(network), Partial(draw, guide_params))


def _weights(*unused: Any, template: Params, config: Config) -> dict[str, jax.Array]:
    """Draw every weight from the prior: the model but for the likelihood."""
    scales = flatten_dict(
        prior_scales(template, config.prior, temperature=config.temperature), sep="/"
    )
    return {
        name: numpyro.sample(
            name, dist.Normal(0.0, scales[name]).expand(leaf.shape).to_event(leaf.ndim)
        )
        for name, leaf in flatten_dict(template, sep="/").items()
    }


def _model(
    batch: Data, num_data: int, *, network: nn.Module, template: Params, config: Config
) -> None:
    weights = _weights(template=template, config=config)
    is_corrected = config.kl_weight == "corrected"
    weight = minibatches.weigh(num_data, len(batch.x)) if is_corrected else 1.0
    log_lik = log_likelihood(
        unflatten_dict(weights, sep="/"), batch, get_apply_fn(network), get_likelihood(config)
    )
    numpyro.factor("log_likelihood", weight * log_lik / config.temperature)


def _published_init(rng_key: jax.Array, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
    values = {}
    for index, (name, value) in enumerate(sorted(params.items())):
        noise = jax.random.normal(jax.random.fold_in(rng_key, index), value.shape, value.dtype)
        values[name] = jax.nn.softplus(noise) if name.endswith("_scale") else noise
    return values
