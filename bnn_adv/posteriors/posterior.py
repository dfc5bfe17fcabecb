"""A posterior: stacked draws of the parameters, and the function that turns one draw into logits.

Everything streams over the draws in chunks, so that memory does not grow with their number.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from bnn_adv.compute import arguments, blocks, effort, files, leaves, parallel, programs
from bnn_adv.compute.disk import DiskDraws, as_arrays, check_draws, flatten_names
from bnn_adv.compute.primitives import computed_dtypes
from bnn_adv.compute.streaming import count_draws, fold_samples, map_samples
from bnn_adv.compute.types import AnyImages, Images, Logits
from bnn_adv.networks import ApplyFn, Params
from bnn_adv.posteriors.decision import (
    DecisionRule,
    check_rule,
    contribution,
    folding,
    log_predictive,
)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["samples"],
    meta_fields=["apply_fn", "shards", "precision", "decision_rule"],
)
@dataclasses.dataclass(frozen=True, repr=False)
class Posterior:
    """Draws from a distribution over networks.

    A deterministic network is a posterior of one draw, a deep ensemble one of its members.

    Args:
      apply_fn: Pure function ``(params, x) -> logits``, shapes ``[B, ...] -> [B, classes]``.
      samples: Parameters with a leading axis of S draws on every leaf, or ``DiskDraws``.
      shards: Parts into which the draws are split over devices, see ``shard_posterior``.
      precision: Of the matrix products in predictions and attack gradients: ``"highest"``
        (float32), or ``"tensorfloat32"`` or ``"bfloat16"`` where a device has it. The lower ones
        are faster on accelerators and wrong in the third digit.
      decision_rule: How the draws make one prediction: ``"mean_probabilities"``, the posterior
        predictive, or ``"mean_logits"``, see ``decision``. Predictions, attacks, uncertainty and
        the referee follow it.

    Raises:
      ValueError: An unknown decision rule.
    """

    apply_fn: ApplyFn
    samples: Params
    shards: int = 1
    precision: str = "highest"
    decision_rule: DecisionRule = "mean_probabilities"

    def __post_init__(self) -> None:
        check_rule(self.decision_rule)

    def __repr__(self) -> str:
        """Return in one line what it is, without the numbers."""
        on_disk = isinstance(self.samples, DiskDraws)
        shapes = self.samples.template if on_disk else self.samples
        # JAX rebuilds posteriors around placeholders that have no shape.
        found = [getattr(leaf, "shape", ()) for leaf in jax.tree.leaves(shapes)]
        count = sum(math.prod(shape if on_disk else shape[1:]) for shape in found)
        draws = self.samples.num_samples if on_disk else (found[0][:1] or (0,))[0] if found else 0
        where = ", on disk" if on_disk else ""
        return f"Posterior({draws} draws of {count:,} parameters, {self.decision_rule}{where})"

    @classmethod
    def stack(cls, apply_fn: ApplyFn, draws: Sequence[Params], **options: Any) -> Posterior:
        """Make a posterior of a list of parameter trees, one a draw.

        Raises:
          ValueError: The list is empty, or trees differ in structure or shapes.
        """
        if not draws:
            raise ValueError("A posterior needs one draw at least, got an empty list.")
        first = _describe(draws[0])
        for index, draw in enumerate(draws):
            if _describe(draw) != first:
                raise ValueError(
                    f"Draw {index} has the leaves {_describe(draw)[1]} where draw 0 has "
                    f"{first[1]}: all draws of a posterior are of one network."
                )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *draws)
        return cls(apply_fn, stacked, **options)

    @property
    def num_samples(self) -> int:
        """Number of draws, S."""
        return count_draws(self.samples)

    def logits(self, params: Params, x: Images) -> Logits:
        """Return what one draw says of inputs, [B, C]; every prediction is made of this.

        In float32 or better whatever the network computes in: a mean over many draws, and a
        softmax, need more digits than half precision has. Where a typed key is among the
        parameters, each input is evaluated by itself: one draw is one network, whose random masks
        do not depend on which inputs stand beside it.

        Args:
          params: One draw.
          x: Inputs, [B, ...].
        """
        if leaves.has_key(params):
            found = jax.vmap(lambda row: self.apply_fn(params, row[None])[0])(x)
        else:
            found = self.apply_fn(params, x)
        return found.astype(jnp.promote_types(found.dtype, jnp.float32))

    def take(self, indices: Any) -> Posterior:
        """Return the posterior of the draws at ``indices`` (integers of shape [K])."""
        if isinstance(self.samples, DiskDraws):
            taken = jax.tree.map(jnp.asarray, self.samples.take(indices))
        elif effort.is_low() and not leaves.has_key(self.samples):
            taken = jax.tree.map(lambda w: jax.device_put(np.asarray(w)[indices]), self.samples)
        else:
            taken = _take(self.samples, np.asarray(indices))
        return dataclasses.replace(self, samples=taken, shards=1)


def logit_rounding(posterior: Posterior, x: Any) -> float:
    """Return the relative rounding error of a network's logits, at least float32's.

    That of the narrowest floating-point type that it computes in, whatever type it returns.

    Args:
      posterior: S draws.
      x: Inputs, [N, ...]; their values do not matter.
    """
    two = jax.ShapeDtypeStruct((2, *x.shape[1:]), jnp.float32)
    traced = jax.make_jaxpr(lambda params, x: posterior.apply_fn(params, x))(
        one_draw(posterior), two
    )
    found = {jnp.dtype(jnp.float32), *computed_dtypes(traced.jaxpr)}
    return max(float(jnp.finfo(dtype).eps) for dtype in found) / 2


def default_sample_chunk(posterior: Posterior, x: AnyImages) -> int:
    """Return how many draws to vmap over at once on a device, see ``blocks.choose_chunk``.

    Args:
      posterior: S draws.
      x: Inputs that are evaluated at once, [B, ...]; their values do not matter.
    """
    most = posterior.num_samples // posterior.shards
    return blocks.choose_chunk(posterior.apply_fn, one_draw(posterior), x, most)


def one_draw(posterior: Posterior) -> Params:
    """Return shapes and dtypes of one draw's parameters."""
    if isinstance(posterior.samples, DiskDraws):
        return posterior.samples.template
    return jax.eval_shape(_first, posterior.samples)


def check_sample_chunk(posterior: Posterior, sample_chunk: int | None, x: AnyImages) -> int:
    """Return a valid chunk: the given one, or ``default_sample_chunk`` where it is None.

    Raises:
      ValueError: The chunk is below one or larger than the number of draws on a device.
    """
    if sample_chunk is None:
        return default_sample_chunk(posterior, x)
    if isinstance(sample_chunk, bool) or not hasattr(sample_chunk, "__index__"):
        arguments.check_count("sample_chunk", sample_chunk, 1)
    most = posterior.num_samples // posterior.shards
    if not 1 <= sample_chunk <= most:
        where = "" if posterior.shards == 1 else " on each of the mesh's shards"
        raise ValueError(
            f"sample_chunk must lie between 1 and the number of draws{where} ({most}), "
            f"got {sample_chunk}."
        )
    return sample_chunk


def shard_posterior(posterior: Posterior, mesh: Mesh | None) -> Posterior:
    """Split the draws over a mesh's axis ``draws``; predictions and attacks then use all devices.

    Args:
      posterior: S draws in memory.
      mesh: From ``parallel.make_mesh``; None changes nothing.

    Raises:
      ValueError: S is no multiple of the axis, or the draws stay on disk.
    """
    if mesh is None:
        return posterior
    if isinstance(posterior.samples, DiskDraws):
        raise ValueError("Draws on disk cannot be split over a mesh: load them, or use one device.")
    samples = parallel.shard_members(posterior.samples, mesh, what="draws")
    return dataclasses.replace(posterior, samples=samples, shards=mesh.shape["draws"])


@functools.partial(programs.jit, static_argnames=("sample_chunk", "batch_size"))
def log_probs(
    posterior: Posterior,
    x: Images,
    *,
    sample_chunk: int | None = None,
    batch_size: int = 256,
) -> Float[jax.Array, "S B C"]:
    """Return every draw's log-probabilities, ``log softmax(f(x, w_s))``, [S, N, classes].

    Args:
      posterior: S draws.
      x: Inputs, [N, ...].
      sample_chunk: Draws at once; None chooses from the size of the network.
      batch_size: Inputs at once.
    """
    chunk, size = _sizes(posterior, sample_chunk, x, batch_size)

    def one_batch(rows: jax.Array) -> jax.Array:
        def one(params: Params) -> jax.Array:
            return jax.nn.log_softmax(posterior.logits(params, rows))

        return jnp.swapaxes(
            map_samples(one, posterior.samples, chunk=chunk, shards=posterior.shards), 0, 1
        )

    return _in_batches(one_batch, x, size, posterior.precision).swapaxes(0, 1)


@functools.partial(programs.jit, static_argnames=("sample_chunk", "batch_size"))
def predict_log_probs(
    posterior: Posterior,
    x: Images,
    *,
    sample_chunk: int | None = None,
    batch_size: int = 256,
) -> Logits:
    """Return the log of the prediction of all draws by the posterior's decision rule.

    ``log (1/S) sum_s softmax(f(x, w_s))``, the posterior predictive, or with ``mean_logits``
    ``log softmax((1/S) sum_s f(x, w_s))``. Computed in log space: finite in float32 where every
    draw's softmax is saturated.

    Args:
      posterior: S draws.
      x: Inputs, [N, ...].
      sample_chunk: Draws at once; None chooses from the size of the network.
      batch_size: Inputs at once.

    Returns:
      [N, classes]; rows sum to one after exponentiation.
    """
    total = fold_contributions(posterior, x, sample_chunk=sample_chunk, batch_size=batch_size)
    return log_predictive(posterior.decision_rule, total, posterior.num_samples)


def fold_contributions(
    posterior: Posterior,
    x: Images,
    *,
    sample_chunk: int | None = None,
    batch_size: int = 256,
) -> Logits:
    """Return what ``decision.log_predictive`` makes a prediction of, [N, classes].

    Arguments as for ``predict_log_probs``, whose sum over the draws this is: predictions of more
    draws than are in memory fold it further.
    """
    chunk, size = _sizes(posterior, sample_chunk, x, batch_size)
    rule = posterior.decision_rule

    def one_batch(rows: jax.Array) -> Any:
        return fold_samples(
            lambda params: contribution(rule, posterior.logits(params, rows)),
            posterior.samples,
            folding(rule),
            chunk=chunk,
            shards=posterior.shards,
        )

    return _in_batches(one_batch, x, size, posterior.precision)


def _describe(draw: Params) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Return structure and shapes of a parameter tree."""
    shapes = {name: np.shape(leaf) for name, leaf in flatten_names(draw).items()}
    return jax.tree.structure(draw), shapes


def _sizes(
    posterior: Posterior, sample_chunk: int | None, x: jax.Array, batch_size: int
) -> tuple[int, int]:
    """Return draws and inputs at once."""
    each = blocks.bytes_per_input(posterior.apply_fn, one_draw(posterior), x)
    size = blocks.choose_block(each, min(batch_size, x.shape[0]))
    return check_sample_chunk(posterior, sample_chunk, x[:size]), size


def _first(samples: Params) -> Params:
    return jax.tree.map(lambda w: w[0], samples)


@programs.jit
def _take(samples: Params, indices: jax.Array) -> Params:
    return jax.tree.map(lambda w: w[indices], samples)


def _in_batches(
    fn: Callable[[jax.Array], jax.Array], x: jax.Array, batch_size: int, precision: str
) -> jax.Array:
    """Apply ``fn`` ([B, ...] -> [B, ...]) to batches of inputs, at the attack's own precision.

    Another precision would let a prediction disagree with the attack that was just run.
    """
    size = min(batch_size, x.shape[0])
    whole = x.shape[0] // size * size
    with jax.default_matmul_precision(precision):
        parts = jax.lax.map(fn, x[:whole].reshape(-1, size, *x.shape[1:]))
        rest = [fn(x[whole:])] if whole < x.shape[0] else []
        return jnp.concatenate([parts.reshape(whole, *parts.shape[2:]), *rest])


def hash_draws(posterior: Posterior) -> str:
    """Return a digest of names, shapes, types and values of all draws, as hexadecimal text."""
    digest = hashlib.blake2b(digest_size=16)
    names = flatten_names(one_draw(posterior))
    for (name, like), leaf in zip(names.items(), as_arrays(posterior.samples), strict=True):
        digest.update(f"{name} {leaf.shape} {leaves.name_dtype(like)};".encode())
        for part in leaf:
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def save_posterior(path: str | os.PathLike[str], posterior: Posterior) -> None:
    """Write the draws to one ``.npz`` file, atomically and without pickle.

    Dtypes are those that JAX computes in (without ``jax_enable_x64``, float64 is written as
    float32), and come back as they are: also bfloat16 and typed keys.
    """
    names = flatten_names(one_draw(posterior))
    plain = zip(names.items(), as_arrays(posterior.samples), strict=True)
    files.write_arrays(path, {name: leaves.from_plain(leaf, like) for (name, like), leaf in plain})


def load_posterior(path: str | os.PathLike[str], apply_fn: ApplyFn, expected: Params) -> Posterior:
    """Read draws that ``save_posterior`` wrote, checked against the network that will use them.

    Args:
      path: The file.
      apply_fn: The network's function.
      expected: One draw of the network's parameters (arrays or ``ShapeDtypeStruct``).

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged, or an array is missing, unknown or of another shape or dtype
        (a wider float is taken where no digit is lost); the message names it.
    """
    wanted = flatten_names(expected)
    # What is not expected is not read. Of wide floats only their digits tell whether they fit.
    headers = files.inspect_arrays(path)
    hoped = {name: header.lost or header.dtype.name for name, header in headers.items()}
    for name, like in wanted.items():
        if name in headers and _may_narrow(headers[name].dtype, like):
            hoped[name] = leaves.name_dtype(like)
    check_draws(os.fspath(path), headers, wanted, hoped)
    stored = {name: _narrow(leaf, wanted[name]) for name, leaf in files.read_arrays(path).items()}
    dtypes = {
        n: leaves.name_dtype(w) if leaves.is_key(w) else w.dtype.name for n, w in stored.items()
    }
    plain = {n: jax.random.key_data(w) if leaves.is_key(w) else w for n, w in stored.items()}
    check_draws(os.fspath(path), plain, wanted, dtypes)
    loaded = [jnp.asarray(stored[name]) for name in wanted]
    return Posterior(apply_fn, jax.tree.unflatten(jax.tree.structure(expected), loaded))


def _may_narrow(dtype: np.dtype[Any], like: Any) -> bool:
    """Return whether numbers of a dtype are wider floats than those that are wanted."""
    if dtype.kind != "f" or leaves.is_key(like):
        return False
    wanted = leaves.computed_dtype(like.dtype)
    return jnp.issubdtype(wanted, jnp.floating) and dtype.itemsize > wanted.itemsize


def _narrow(leaf: Any, like: Any) -> Any:
    """Return wide floats as the narrower ones that are wanted, where that loses no digit."""
    if leaves.is_key(leaf) or not _may_narrow(leaf.dtype, like):
        return leaf
    with np.errstate(over="ignore"):
        narrow = leaf.astype(leaves.computed_dtype(like.dtype))
    return narrow if np.array_equal(narrow.astype(leaf.dtype), leaf, equal_nan=True) else leaf
