"""What every inference method takes and returns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from bnn_adv.compute import arguments, identity, parallel, settings
from bnn_adv.compute.checkpoint import Checkpoints
from bnn_adv.compute.disk import as_arrays, flatten_names
from bnn_adv.inference.densities import Data
from bnn_adv.inference.records import ChainRecord
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from bnn_adv.posteriors.sampler import Sampler

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (minibatches or transitions done, in all, metrics) from the host loop."""

Store = Callable[[Any], Any]
"""Maps stacked draws in host or device memory to what a ``Posterior`` holds."""


class InferenceResult(NamedTuple):
    """What a method found.

    posterior: Stacked draws.
    diagnostics: Plain numbers, lists and text, ready for JSON; the key ``"warnings"`` holds
      sentences that belong beside every number made from this posterior.
    sample: ``sample(rng_key, num_samples) -> Posterior`` draws anew, where the method can; else
      None. A defender that draws anew at every prediction is "fresh", else "frozen".
    sampler: The same distribution as a ``Sampler``, for attacks that draw anew at every step; None
      where there is none.
    chains: What is kept of every draw of Markov chains; None for other methods.
    """

    posterior: Posterior
    diagnostics: dict[str, Any]
    sample: Callable[[jax.Array, int], Posterior] | None
    sampler: Sampler | None = None
    chains: ChainRecord | None = None

    def to_arviz(self, var_names: Sequence[str] = ()) -> Any:
        """Return the chains as ArviZ reads them.

        Args:
          var_names: Arrays of the network that join the group ``posterior``, by their names as
            ``hidden_0.kernel``. Weights are not identified, so that their R-hat may be large
            where the predictions' is not.

        Returns:
          A DataTree of Xarray with dimensions chain and draw: ``posterior`` holds
          ``held_out_log_prob``, the log probability of held-out labels; ``sample_stats`` what
          ``ChainRecord`` lists. There is no ``log_likelihood``: of training data none is kept, and
          ArviZ's ``loo`` of held-out data would leave them out a second time.

        Raises:
          ImportError: ``arviz_base`` is not installed.
          ValueError: The method has no chains, or the network no such array.
        """
        if self.chains is None:
            raise ValueError("This method has no Markov chains, and ArviZ reads chains.")
        shape = self.chains.sample_stats["lp"].shape
        samples = self.posterior.samples
        paths = flatten_names(getattr(samples, "template", samples))
        # A name with a slash would be a path of the DataTree.
        names = [path.replace("/", ".") for path in paths]
        known = dict(zip(names, as_arrays(samples), strict=True))
        if unknown := set(var_names) - set(known):
            raise ValueError(
                f"The network has no {', '.join(sorted(unknown))}; it has {', '.join(known)}."
            )
        return self.chains.to_arviz(
            {name: known[name].reshape(*shape, *known[name].shape[1:]) for name in var_names}
        )


def ignore_progress(done: int, total: int, metrics: dict[str, float]) -> None:
    """Do nothing: the default ``Progress``."""


def keep_on_device(samples: Any) -> Any:
    """Put stacked draws on the default device: the default ``Store``."""
    return jax.tree.map(jnp.asarray, samples)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a method runs: nothing here decides which posterior it looks for.

    Args:
      held_out: Data for diagnostics of the result; not trained on.
      progress: Called with (minibatches or transitions done, in all, metrics).
      checkpoints: Where to save progress and to continue from it; None: nowhere.
      mesh: Devices to split the work over; None: one.
      store: Where the draws go; ``disk.store_in(folder)`` leaves them on disk.
    """

    held_out: Data | None = None
    progress: Progress = ignore_progress
    checkpoints: Checkpoints | None = None
    mesh: Mesh | None = None
    store: Store = keep_on_device


def summarise_held_out(posterior: Posterior, held_out: Data | None) -> dict[str, float]:
    """Return accuracy and mean log likelihood (nats) of the predictive on held-out data."""
    if held_out is None:
        return {}
    log_probs = predict_log_probs(posterior, held_out.x)
    own = jnp.take_along_axis(log_probs, held_out.y[:, None], axis=-1)
    return {
        "held_out_accuracy": float(jnp.mean(predicted_class(log_probs) == held_out.y)),
        "held_out_log_likelihood": float(own.mean()),
    }


def draw_anew(
    rng_key: jax.Array,
    sampler: Sampler,
    num_samples: int,
    diagnostics: dict[str, Any],
    options: RunOptions,
) -> InferenceResult:
    """Return what a method found that draws anew.

    Args:
      rng_key: Typed key of the returned draws.
      sampler: The distribution.
      num_samples: Draws of the posterior.
      diagnostics: What the method says; numbers on held-out data are added.
      options: Held-out data and where the draws go.
    """
    posterior = sampler.sample(rng_key, num_samples)
    posterior = dataclasses.replace(posterior, samples=options.store(posterior.samples))
    summary = summarise_held_out(posterior, options.held_out)
    record = diagnostics | summary | {"warnings": []}
    return InferenceResult(posterior, record, sampler.sample, sampler)


def open_data(
    rng_key: jax.Array,
    network: nn.Module,
    data: Data,
    options: RunOptions,
    *,
    likelihood: str = "categorical",
) -> tuple[Data, RunOptions]:
    """Return training data, and options whose held-out data are theirs, checked.

    Both become float32 inputs and int32 labels.


    Args:
      rng_key: The run's key.
      network: Labels must be classes of it.
      data: Training data.
      options: Their held-out data are opened likewise.
      likelihood: A name in ``densities.LIKELIHOODS``; targets of ``gaussian`` are float32 [N, K].

    Raises:
      TypeError: ``rng_key`` is no typed key.
      ValueError: Inputs that are no floating-point numbers, NaN or infinite; none at all; labels
        that are no integers, no classes, or not one an input.
    """
    arguments.check_key(rng_key)
    shape = jnp.shape(data.x)
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"Training inputs must have shape [N, ...] with N of at least 1, got {shape}."
        )
    example = jax.ShapeDtypeStruct((1, *shape[1:]), jnp.float32)
    outputs, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), example)
    size, held_out = outputs.shape[-1], options.held_out
    if held_out is not None:
        options = dataclasses.replace(
            options, held_out=_open(held_out, "Held-out", size, likelihood)
        )
    return _open(data, "Training", size, likelihood), options


def _open(data: Data, what: str, num_outputs: int, likelihood: str) -> Data:
    x, count = jnp.asarray(data.x), len(data.x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{what} inputs must be floating-point numbers, got {x.dtype}. Divide bytes by 255."
        )
    if not bool(jnp.isfinite(x).all()):
        raise ValueError(
            f"{what} inputs hold NaN or infinite values, which no training recovers from: leave "
            "these examples out."
        )
    if likelihood == "categorical":
        given = parallel.to_host(data.y)
        labels = arguments.as_labels(given, count, num_outputs)
        y = data.y if given.dtype == np.int32 and isinstance(data.y, jax.Array) else labels
        return Data(x.astype(jnp.float32), jnp.asarray(y))
    if jnp.shape(data.y) != (count, num_outputs):
        raise ValueError(
            f"{what} targets must have shape {(count, num_outputs)}, got {jnp.shape(data.y)}."
        )
    return Data(x.astype(jnp.float32), jnp.asarray(data.y, jnp.float32))


def identify(
    method: str,
    rng_key: jax.Array,
    network: nn.Module,
    config: Any,
    data: Data,
    mesh: Mesh | None,
    **more: Any,
) -> Callable[[], dict[str, str]]:
    """Return what says, where it is asked for, what a run computes.

    A checkpoint of anything else is refused; where there are none, the data are not hashed.

    Args:
      method: Its name.
      rng_key: The run's key.
      network: The network.
      config: The method's settings.
      data: Training data.
      mesh: Devices.
      more: What else decides the result, by name.
    """
    # One by one: of all together a refusal could not name the one that differs.
    described = {
        f"settings.{field.name}": getattr(config, field.name)
        for field in dataclasses.fields(config)
        if not settings.is_off(getattr(config, field.name))
    }
    return lambda: identity.identify(
        f"training by {method}",
        key=rng_key,
        network=network,
        **described,
        inputs=parallel.to_host(data.x),
        labels=parallel.to_host(data.y),
        mesh=mesh,
        **more,
    )


def check_finite(what: str, values: Any, where: str, setting: str) -> None:
    """Raise unless every value is finite.

    Raises:
      FloatingPointError: A value is NaN or infinite; the message names it and what to lower.
    """
    values = np.asarray(values)
    if not np.all(np.isfinite(values)):
        count = int(np.sum(~np.isfinite(values)))
        raise FloatingPointError(
            f"The {what} is not finite at {where} ({count} of {math.prod(values.shape)} values). "
            f"Lower {setting}, or check the inputs for NaN."
        )
