"""What other tools certify, in three tables, a figure and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnn_adv.report import style
from bnn_adv.report.table import Table
from experiments.launch.tables import Plot, Study, Verdict

Record = Mapping[str, Any]

_CLOSE = 1e-4
_ROUNDING = 1e-6
_METHODS = {"ibp": "intervals", "crown": "CROWN", "alpha-crown": "optimised lines"}
_CAPTION = (
    "Smallest lower bound of the differences of the label's logit and another's, on balls around "
    "test images: this package's against auto_LiRPA's, for trained networks and two radii. On the "
    "diagonal both are equal; above it ours is tighter. Right of zero auto_LiRPA certifies, above "
    "zero we do."
)


def build_study(found: Record) -> Study:
    """Return what was found as a study."""
    networks = found["networks"]
    is_compared = all(radius["theirs"] is not None for n in networks for radius in n["radii"])
    plots = (Plot("margins", margins_figure(networks), _CAPTION),) if is_compared else ()
    return Study(
        "What other tools certify",
        _summarise(found, is_compared),
        (_margins_table(networks), _tools_table(found)),
        plots,
        (),
        tuple(_verdicts(found, is_compared)),
        dict(found),
    )


def margins_figure(networks: Sequence[Record]) -> Figure:
    """Draw our margins against auto_LiRPA's, a panel a method."""
    with style.paper_style():
        figure = Figure(figsize=(6.8, 2.7), layout="constrained")
        panels = figure.subplots(1, len(_METHODS))
        for ax, (method, label) in zip(panels, _METHODS.items(), strict=True):
            for network in networks:
                pairs = [(r["theirs"][method], r["ours"][method]) for r in network["radii"]]
                theirs, ours = (np.concatenate(side) for side in zip(*pairs, strict=True))
                ax.plot(theirs, ours, "o", markersize=2.2, label=network["network"], alpha=0.7)
            ends = np.array(ax.get_xlim())
            ax.plot(ends, ends, color=style.GRID, linewidth=0.8, zorder=0)
            ax.axhline(0, color=style.GRID, linewidth=0.5, zorder=0)
            ax.axvline(0, color=style.GRID, linewidth=0.5, zorder=0)
            ax.set_title(label)
            ax.set_xlabel("auto_LiRPA, nats")
        panels[0].set_ylabel("bnn_adv, nats")
        panels[0].legend(frameon=False, loc="upper left")
    return figure


def _gap(radius: Record, method: str) -> np.ndarray:
    """Return our margins less theirs."""
    return np.asarray(radius["ours"][method]) - np.asarray(radius["theirs"][method])


def _margins_table(networks: Sequence[Record]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for network in networks:
        for radius in network["radii"]:
            for method, label in _METHODS.items():
                ours = np.asarray(radius["ours"][method])
                cells: tuple[Any, ...] = (
                    network["network"],
                    f"{radius['epsilon']:g}",
                    label,
                    radius["num_images"],
                    int((ours > 0).sum()),
                )
                if radius["theirs"] is None:
                    rows.append((*cells, "not run", None, None))
                    continue
                gap = _gap(radius, method)
                certified = int((np.asarray(radius["theirs"][method]) > 0).sum())
                rows.append(
                    (*cells, certified, f"{np.median(gap):.1e}", f"{np.abs(gap).max():.1e}")
                )
    header = (
        *("network", "radius", "method", "images", "certified here", "by auto_LiRPA"),
        *("median difference", "largest"),
    )
    return Table(
        "Margins of single networks",
        header,
        tuple(rows),
        "Of images that the network classifies correctly: how many have a positive lower bound of "
        "every difference of logits, and this package's bound less auto_LiRPA's, in nats. Both "
        "bound the same boxes in float64, ours for real arithmetic. Optimised lines: as many "
        "rounds here as iterations of Adam there.",
    )


def _tools_table(found: Record) -> Table:
    rows = [*_lirpa_rows(found), *_jax_rows(found["jax"]["found"]), *_deepbayes_rows(found["trap"])]
    return Table(
        "What public tools certify",
        ("tool", "what was tried", "what was found"),
        tuple(rows),
        "Each was run; what was not tried is not in the table.",
    )


def _lirpa_rows(found: Record) -> list[tuple[str, str, str]]:
    versions = found["networks"][0]["radii"][0].get("versions")
    if versions is None:
        return [("auto_LiRPA", "margins of single networks", "not run: no environment")]
    name = f"auto_LiRPA {versions['auto_LiRPA']}"
    gap = _gaps(found, ("ibp", "crown"))
    return [
        (
            name,
            "margins of single networks by intervals and CROWN",
            f"ours: {_compare(gap)}; no posterior, and no allowance for rounding",
        ),
        (
            name,
            f"PyTorch {versions['torch']}, NumPy {versions['numpy']}",
            "wants PyTorch before 1.13 and NumPy before 2; works with two names of the older "
            "PyTorch put back, and slopes that are not stored sparsely",
        ),
    ]


def _jax_rows(found: Record | None) -> list[tuple[str, str, str]]:
    if found is None:
        return [("jax_verify, immrax", "import; intervals", "not run: no environment")]
    versions = found["versions"]
    imported = found["jax_verify"] or "imports"
    cases = found["immrax"]
    kept = [name for name, case in cases.items() if "refused" not in case]
    refused = {name: case["refused"] for name, case in cases.items() if "refused" in case}
    escape = max((cases[name]["escape"] for name in kept), default=0.0)
    immrax = f"immrax {versions['immrax']}"
    rows = [
        (f"jax_verify {versions['jax_verify']}", f"import under JAX {versions['jax']}", imported),
        (
            immrax,
            f"intervals of {', '.join(kept)}",
            f"values leave them by up to {escape:.0e} of the largest: float32's rounding is not "
            "allowed for"
            if 0 < escape < _ROUNDING
            else f"values leave them by up to {escape:.0e} of the largest",
        ),
    ]
    if refused:
        said = "; ".join(f"{name}: {text}" for name, text in refused.items())
        rows.append((immrax, f"intervals of {', '.join(refused)}", f"refused ({said})"))
    return rows


def _deepbayes_rows(trap: Record) -> list[tuple[str, str, str]]:
    found = trap["deepbayes"]
    if found is None:
        return [("deepbayes", "cases with known answers", "not run: no environment")]
    name = f"deepbayes {found['versions']['deepbayes']}"
    averaged = np.ravel(found["averaged_worst_softmax"])[:3]
    return [
        (
            name,
            "`verifiers.chernoff_bound_verification`: softmax of every draw's worst logits, added "
            "over draws, on two draws",
            f"{_list(averaged)} for classes 0, 1 and 2, so class 0 holds; at x = "
            f"{trap['reached_at']:.2f} in the ball the predictive is {_list(trap['reached'])}: "
            "class 1",
        ),
        (
            name,
            "`probverification.decision_veri_samp`: smallest difference of logits 2 and 0, added "
            "over two draws",
            f"{found['smallest_difference']:.2f}, the value at the box's lower corner, which is "
            f"all that it looks at; {trap['reached_difference']:.2f} is reached in the box",
        ),
        (
            name,
            "`propagate_conv2d` of `verifiers` and of `probverification`: the interval of a "
            "convolution of a single picture",
            "the convolution itself is outside of it, by "
            + " and ".join(f"{value:.2f}" for value in found["convolution_escape"].values())
            + ": the centre is added to ends that hold it already",
        ),
    ]


def _list(values: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _summarise(found: Record, is_compared: bool) -> str:
    trap, sentences = found["trap"], []
    if is_compared:
        gap = _gaps(found, ("crown",))
        sentences.append(f"Lower bounds of margins by CROWN: {_compare(gap)}.")
        sentences.append(
            "With optimised lines auto_LiRPA certifies "
            f"{_count(found, 'theirs')} of them, this package {_count(found, 'ours')}."
        )
    averaged = trap["deepbayes"] and np.ravel(trap["deepbayes"]["averaged_worst_softmax"])[:3]
    reached = trap["reached"]
    sentences.append(
        f"Of two draws that predict class 0 at 0.3, {_list(reached[:2])} for classes 0 and 1 is "
        f"reached within 0.3; this package {'certifies' if trap['certified'] else 'refuses'} it"
        + (f", averages of worst softmaxes say {_list(averaged)}." if averaged is not None else ".")
    )
    return " ".join(sentences)


def _count(found: Record, side: str) -> int:
    return sum(
        int((np.asarray(radius[side]["alpha-crown"]) > 0).sum())
        for network in found["networks"]
        for radius in network["radii"]
    )


def _verdicts(found: Record, is_compared: bool) -> list[Verdict]:
    trap = found["trap"]
    broken = trap["reached"][0] < trap["reached"][1]
    verdicts = [
        Verdict(
            "The two draws are not certified, an input of another class being in the ball",
            f"reached {_list(trap['reached'][:2])}; certified: {trap['certified']}",
            not trap["certified"] if broken else None,
        )
    ]
    if not is_compared:
        return verdicts
    for method, label in list(_METHODS.items())[:2]:
        gap = _gaps(found, (method,))
        verdicts.append(
            Verdict(
                f"No margin is looser than an independent implementation's by 1e-4: {label}",
                _compare(gap),
                bool(gap.min() >= -_CLOSE),
            )
        )
    return verdicts


def _gaps(found: Record, methods: Sequence[str]) -> np.ndarray:
    """Return our margins less theirs, of all networks, radii and images."""
    return np.concatenate(
        [_gap(r, method) for n in found["networks"] for r in n["radii"] for method in methods]
    )


def _compare(gap: np.ndarray) -> str:
    """Return in how many cases both agree, and by how much the others differ."""
    agree = np.abs(gap) <= _CLOSE
    tighter, looser = gap[gap > _CLOSE], gap[gap < -_CLOSE]
    said = f"{agree.sum()} of {len(gap)} equal auto_LiRPA's to {_largest(gap[agree]):.1e} nats"
    if len(tighter):
        said += f", {len(tighter)} tighter (by at most {_largest(tighter):.1e})"
    if len(looser):
        said += f", {len(looser)} looser (by at most {_largest(looser):.1e})"
    return said


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))
