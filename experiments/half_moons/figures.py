"""Figures of the half moons: gradients' components, their decay, truth against attacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_adv.report import style
from experiments.half_moons.truth import Comparison

NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$"}
_KINDS = {
    "posterior": ("mean over the posterior", "#0072b2"),
    "single": ("one draw of the posterior", "#e69f00"),
    "prior": ("mean over the prior (untrained)", "#999999"),
}
_WIDTH_COLOURS = ("#56b4e9", "#0072b2", "#009e73", "#d55e00", "#cc79a7", "#e69f00")
_MARKERS = {"published": "v", "corrected": "s", "strong": "o"}


class Gradients(NamedTuple):
    """A network's loss gradients at N test points; all means are over all S draws.

    posterior: Mean over the posterior's draws, [N, 2].
    chains: Mean over each of its C chains by itself, [C, N, 2].
    single: Of one draw, [N, 2].
    prior: Mean over as many draws of the prior, [N, 2].
    counts: Numbers of draws, [K].
    norms: Root mean square over points of the l_2 norm of the mean over ``counts[k]`` draws, [K].
    prior_norms: The same for the prior, [K].
    zero_share: Share of single draws' gradients that are exactly zero, in [0, 1].
    """

    posterior: np.ndarray
    chains: np.ndarray
    single: np.ndarray
    prior: np.ndarray
    counts: np.ndarray
    norms: np.ndarray
    prior_norms: np.ndarray
    zero_share: float


class Attacked(NamedTuple):
    """One attack against the grid.

    norm: Of the ball.
    epsilon: Radius, in units of inputs in [0, 1].
    suite: Name of the suite.
    attack: Name of the attack; ``"worst"`` for the worst case of several.
    comparison: What was counted.
    """

    norm: str
    epsilon: float
    suite: str
    attack: str
    comparison: Comparison


class Network(NamedTuple):
    """One network of the grid.

    hidden: Width of both hidden layers.
    num_train: Training points.
    num_warmup: Warm-up transitions.
    diagnostics: What the sampler said; empty where it failed.
    reason: Why the network is left out; empty where it is kept.
    gradients: None where it is left out.
    distances: To the nearest misclassified grid point, [N], by norm.
    attacked: All attacks.
    kind: Settings of HMC, ``"published"`` or ``"mixed"``.
    """

    hidden: int
    num_train: int
    num_warmup: int
    diagnostics: dict[str, Any]
    reason: str
    gradients: Gradients | None
    distances: dict[str, np.ndarray]
    attacked: tuple[Attacked, ...]
    kind: str = "published"


def components_figure(networks: Sequence[Network]) -> Figure:
    """Draw both components of the expected loss gradient against width and against data.

    Args:
      networks: Those that are kept, at least one.

    Returns:
      Two by two panels. Every dot is a component at a test point, of every network with that width
      (or that number of training points).

    Raises:
      ValueError: No network has gradients.
    """
    kept = _kept(networks)
    values = [g for n in kept for g in (n.gradients.posterior, n.gradients.single)]  # type: ignore[union-attr]
    # Linear up to a typical size, logarithmic beyond: zeros stay visible beside thousands.
    typical = float(np.median(np.abs(np.concatenate(values))))
    threshold = 10.0 ** math.floor(math.log10(typical)) if typical > 1e-6 else 1e-6
    with style.paper_style():
        figure = Figure(figsize=(6.8, 4.4), layout="constrained")
        axes = figure.subplots(2, 2, sharey=True, sharex="col")
        columns = (("hidden", "hidden units a layer"), ("num_train", "training points"))
        for column, (field, label) in enumerate(columns):
            groups = sorted({getattr(network, field) for network in kept})
            for component in (0, 1):
                ax = axes[component, column]
                for place, group in enumerate(groups):
                    members = [n for n in kept if getattr(n, field) == group]
                    _strips(ax, place, members, component)
                ax.axhline(0, color=style.MUTED, linewidth=0.5, zorder=0)
                ax.set_yscale("symlog", linthresh=threshold)
                ax.set_xticks(range(len(groups)), labels=[f"{group:,}" for group in groups])
                ax.set_xlim(-0.6, len(groups) - 0.4)
            axes[1, column].set_xlabel(label)
        for component in (0, 1):
            axes[component, 0].set_ylabel(
                rf"$\langle\partial L/\partial x_{component + 1}\rangle_w$"
            )
        handles, labels = axes[0, 0].get_legend_handles_labels()
        first = dict(zip(labels, handles, strict=True))
        legend = figure.legend(
            first.values(), first.keys(), loc="outside upper center", ncols=3, frameon=False
        )
        for line in legend.get_lines():
            line.set(markersize=6, alpha=1.0)
    return figure


def decay_figure(networks: Sequence[Network]) -> Figure:
    """Draw the norm of the mean gradient against the number of draws, a line a width.

    Args:
      networks: Those that are kept, at least one.

    Returns:
      Posterior and prior side by side; norms of zero are left out.

    Raises:
      ValueError: No network has gradients.
    """
    kept = _kept(networks)
    widths = sorted({network.hidden for network in kept})
    with style.paper_style():
        figure = Figure(figsize=(6.8, 2.6), layout="constrained")
        axes = figure.subplots(1, 2)
        for ax, field, title in zip(
            axes, ("norms", "prior_norms"), ("posterior", "prior (untrained)"), strict=True
        ):
            for width, colour in zip(widths, _cycle(len(widths)), strict=True):
                own = [n.gradients for n in kept if n.hidden == width]
                counts = own[0].counts  # type: ignore[union-attr]
                norms = np.stack([getattr(g, field) for g in own])
                alive = np.all(norms > 0, axis=0)
                counts, centre = counts[alive], np.exp(np.log(norms[:, alive]).mean(axis=0))
                if len(counts):
                    ax.plot(counts, centre, "o-", color=colour, markersize=3, label=f"{width:,}")
                    ax.plot(
                        counts,
                        centre[0] * (counts / counts[0]) ** -0.5,
                        ":",
                        color=colour,
                        linewidth=0.9,
                        label=r"$S^{-1/2}$" if width == widths[-1] else None,
                    )
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_title(title)
            ax.set_xlabel("draws $S$")
            ax.grid(color=style.GRID, linewidth=0.5)
        axes[0].set_ylabel(r"r.m.s. $\|\langle\nabla_{\!x} L(x, w)\rangle_w\|_2$")
        if axes[0].lines:
            axes[0].legend(title="hidden units", frameon=False)
    return figure


def truth_figure(networks: Sequence[Network], norm: str) -> Figure:
    """Draw the true robust accuracy against the radius, and what attacks leave.

    Args:
      networks: Those that are kept, at least one.
      norm: Of the ball.

    Returns:
      One panel a width; accuracies are means over its networks.

    Raises:
      ValueError: No network has gradients.
    """
    kept = _kept(networks)
    widths = sorted({network.hidden for network in kept})
    with style.paper_style():
        figure = Figure(figsize=(max(1.75 * len(widths) + 0.4, 4.6), 2.5), layout="constrained")
        axes = figure.subplots(1, len(widths), squeeze=False, sharey=True)[0]
        for ax, width in zip(axes, widths, strict=True):
            own = [n for n in kept if n.hidden == width]
            distances = np.concatenate([n.distances[norm] for n in own])
            _truth_curve(ax, distances)
            rows = [a for n in own for a in n.attacked if a.norm == norm]
            for suite, colour in style.suite_colours(tuple(_MARKERS)).items():
                if suite in _MARKERS:
                    _attack_points(ax, [a for a in rows if a.suite == suite], colour)
            ax.set_title(f"{width:,} hidden units")
            ax.set_xlabel(rf"radius $\epsilon$ ({NORMS[norm]})")
            ax.set_ylim(-3, 103)
            ax.grid(color=style.GRID, linewidth=0.5)
        axes[0].set_ylabel("accuracy (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def headline(rows: Sequence[Attacked]) -> list[Attacked]:
    """Return the attack that speaks for a suite: the worst case, or else PGD."""
    return [row for row in rows if row.attack in ("worst", "pgd")]


def _kept(networks: Sequence[Network]) -> list[Network]:
    kept = [network for network in networks if network.gradients is not None]
    if not kept:
        raise ValueError("No network of the grid was kept: there is nothing to draw.")
    return kept


def _strips(ax: Axes, place: int, members: Sequence[Network], component: int) -> None:
    rng = np.random.default_rng(place)
    for number, (kind, (label, colour)) in enumerate(_KINDS.items()):
        values = np.concatenate([getattr(n.gradients, kind)[:, component] for n in members])
        values = values[np.isfinite(values)]
        centre = place + 0.27 * (number - 1)
        jitter = rng.uniform(-0.09, 0.09, len(values))
        ax.plot(
            centre + jitter,
            values,
            ".",
            color=colour,
            markersize=1.6 if len(values) > 200 else 3.0,
            alpha=0.6,
            markeredgewidth=0,
            label=label,
            rasterized=True,
        )
        middle = float(np.median(np.abs(values))) if len(values) else 0.0
        ax.hlines([middle, -middle], centre - 0.12, centre + 0.12, color=style.INK, linewidth=1.1)


def _truth_curve(ax: Axes, distances: np.ndarray) -> None:
    finite = np.sort(distances[np.isfinite(distances)])
    steps = np.concatenate([[0.0], finite])
    standing = 1 - np.searchsorted(finite, steps, side="right") / len(distances)
    ax.step(
        steps, 100 * standing, where="post", color=style.INK, linewidth=1.1, label="truth (grid)"
    )


def _attack_points(ax: Axes, rows: Sequence[Attacked], colour: str) -> None:
    radii = sorted({row.epsilon for row in rows})
    if not radii:
        return
    by_radius = [
        100 * np.mean([r.comparison.accuracy for r in headline(rows) if r.epsilon == radius])
        for radius in radii
    ]
    suite = rows[0].suite
    ax.plot(
        radii,
        by_radius,
        _MARKERS[suite],
        color=colour,
        markersize=5,
        label=suite,
        markerfacecolor="none",
        markeredgewidth=1.3,
        clip_on=False,
        zorder=3,
    )


def _cycle(count: int) -> list[str]:
    return [_WIDTH_COLOURS[i % len(_WIDTH_COLOURS)] for i in range(count)]
