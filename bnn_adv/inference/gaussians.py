"""Gaussians around a network's weights, as functions ``rng_key -> params``.

Given curvature H and a prior with scales sigma, the covariance is ``T (H + diag(1/sigma^2))^(-1)``.
In units of the prior, w = w* + sigma v, the precision of v is ``sigma H sigma + I``: no smaller
than one in any direction. It is decomposed on the host in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.tree_util import Partial

from bnn_adv.inference.curvature import Factors
from bnn_adv.inference.densities import Prior, prior_scales
from bnn_adv.networks import Params


class Basis(NamedTuple):
    """A layer's Gaussian: its noise is ``scales U ((U^T z V) * deviations) V^T``, z ~ N(0, I).

    The root of the covariance that is symmetric depends on no choice of eigenvectors, which
    rounding makes.

    scales: The prior's, [D].
    rows: U, [D, D].
    columns: V, [F, F].
    deviations: [D, F].
    """

    scales: jax.Array
    rows: jax.Array
    columns: jax.Array
    deviations: jax.Array


def diagonal(params: Params, curvature: Params, prior: Prior, temperature: float) -> Partial:
    """Return draws of independent weights, given the diagonal of H, a tree like ``params``."""

    def deviation(h: jax.Array, scale: float) -> jax.Array:
        return jnp.sqrt(temperature / (h + 1 / scale**2))

    scales = prior_scales(params, prior)
    return Partial(_draw_diagonal, params, jax.tree.map(deviation, curvature, scales))


def full(
    params: Params, name: str, curvature: np.ndarray, prior: Prior, temperature: float
) -> Partial:
    """Return draws of one layer, given its block of H, [D F, D F]; all others stay.

    Args:
      params: The mode.
      name: The layer's.
      curvature: Its block; a kernel's rows come one by one, the bias last.
      prior: The prior.
      temperature: Of the covariance.
    """
    scales = _row_scales(params, prior, name)
    scales = np.repeat(scales, len(curvature) // len(scales))
    precision = scales[:, None] * curvature.astype(np.float64) * scales + np.eye(len(scales))
    lower = np.linalg.cholesky((precision + precision.T) / 2)
    # precision = R R^T: R^(-T) z has its inverse as covariance.
    root = scipy.linalg.solve_triangular(lower, np.diag(scales), lower=True).T
    root = np.sqrt(temperature) * root
    return Partial(_draw_full, params, {name: jnp.asarray(root, jnp.float32)})


def kronecker(
    params: Params,
    factors: Mapping[str, Factors],
    counts: Mapping[str, int],
    prior: Prior,
    temperature: float,
) -> Partial:
    """Return draws of independent layers, given the factors of each one's block of H.

    Args:
      params: The mode.
      factors: By name of layer; the block is the Kronecker product of both over ``counts``.
      counts: By name of layer.
      prior: The prior.
      temperature: Of the covariance.
    """
    bases = {}
    for name, (inputs, outputs) in factors.items():
        scales = _row_scales(params, prior, name)
        left, rows = _eigh(scales[:, None] * np.asarray(inputs, np.float64) * scales)
        right, columns = _eigh(np.asarray(outputs, np.float64))
        precision = left[:, None] * right / counts[name] + 1
        parts = scales, rows, columns, np.sqrt(temperature / precision)
        bases[name] = Basis(*(jnp.asarray(part, jnp.float32) for part in parts))
    return Partial(_draw_kronecker, params, bases)


def _eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    # Rounding gives a matrix of low rank negative ones.
    return np.maximum(values, 0), vectors


def _row_scales(params: Params, prior: Prior, name: str) -> np.ndarray:
    """Return the prior's scales of a layer's inputs, the bias's last, [D]."""
    scales = flatten_dict(prior_scales(params, prior), sep="/")
    kernel = flatten_dict(params, sep="/")[f"{name}/kernel"]
    rows = [scales[f"{name}/kernel"]] * (kernel.size // kernel.shape[-1])
    return np.array(rows + [scales[b] for b in (f"{name}/bias",) if b in scales])


def _draw_diagonal(params: Params, deviations: Params, rng_key: jax.Array) -> Params:
    leaves, structure = jax.tree.flatten(params)
    draws = [
        leaf + deviation * jax.random.normal(jax.random.fold_in(rng_key, index), leaf.shape)
        for index, (leaf, deviation) in enumerate(
            zip(leaves, jax.tree.leaves(deviations), strict=True)
        )
    ]
    return jax.tree.unflatten(structure, draws)


def _draw_full(params: Params, roots: Mapping[str, jax.Array], rng_key: jax.Array) -> Params:
    ((name, root),) = roots.items()
    noise = jax.random.normal(rng_key, (len(root),))
    return _add(params, {name: jnp.matmul(root, noise, precision="highest")})


def _draw_kronecker(params: Params, bases: Mapping[str, Basis], rng_key: jax.Array) -> Params:
    noise = {}
    product = functools.partial(jnp.linalg.multi_dot, precision="highest")
    for index, (name, basis) in enumerate(sorted(bases.items())):
        scales, rows, columns, deviations = basis
        z = jax.random.normal(jax.random.fold_in(rng_key, index), deviations.shape)
        inner = product([rows.T, z, columns]) * deviations
        noise[name] = scales[:, None] * product([rows, inner, columns.T])
    return _add(params, noise)


def _add(params: Params, noise: Mapping[str, jax.Array]) -> Params:
    """Add a layer's noise, rows of its kernel and then its bias, to its weights."""
    flat: dict[str, Any] = dict(flatten_dict(params, sep="/"))
    for name, values in noise.items():
        kernel = flat[f"{name}/kernel"]
        flat[f"{name}/kernel"] = kernel + values.ravel()[: kernel.size].reshape(kernel.shape)
        if f"{name}/bias" in flat:
            flat[f"{name}/bias"] = flat[f"{name}/bias"] + values.ravel()[kernel.size :]
    return unflatten_dict(flat, sep="/")
