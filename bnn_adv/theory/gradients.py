r"""Expected loss gradients against the number of draws, and the gradients that they average.

The expected loss gradient (Carbone et al. 2020, eq. 2) and its estimate from S draws are

    E_{p(w|D)}[ grad_x L(x, w) ]  ~  (1/S) sum_{s <= S} g_s,      g_s = grad_x L(x, w_s)

with L the cross-entropy. One pass over the draws gives the estimate for every S that is asked for,
and the norms of every g_s. Sums are float32. Two controls use the same functions: networks drawn
from the prior, which know no data, and labels that are shuffled, which know no image.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.compute import blocks, parallel, programs
from bnn_adv.compute.streaming import fold_samples
from bnn_adv.inference.densities import Prior, categorical, sample_prior
from bnn_adv.networks import Params
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk, one_draw
from bnn_adv.theory.expected_norm import Groups


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Return ``-log softmax(logits)_y`` for logits [B, C] and labels [B], in nats, [B]."""
    return -categorical(logits, y)


def double_softmax(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Return the loss as published, a cross-entropy of probabilities taken for logits, [B].

    ``-log softmax(softmax(logits))_y``: with ten classes it lies in [1.461, 2.461].
    """
    return -categorical(jax.nn.softmax(logits), y)


LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": cross_entropy,
    "double_softmax": double_softmax,
}


class LossGradients(NamedTuple):
    """Input gradients of the loss over S draws, at N inputs, for K numbers of draws.

    The draws are averaged in R orders. The first is the order in which they are stored; the others
    are random, and show how much a number depends on which draws come first.

    counts: Numbers of draws that are averaged, int [K], rising.
    means: Mean gradient over the first ``counts[k]`` draws as stored, float32 [K, N, ...].
    draw_linf: l_inf norm of every draw's gradient, float32 [S, N].
    draw_l2: Its l_2 norm, float32 [S, N].
    mean_linf: l_inf norm of the mean over the first ``counts[k]`` draws of order r, [R, K, N].
    mean_l2: Its l_2 norm, [R, K, N].
    products: Inner products of the means over G groups of draws, float64 [G, G, N]; G is 0 where no
      groups were asked for. See ``expected_norm``.
    """

    counts: np.ndarray
    means: np.ndarray
    draw_linf: np.ndarray
    draw_l2: np.ndarray
    mean_linf: np.ndarray
    mean_l2: np.ndarray
    products: np.ndarray


@dataclasses.dataclass(frozen=True)
class GradientSettings:
    """What gradients are averaged, and how.

    Args:
      loss: A name in ``LOSSES``.
      num_orders: Orders of the draws, R >= 1; see ``LossGradients``.
      groups: Groups of draws whose means are multiplied with one another; None for no products.
      batch_size: Inputs at once, at most; fewer where a network's intermediate values are large.
      sample_chunk: Draws at once; None chooses from the size of the network.
      progress: Called with (inputs done, inputs in all).
    """

    loss: str = "cross_entropy"
    num_orders: int = 1
    groups: Groups | None = None
    batch_size: int = 128
    sample_chunk: int | None = None
    progress: Callable[[int, int], object] | None = None


def expected_loss_gradients(
    rng_key: jax.Array,
    posterior: Posterior,
    x: Any,
    y: Any,
    *,
    counts: Sequence[int],
    settings: GradientSettings = GradientSettings(),
) -> LossGradients:
    """Return mean gradients for several numbers of draws, and the norms of each draw's own.

    One pass over the draws a batch of inputs: a draw's gradient is added to the sum of the segment
    between two counts in which the draw lies, and running sums over segments end the pass. Memory
    on the device holds R K + G gradients an input and S norms, not S gradients.

    Args:
      rng_key: Typed key of the random orders.
      posterior: S draws.
      x: Inputs, float32 [N, ...].
      y: Labels, int32 [N].
      counts: Numbers of draws to average, rising, each in 1..S.
      settings: Loss, orders, groups and sizes.

    Returns:
      Arrays on the host. An input at which a draw's gradient is not finite has NaN in the means
      that this draw enters, and only there.

    Raises:
      ValueError: An argument is out of range.
    """
    x, y = np.asarray(x), np.asarray(y)
    loss, num_orders, groups = settings.loss, settings.num_orders, settings.groups
    counts = _check(posterior, x, y, counts, loss, num_orders, groups)
    each = blocks.bytes_per_input(posterior.apply_fn, one_draw(posterior), x)
    size = blocks.choose_block(each, min(settings.batch_size, len(x)))
    chunk = check_sample_chunk(posterior, settings.sample_chunk, x[:size])
    segments = jnp.asarray(_segments(rng_key, counts, posterior.num_samples, num_orders))
    of_draw = np.zeros(posterior.num_samples, int) if groups is None else groups.of_draw
    sizes = np.zeros(0, int) if groups is None else np.bincount(of_draw)
    result = _empty(counts, posterior.num_samples, num_orders, len(sizes), x.shape)
    # The last batch overlaps the one before it, so that only one shape compiles.
    for start in range(0, len(x), size):
        rows = slice(min(start, len(x) - size), min(start, len(x) - size) + size)
        part = _one_batch(
            posterior,
            x[rows],
            y[rows],
            segments,
            jnp.asarray(of_draw),
            counts=counts,
            num_groups=len(sizes),
            loss=loss,
            chunk=chunk,
        )
        means, *norms, sums = parallel.to_host(part)
        result.means[:, rows] = means
        for whole, values in zip(result[2:-1], norms, strict=True):
            whole[..., rows] = values
        result.products[..., rows] = _multiply(sums, sizes)
        if settings.progress is not None:
            settings.progress(min(start + size, len(x)), len(x))
    return result


def prior_control(
    rng_key: jax.Array, posterior: Posterior, num_samples: int, prior: Prior = Prior()
) -> Posterior:
    """Return draws of the prior for a posterior's network: networks that have seen no data.

    Args:
      rng_key: Typed key.
      posterior: Whose network to use.
      num_samples: Number of draws.
      prior: The prior; the default is the paper's N(0, 1) on every weight and bias.
    """
    template = one_draw(posterior)

    def draw(index: jax.Array) -> Params:
        return sample_prior(jax.random.fold_in(rng_key, index), template, prior)

    samples = jax.jit(lambda: jax.lax.map(draw, jnp.arange(num_samples)))()
    return Posterior(posterior.apply_fn, samples, precision=posterior.precision)


def shuffle_labels(rng_key: jax.Array, y: Any) -> np.ndarray:
    """Return the labels in random order: each input gets another input's, [N]."""
    found: np.ndarray = np.asarray(y)[np.asarray(jax.random.permutation(rng_key, len(y)))]
    return found


def shuffle_draws(rng_key: jax.Array, posterior: Posterior) -> Posterior:
    """Return a posterior with its draws in random order.

    The first draws of a chain resemble each other, and come from one chain. In random order the
    first S draws are a uniform subset of all.
    """
    return posterior.take(jax.random.permutation(rng_key, posterior.num_samples))


def shuffle_groups(rng_key: jax.Array, groups: Groups) -> Groups:
    """Return the groups of draws that ``shuffle_draws`` has put in order by the same key."""
    order = np.asarray(jax.random.permutation(rng_key, len(groups.of_draw)))
    return groups._replace(of_draw=groups.of_draw[order])


def select_inputs(
    rng_key: jax.Array, mean_linf: np.ndarray, num: int, selection: str = "seed"
) -> np.ndarray:
    """Return which inputs a figure shows.

    Args:
      rng_key: Typed key.
      mean_linf: l_inf norm of the mean gradients for K rising numbers of draws, [K, N].
      num: How many, at most N.
      selection: ``"seed"``: at random, whatever the gradients are. ``"published"``: as the paper's
        code, by outcome: the first inputs whose norm is not zero at the smallest number of draws
        and does not rise from one number to the next.

    Returns:
      Integers in rising order, [num]; fewer where fewer inputs meet the published rule.

    Raises:
      ValueError: The selection is unknown.
    """
    if selection == "published":
        return np.flatnonzero(falls_throughout(mean_linf))[:num]
    if selection != "seed":
        raise ValueError(f"Unknown selection {selection!r}. Known: seed, published.")
    order = np.asarray(jax.random.permutation(rng_key, mean_linf.shape[1]))
    return np.sort(order[:num])


def falls_throughout(mean_linf: np.ndarray) -> np.ndarray:
    """Return for every input whether the published figures may show it, see ``select_inputs``."""
    found: np.ndarray = (mean_linf[0] > 0) & np.all(np.diff(mean_linf, axis=0) <= 0, axis=0)
    return found


@functools.partial(programs.jit, static_argnames=("counts", "num_groups", "loss", "chunk"))
def _one_batch(
    posterior: Posterior,
    x: jax.Array,
    y: jax.Array,
    segments: jax.Array,
    of_draw: jax.Array,
    *,
    counts: tuple[int, ...],
    num_groups: int,
    loss: str,
    chunk: int,
) -> tuple[jax.Array, ...]:
    """Return fields of ``LossGradients`` for a batch of inputs; last the sums over groups."""
    size = posterior.num_samples

    def one_draw(draw: tuple[Params, jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        params, own_segments, own_group, index = draw
        gradient = jax.grad(lambda v: LOSSES[loss](posterior.logits(params, v), y).sum())(x)
        is_member = own_segments[:, None] == jnp.arange(len(counts))
        # Chosen and not multiplied: NaN times zero would spoil the segments of other draws.
        sums = _where(is_member, gradient)
        is_own = jnp.arange(size) == index
        of_groups = _where(own_group == jnp.arange(num_groups), gradient)
        norms = _linf(gradient, 1), _l2(gradient, 1)
        return sums, *(_where(is_own, norm) for norm in norms), of_groups

    with jax.default_matmul_precision(posterior.precision):
        draws = posterior.samples, segments.T, of_draw, jnp.arange(size)
        sums, draw_linf, draw_l2, of_groups = fold_samples(
            one_draw, draws, ("sum",) * 4, chunk=chunk, shards=posterior.shards
        )
    divisors = jnp.asarray(counts, sums.dtype).reshape(-1, *(1,) * x.ndim)
    means = jnp.cumsum(sums, axis=1) / divisors
    return means[0], draw_linf, draw_l2, _linf(means, 3), _l2(means, 3), of_groups


def _multiply(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return products of the groups' means from sums [G, B, ...], float64 [G, G, B]."""
    if not len(sizes):
        return np.zeros((0, 0, sums.shape[1]))
    # On the host, where squares of small gradients do not vanish.
    means = sums.reshape(*sums.shape[:2], -1).astype(np.float64) / sizes[:, None, None]
    products: np.ndarray = np.einsum("gbd,hbd->ghb", means, means)
    return products


def _where(chosen: jax.Array, values: jax.Array) -> jax.Array:
    """Return ``values`` where ``chosen`` and zeros elsewhere, of both shapes joined."""
    return jnp.where(chosen.reshape(*chosen.shape, *(1,) * values.ndim), values, 0)


def _linf(values: jax.Array, lead: int) -> jax.Array:
    return jnp.abs(values).max(axis=tuple(range(lead, values.ndim)))


def _l2(values: jax.Array, lead: int) -> jax.Array:
    # By the largest component, for the square of a float32 below 1e-23 is zero.
    axes = tuple(range(lead, values.ndim))
    largest = jnp.abs(values).max(axis=axes, keepdims=True)
    scaled = values / jnp.where(largest > 0, largest, 1)
    return jnp.squeeze(largest, axes) * jnp.sqrt(jnp.sum(scaled**2, axis=axes))


def _segments(
    rng_key: jax.Array, counts: tuple[int, ...], size: int, num_orders: int
) -> np.ndarray:
    """Return for every order the segment between two counts that each draw falls into, [R, S].

    Draws beyond the largest count have segment K, which is none.
    """
    by_place = np.searchsorted(counts, np.arange(1, size + 1))
    orders = [np.arange(size)] + [
        np.asarray(jax.random.permutation(jax.random.fold_in(rng_key, r), size))
        for r in range(1, num_orders)
    ]
    # Draw order[i] has place i.
    return np.stack([by_place[np.argsort(order)] for order in orders])


def _empty(
    counts: tuple[int, ...], size: int, num_orders: int, num_groups: int, shape: tuple[int, ...]
) -> LossGradients:
    num, num_inputs = len(counts), shape[0]
    return LossGradients(
        counts=np.asarray(counts),
        means=np.zeros((num, *shape), np.float32),
        draw_linf=np.zeros((size, num_inputs), np.float32),
        draw_l2=np.zeros((size, num_inputs), np.float32),
        mean_linf=np.zeros((num_orders, num, num_inputs), np.float32),
        mean_l2=np.zeros((num_orders, num, num_inputs), np.float32),
        products=np.zeros((num_groups, num_groups, num_inputs)),
    )


def _check(
    posterior: Posterior,
    x: np.ndarray,
    y: np.ndarray,
    counts: Any,
    loss: str,
    num_orders: int,
    groups: Groups | None,
) -> tuple[int, ...]:
    counts, size = tuple(int(count) for count in counts), posterior.num_samples
    rises = all(low < high for low, high in itertools.pairwise(counts))
    if not counts or not rises or counts[0] < 1 or counts[-1] > size:
        raise ValueError(
            f"counts must rise within 1..{size}, the posterior's number of draws, got {counts}."
        )
    if not len(x) or len(x) != len(y):
        raise ValueError(f"Need one label an input, got {len(x)} inputs and {len(y)} labels.")
    if loss not in LOSSES:
        raise ValueError(f"Unknown loss {loss!r}. Known: {', '.join(LOSSES)}.")
    if num_orders < 1:
        raise ValueError(f"num_orders must be at least 1, got {num_orders}.")
    if groups is not None and len(groups.of_draw) != size:
        raise ValueError(
            f"groups must hold one group for each of {size} draws, got {len(groups.of_draw)}: take "
            "them from group_draws."
        )
    found: tuple[int, ...] = counts
    return found
