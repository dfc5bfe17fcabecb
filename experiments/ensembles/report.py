"""Deep ensembles of growing size under attack: the curve, its table, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnn_adv.evaluation.metrics import paired_difference, wilson_interval
from bnn_adv.report import style
from bnn_adv.report.table import Table
from experiments.launch.paper import PAPER_TABLES
from experiments.launch.tables import Claim, Plot, Study, Verdict

ATTACKS = (
    ("published", "fgsm"),
    ("published", "pgd"),
    ("corrected", "fgsm"),
    ("corrected", "pgd"),
    ("strong", "worst"),
)
"""Suite and attack of every curve."""

_NAMES = {"fgsm": "FGSM", "pgd": "PGD", "worst": "worst case"}
_COMPARABLE = 0.05
_PAPER_RADIUS = 0.3
_CAPTION = (
    "Accuracy of a deep ensemble against the number S of its members, on clean test images and "
    "under attack, with 95 % Wilson intervals. S = 1 is the deterministic network, whose interval "
    "is the grey band of each attack's panel. Every ensemble consists of the first S members of "
    "the largest one, so that points of a curve share networks and images. A curve that stays in "
    "its band says that averaging predictions alone brings no robustness."
)


class Size(NamedTuple):
    """An ensemble of one size, attacked within one radius.

    epsilon: Radius of the l_inf ball.
    num_members: S.
    clean: Whether each image is classified correctly, booleans [N].
    correct: The same under each attack, by ``"suite/attack"``, booleans [N].
    softmax_robustness: By suite, of its last attack, in [0, 1]; published: by its own metric.
    zero_gradient_share: By suite, share of images without any gradient, in [0, 1].
    """

    epsilon: float
    num_members: int
    clean: np.ndarray
    correct: dict[str, np.ndarray]
    softmax_robustness: dict[str, float]
    zero_gradient_share: dict[str, float]


class Change(NamedTuple):
    """A difference of two accuracies on the same images with its 95 % interval.

    By ``metrics.paired_difference``: the interval stays open where no image changes.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return ``+1.2 [-0.3, +2.7] points``."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}] points"


def curve_figure(sizes: Sequence[Size]) -> Figure:
    """Draw accuracy against the number of members: a line of panels a radius, a panel a suite.

    Args:
      sizes: By ascending number of members, at least one.

    Raises:
      ValueError: There is none.
    """
    if not sizes:
        raise ValueError("No ensemble was attacked: there is nothing to draw.")
    suites = tuple(dict.fromkeys(suite for suite, _ in ATTACKS))
    colours = style.suite_colours(suites)
    radii = _radii(sizes)
    with style.paper_style():
        figure = Figure(figsize=(6.8, 1.9 * len(radii) + 0.8), layout="constrained")
        axes = figure.subplots(len(radii), len(suites), sharey=True, sharex=True, squeeze=False)
        for line, epsilon in zip(axes, radii, strict=True):
            own = [size for size in sizes if size.epsilon == epsilon]
            for ax, suite in zip(line, suites, strict=True):
                _panel(ax, own, suite, colours[suite])
            line[0].set_ylabel(rf"accuracy (%), $\epsilon$ = {epsilon:g}")
        found: dict[str, Any] = {}
        for ax, suite in zip(axes[0], suites, strict=True):
            ax.set_title(suite)
            handles, labels = ax.get_legend_handles_labels()
            found |= dict(zip(labels, handles, strict=True))
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=len(found),
            frameon=False,
            columnspacing=1.0,
            handlelength=1.4,
        )
        for ax in axes[-1]:
            ax.set_xlabel("members $S$")
    return figure


def build_study(sizes: Sequence[Size], *, setting: str, is_paper_network: bool) -> Study:
    """Return what ensembles of growing size say.

    Args:
      sizes: By ascending number of members, at least one; all numbers of members within every
        radius.
      setting: Data and network, in words.
      is_paper_network: Whether data and network are those of the paper's Table 2.
    """
    radii = _radii(sizes)
    ends = {radius: _ends(sizes, radius) for radius in radii}
    first, last = ends[radii[0]]
    strong = [
        f"{100 * _share(one.correct['strong/worst']):.1f} to "
        f"{100 * _share(many.correct['strong/worst']):.1f} % within {radius:g}"
        for radius, (one, many) in ends.items()
    ]
    summary = (
        f"{setting}, {len(first.clean)} test images. From {first.num_members} to "
        f"{last.num_members} members clean accuracy goes from {100 * _share(first.clean):.1f} to "
        f"{100 * _share(last.clean):.1f} %, accuracy under the strong attack (l_inf) from "
        f"{', '.join(strong)}."
    )
    return Study(
        "Deep ensembles: robustness against the number of members",
        summary,
        (_table(sizes),),
        (Plot("curve", curve_figure(sizes), _CAPTION),),
        tuple(_claims(sizes, setting, is_paper_network)),
        tuple(v for pair in ends.values() for v in _verdicts(*pair)),
        {
            "sizes": [_record(size) for size in sizes],
            "changes": [change for pair in ends.values() for change in _changes(*pair)],
        },
    )


def _table(sizes: Sequence[Size]) -> Table:
    rows = []
    for size in sorted(sizes, key=lambda size: (size.epsilon, size.num_members)):
        accuracies = [size.clean, *(size.correct["/".join(attack)] for attack in ATTACKS)]
        rows.append(
            (
                f"{size.epsilon:g}",
                "deterministic" if size.num_members == 1 else "ensemble",
                size.num_members,
                *map(_with_interval, accuracies),
                size.softmax_robustness["published"],
                size.softmax_robustness["corrected"],
            )
        )
    header: tuple[str, ...] = ("radius", "model", "members S", "clean")
    header += tuple(f"{suite} {_NAMES[attack]}" for suite, attack in ATTACKS)
    header += ("softmax robustness, published", "softmax robustness, corrected")
    return Table(
        "Accuracy, %, by number of members",
        header,
        tuple(rows),
        "95 % Wilson intervals over test images. The attacker knows all members. strong worst "
        "case: images that withstand the strong suite and every other attack here. Softmax "
        "robustness is under PGD of that suite and by its metric; the published one cannot "
        "fall below 0.853.",
    )


def _claims(sizes: Sequence[Size], setting: str, is_paper_network: bool) -> list[Claim]:
    radii = _radii(sizes)
    # The paper's radius where it was attacked; else the largest, and the note says so.
    epsilon = _PAPER_RADIUS if _PAPER_RADIUS in radii else radii[-1]
    first, last = _ends(sizes, epsilon)
    table, claims = PAPER_TABLES["table2_mnist"].models, []
    for size, name in ((first, "deterministic"), (last, "ensemble")):
        if (size.num_members == 1) != (name == "deterministic"):
            continue
        paper, is_same = table[name], is_paper_network and epsilon == _PAPER_RADIUS
        clean, worst = (100 * _share(a) for a in (size.clean, size.correct["strong/worst"]))
        rows: list[tuple[str, float, float, float, float | None]] = [
            ("accuracy", paper.accuracy, clean, clean, None)
        ]
        for attack, value in paper.attacks.items():
            published, corrected = (
                100 * _share(size.correct[f"{p}/{attack}"]) for p in ("published", "corrected")
            )
            rows.append((f"accuracy under {_NAMES[attack]}", value, published, corrected, worst))
        for quantity, value, published, corrected, strong in rows:
            printed = round(100 * value, 2)
            members = "1 member" if size.num_members == 1 else f"{size.num_members} members"
            note = f"ours: {members}, {len(size.clean)} images"
            if not is_same:
                # Beside another network's number the paper's would mislead.
                note += (
                    f"; {setting}, radius {epsilon:g}. The paper's ConvNet on MNIST, radius "
                    f"{_PAPER_RADIUS:g}: {printed:g} %"
                )
            claims.append(
                Claim(
                    f"Table 2 by ensemble size, {paper.name}",
                    quantity,
                    printed if is_same else None,
                    published,
                    corrected,
                    strong,
                    note=note,
                )
            )
    return claims


def _verdicts(first: Size, last: Size) -> list[Verdict]:
    verdicts: list[Verdict] = []
    if first.num_members == last.num_members:
        return verdicts
    for suite, attack in ATTACKS:
        name = f"{suite}/{attack}"
        change = Change(*paired_difference(first.correct[name], last.correct[name]))
        inside = change.low >= -_COMPARABLE and change.high <= _COMPARABLE
        outside = change.low > _COMPARABLE or change.high < -_COMPARABLE
        verdicts.append(
            Verdict(
                f"Ensembles are as robust as one network (within 5 points): {suite} "
                f"{_NAMES[attack]}, radius {first.epsilon:g}",
                f"{last.num_members} members against {first.num_members}: {change}",
                True if inside else False if outside else None,
            )
        )
    return verdicts


def _record(size: Size) -> dict[str, Any]:
    accuracies = {"clean": size.clean, **size.correct}
    return {
        "epsilon": size.epsilon,
        "num_members": size.num_members,
        "num_images": len(size.clean),
        "accuracy": {name: _share(correct) for name, correct in accuracies.items()},
        "intervals": {name: list(_interval(correct)) for name, correct in accuracies.items()},
        "softmax_robustness": size.softmax_robustness,
        "zero_gradient_share": size.zero_gradient_share,
    }


def _changes(first: Size, last: Size) -> list[dict[str, Any]]:
    """Return how many images the largest ensemble gains and loses: what verdicts are made of."""
    return [
        {
            "epsilon": first.epsilon,
            "num_members": [first.num_members, last.num_members],
            "attack": name,
            "gained": int((last.correct[name] & ~first.correct[name]).sum()),
            "lost": int((first.correct[name] & ~last.correct[name]).sum()),
        }
        for name in map("/".join, ATTACKS)
    ]


def _radii(sizes: Sequence[Size]) -> list[float]:
    return sorted({size.epsilon for size in sizes})


def _ends(sizes: Sequence[Size], epsilon: float) -> tuple[Size, Size]:
    """Return the smallest and the largest ensemble of a radius."""
    own = [size for size in sizes if size.epsilon == epsilon]
    return own[0], own[-1]


def _panel(ax: Axes, sizes: Sequence[Size], suite: str, colour: str) -> None:
    members = [size.num_members for size in sizes]
    _curve(ax, members, [size.clean for size in sizes], style.CLEAN_COLOUR, "clean", "-")
    for name, attack in ATTACKS:
        if name == suite:
            correct = [size.correct[f"{suite}/{attack}"] for size in sizes]
            line = "--" if attack == "fgsm" else "-"
            label = "worst case" if attack == "worst" else f"{suite} {_NAMES[attack]}"
            _curve(ax, members, correct, colour, label, line)
    ax.set_xscale("log")
    ax.set_xticks(members, labels=[str(count) for count in members])
    ax.minorticks_off()
    ax.set_ylim(-3, 103)
    ax.grid(color=style.GRID, linewidth=0.5)


def _curve(
    ax: Axes, members: list[int], correct: list[np.ndarray], colour: str, label: str, line: str
) -> None:
    shares = np.array([_share(each) for each in correct])
    ends = np.array([_interval(each) for each in correct])
    if label != "clean":
        ax.axhspan(*(100 * ends[0]), color=style.GRID, alpha=0.5, linewidth=0, zorder=0)
    ax.errorbar(
        members,
        100 * shares,
        yerr=100 * np.abs(ends - shares[:, None]).T,
        color=colour,
        linestyle=line,
        marker="o" if line == "-" else "v",
        markersize=3.2,
        elinewidth=0.8,
        capsize=1.5,
        label=label,
        clip_on=False,
    )


def _share(correct: np.ndarray) -> float:
    return float(np.mean(correct))


def _interval(correct: np.ndarray) -> tuple[float, float]:
    return wilson_interval(_share(correct), len(correct))


def _with_interval(correct: np.ndarray) -> str:
    low, high = _interval(correct)
    return f"{100 * _share(correct):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
