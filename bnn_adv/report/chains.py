"""Figures of Markov chains: traces, and ranks by chain (Vehtari et al. 2021, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

from bnn_adv.inference.mixing import measure_mixing
from bnn_adv.inference.records import ChainRecord
from bnn_adv.report import style

_BINS = 20
_LEAST_A_BIN = 5
"""Draws of a chain that a bar stands for at least, on average."""
_LEAST_DRAWS = 4


class Quantity(NamedTuple):
    """What is drawn of chains.

    label: What it is.
    values: [chains, draws].
    """

    label: str
    values: np.ndarray


def choose_quantities(chains: ChainRecord) -> list[Quantity]:
    """Return the log density and the held-out predictions with the largest and the median R-hat.

    Those of the points that are kept, which labels say: diagnostics are taken over all of them.
    Predictions that do not vary, or where R-hat is not defined, are not chosen.
    """
    found = [Quantity("log density (nats)", chains.sample_stats["lp"])]
    values = chains.log_likelihood
    if values is None or values.shape[1] < _LEAST_DRAWS:
        return found
    varies = np.flatnonzero((values != values[:1, :1]).any(axis=(0, 1)))
    mixing = measure_mixing(values[..., varies])
    # Of one chain the draw in the middle is in neither half.
    if mixing is None or len(mixing.rhat) < len(varies):
        return found
    defined = np.flatnonzero(np.isfinite(mixing.rhat))
    order = defined[np.argsort(mixing.rhat[defined], kind="stable")]
    if not len(order):
        return found
    chosen = {"largest": order[-1], "median": order[(len(order) - 1) // 2]}
    for name, place in chosen.items():
        point, rhat = varies[place], mixing.rhat[place]
        among = f"of the first {values.shape[-1]} points"
        label = f"log p(y), point {point}: {name} R-hat {among}, {rhat:.3f}"
        found.append(Quantity(label, values[..., point]))
    return found


def count_ranks(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Return histograms of the ranks that each chain's draws have among those of all chains.

    Chains with one law have uniform ranks. Draws that are equal share the mean of their ranks.

    Args:
      values: [chains, draws].
      num_bins: Bins of equal width over all ranks.

    Returns:
      Draws by chain and bin, [chains, num_bins].
    """
    values = np.where(np.isnan(values), -np.inf, values)
    ranks = (rankdata(values).reshape(values.shape) - 0.5) / values.size
    bins = np.minimum((ranks * num_bins).astype(int), num_bins - 1)
    return np.stack([np.bincount(each, minlength=num_bins) for each in bins])


def trace_figure(models: Mapping[str, ChainRecord]) -> Figure | None:
    """Draw log density and held-out predictions against the draw, a line a chain.

    Args:
      models: Records by name of the model.

    Returns:
      One row a model; None where no model has chains.
    """
    return _small_multiples(models, 1.7, _draw_traces)


def rank_figure(models: Mapping[str, ChainRecord]) -> Figure | None:
    """Draw the histogram of ranks of every chain, one above the other, with the uniform one.

    Args:
      models: Records by name of the model; those of one chain are left out.
    """
    counts = {name: len(each.sample_stats["lp"]) for name, each in models.items()}
    models = {name: each for name, each in models.items() if counts[name] > 1}
    most = max(counts.values(), default=0)
    return _small_multiples(models, 0.9 + 0.28 * min(most, 12), _draw_ranks)


def _small_multiples(
    models: Mapping[str, ChainRecord],
    height: float,
    draw: Callable[[Axes, Quantity], None],
) -> Figure | None:
    rows = {name: choose_quantities(chains) for name, chains in models.items()}
    if not rows:
        return None
    num_columns = max(map(len, rows.values()))
    with style.paper_style():
        figure = Figure(
            figsize=(0.4 + 2.5 * num_columns, 0.2 + height * len(rows)), layout="constrained"
        )
        axes = figure.subplots(len(rows), num_columns, squeeze=False)
        for line, (name, quantities) in zip(axes, rows.items(), strict=True):
            for ax, quantity in zip(line, quantities, strict=False):
                draw(ax, quantity)
                ax.set_title(style.wrap(quantity.label, 34), fontsize=7.5, fontweight="normal")
            for ax in line[len(quantities) :]:
                ax.set_visible(False)
            line[0].set_ylabel(f"{style.wrap(name, 20)}\n{line[0].get_ylabel()}".strip())
    return figure


def _colour(chain: int) -> str:
    return style.CLASS_COLOURS[chain % len(style.CLASS_COLOURS)]


def _draw_traces(ax: Axes, quantity: Quantity) -> None:
    steps = np.arange(1, quantity.values.shape[1] + 1)
    for chain, values in enumerate(quantity.values):
        finite = np.where(np.isfinite(values), values, np.nan)
        ax.plot(steps, finite, color=_colour(chain), linewidth=0.7, alpha=0.8)
    ax.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True, useOffset=False)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    ax.set_xlabel("kept draw")


def _draw_ranks(ax: Axes, quantity: Quantity) -> None:
    num_chains, num_draws = quantity.values.shape
    num_bins = int(np.clip(num_draws // _LEAST_A_BIN, 2, _BINS))
    shares = count_ranks(quantity.values, num_bins) * num_bins / num_draws
    # Twice what is expected reaches the line of the chain above; what is more is cut off.
    heights = np.minimum(shares, 2.0) / 2.1
    for chain, bars in enumerate(heights):
        bottom = num_chains - 1 - chain
        ax.bar(np.arange(num_bins) + 0.5, bars, 0.95, bottom, color=_colour(chain), alpha=0.75)
        ax.axhline(bottom + 1 / 2.1, color=style.INK, linewidth=0.6, linestyle=":")
        ax.axhline(bottom, color=style.MUTED, linewidth=0.5)
    ax.set_xlim(0, num_bins)
    ax.set_xticks([0, num_bins], ["lowest", "highest"])
    ax.set_ylim(0, num_chains)
    ax.set_yticks(np.arange(num_chains) + 0.5, [f"{n}" for n in range(num_chains, 0, -1)])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("rank among all draws")
    ax.set_ylabel("chain")
