"""Checks that several entry points make before any work."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from bnn_adv.compute.settings import SettingError
from bnn_adv.data import Dataset
from bnn_adv.networks import get_apply_fn, init_params


def check_inputs(
    network: nn.Module, dataset: Dataset, *, flag: str, instead: str = "--architecture=fc"
) -> None:
    """Raise unless a network takes a data set's inputs; nothing is computed.

    Args:
      network: The network.
      dataset: The data set.
      flag: What asked for the network, with its value.
      instead: What asks for one that takes any inputs.

    Raises:
      ValueError: The message names the flag and the inputs' shape.
    """
    shape = dataset.input_shape
    try:
        jax.eval_shape(functools.partial(_outputs, network, shape), jax.random.key(0))
    # What a network raises of inputs that it cannot take is up to it.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{flag} does not take the inputs of {dataset.name}, of shape {list(shape)} "
            f"({reason}). Fully connected networks take any: {instead}."
        ) from error


def parse_counts(name: str, texts: Sequence[str], *, least_length: int = 1) -> tuple[int, ...]:
    """Return the numbers of a setting that keeps them as text.

    Args:
      name: The setting.
      texts: Its values.
      least_length: How many there are at least.

    Raises:
      SettingError: One is no whole number of at least 1, or comes twice, or they are too few.
    """
    counts = [int(text) if text.strip().isdecimal() else 0 for text in texts]
    if min(counts, default=0) < 1 or len(set(counts)) < len(counts) or len(counts) < least_length:
        raise SettingError(
            name,
            f"must be {least_length} or more different whole numbers of at least 1, got "
            f"{','.join(texts) or 'nothing'}.",
        )
    return tuple(counts)


def _outputs(network: nn.Module, shape: tuple[int, ...], rng_key: jax.Array) -> jax.Array:
    params = init_params(rng_key, network, shape)
    return get_apply_fn(network)(params, jnp.zeros((1, *shape)))
