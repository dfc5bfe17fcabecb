r"""How uncertain a posterior is, and how much of that its draws disagree about.

With ``H(p) = -sum_k p_k log p_k`` and ``pbar = (1/S) sum_s p_s``, in nats:

    predictive entropy     H(pbar)
    mutual information     H(pbar) - (1/S) sum_s H(p_s)

(Depeweg et al. 2018, arXiv 1710.07283, section 3; Smith, Gal 2018, arXiv 1803.08533, section 2).
Both are computed from ``log H``, which is finite where softmax, and ``H`` itself, underflow. Where
the decision rule is the mean of the logits, predictive entropy is that of the prediction that the
rule makes; mutual information is about the draws, and the same whatever the rule.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from bnn_adv.compute import blocks, programs
from bnn_adv.compute.streaming import fold_samples
from bnn_adv.compute.types import Images, Logits, Numbers
from bnn_adv.networks import Params
from bnn_adv.posteriors.decision import log_predictive
from bnn_adv.posteriors.posterior import Posterior, check_sample_chunk, one_draw

Measure = Literal["entropy", "mutual_information"]
MEASURES: tuple[Measure, ...] = ("entropy", "mutual_information")

Score = Literal["entropy", "mutual_information", "max_probability"]
SCORES: tuple[Score, ...] = (*MEASURES, "max_probability")
"""By which inputs are ranked: larger is less certain. Of the largest probability it is
``1 - max_k pbar_k``."""


class Uncertainty(NamedTuple):
    """What a posterior says at N inputs.

    log_probs: Log of the prediction by the posterior's decision rule, [N, C].
    entropy: Predictive entropy in nats, [N], in [0, log C].
    mutual_information: Between prediction and draw, in nats, [N], in [0, min(log C, log S)].
    """

    log_probs: Any
    entropy: Any
    mutual_information: Any


@functools.partial(programs.jit, static_argnames=("sample_chunk", "batch_size"))
def measure(
    posterior: Posterior,
    x: Images,
    *,
    sample_chunk: int | None = None,
    batch_size: int = 256,
) -> Uncertainty:
    """Return predictive entropy and mutual information.

    Accurate in float32 where draws are saturated: relative to the entropy, errors of both are
    below 1e-5. Rounding may take a mutual information below zero; it is then set to zero.

    Args:
      posterior: S draws.
      x: Inputs, [N, ...].
      sample_chunk: Draws at once; None chooses from the size of the network.
      batch_size: Inputs at once.

    Returns:
      Arrays of N rows.
    """
    each = blocks.bytes_per_input(posterior.apply_fn, one_draw(posterior), x)
    size = blocks.choose_block(each, min(batch_size, x.shape[0]))
    chunk = check_sample_chunk(posterior, sample_chunk, x[:size])

    by_logits = posterior.decision_rule == "mean_logits"

    def one_block(rows: jax.Array) -> Uncertainty:
        def one(params: Params) -> tuple[jax.Array, ...]:
            logits = posterior.logits(params, rows)
            log_probs = jax.nn.log_softmax(logits)
            return log_probs, log_entropy(log_probs), *((logits,) if by_logits else ())

        # The log-sum-exp of log H over the draws is the log of the sum of their entropies.
        how = ("log_sum_exp", "log_sum_exp", *(("sum",) if by_logits else ()))
        totals = fold_samples(one, posterior.samples, how, chunk=chunk, shards=posterior.shards)
        log_probs, log_mean = (total - jnp.log(posterior.num_samples) for total in totals[:2])
        whole = log_entropy(log_probs)
        information = jnp.exp(whole) * -jnp.expm1(log_mean - whole)
        if by_logits:
            log_probs = log_predictive("mean_logits", totals[2], posterior.num_samples)
            whole = log_entropy(log_probs)
        return Uncertainty(log_probs, jnp.exp(whole), jnp.maximum(information, 0.0))

    with jax.default_matmul_precision(posterior.precision):
        found: Uncertainty = blocks.map_blocks(one_block, x, size)
        return found


def log_entropy(log_probs: Logits) -> Numbers:
    """Return ``log H(p)``, [B], finite where all but one probability underflow.

    Args:
      log_probs: Log-probabilities of two classes or more, [B, C].
    """
    is_top = jnp.arange(log_probs.shape[-1]) == jnp.argmax(log_probs, axis=-1)[..., None]
    others = jnp.where(is_top, -jnp.inf, log_probs)
    # 1 - p_top from the others: p_top itself rounds to one.
    log_rest = jax.nn.logsumexp(others, axis=-1)
    rest, is_small = jnp.exp(log_rest), log_rest < -10.0
    large = jnp.log(-jnp.log1p(-jnp.where(is_small, 0.5, rest)))
    log_top_loss = jnp.where(is_small, log_rest + rest / 2, large)
    log_losses = jnp.log(-jnp.where(is_top, -1.0, log_probs))
    return jnp.logaddexp(
        jax.nn.logsumexp(others + log_losses, axis=-1), jnp.log1p(-rest) + log_top_loss
    )


def log_doubt(log_probs: Logits) -> Numbers:
    """Return ``log(1 - max_k p_k)``, [B], from the others: the largest itself rounds to one.

    Args:
      log_probs: Log-probabilities of two classes or more, [B, C].
    """
    is_top = jnp.arange(log_probs.shape[-1]) == jnp.argmax(log_probs, axis=-1)[..., None]
    return jax.nn.logsumexp(jnp.where(is_top, -jnp.inf, log_probs), axis=-1)
