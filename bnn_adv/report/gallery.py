"""Figures of single inputs: what the attack changed and what the model then predicts."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bnn_adv.report import style, wording
from bnn_adv.report.examples import Example
from bnn_adv.report.points import draw_points


def examples_figure(
    examples: Sequence[Example], *, epsilon: float | None = None, max_inputs: int = 8
) -> Figure | None:
    """Draw examples: images as a grid, points of the plane as arrows.

    Args:
      examples: In any order; one row an input, in order of first appearance.
      epsilon: End of the colour scale of perturbations; None takes the largest that occurs.
      max_inputs: Images shown at most; points are all shown.

    Returns:
      The figure; None where there is no example or the inputs are neither images nor points.

    Raises:
      ValueError: The examples have different shapes.
    """
    examples = [
        dataclasses.replace(
            example, clean=_as_image(example.clean), adversarial=_as_image(example.adversarial)
        )
        for example in examples
    ]
    shapes = {array.shape for e in examples for array in (e.clean, e.adversarial)}
    if len(shapes) > 1:
        raise ValueError(f"Examples must share one shape, got {sorted(shapes)}.")
    if not shapes:
        return None
    shape = shapes.pop()
    with style.paper_style():
        if shape == (2,):
            return draw_points(examples)
        if len(shape) == 3 and shape[-1] in (1, 3):
            return _draw_images(examples, epsilon or _largest_change(examples), max_inputs)
    return None


def _largest_change(examples: Sequence[Example]) -> float:
    return max(float(np.abs(e.adversarial - e.clean).max()) for e in examples) or 1.0


def _as_image(array: Any) -> np.ndarray:
    array = np.asarray(array, dtype=float)
    found: np.ndarray = array[..., None] if array.ndim == 2 else array
    return found


def _draw_images(examples: Sequence[Example], limit: float, max_inputs: int) -> Figure:
    models = list(dict.fromkeys(example.model for example in examples))
    inputs = list(dict.fromkeys(example.index for example in examples))[:max_inputs]
    found = {(example.index, example.model): example for example in examples}
    is_grey = examples[0].clean.shape[-1] == 1

    num_columns = 1 + 2 * len(models)
    size = 1.02
    figure = Figure(
        figsize=(0.25 + size * num_columns + (0.65 if is_grey else 0.0), 0.55 + 1.32 * len(inputs)),
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.06, wspace=0.0, hspace=0.02),
    )
    axes = figure.subplots(len(inputs), num_columns, squeeze=False)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_anchor("N")
        for spine in ax.spines.values():
            spine.set_visible(False)
    mappable = None
    for row, index in zip(axes, inputs, strict=True):
        first = next(example for example in examples if example.index == index)
        _show(row[0], first.clean)
        _note(row[0], 0, f"label {first.label}")
        _note(row[0], 1, f"no. {first.index:,}", color=style.MUTED)
        for number, model in enumerate(models):
            example = found.get((index, model))
            if example is not None:
                mappable = _draw_pair(row[1 + 2 * number : 3 + 2 * number], example, limit)
    _head(axes[0], models)
    if is_grey and mappable is not None:
        bar = figure.colorbar(
            mappable, ax=axes, shrink=min(0.7, 2.2 / len(inputs)), aspect=14, pad=0.015
        )
        bar.set_label("change of pixel value (of 1)", fontsize=7.0)
        bar.set_ticks([-limit, 0, limit], labels=[f"{-limit:.2g}", "0", f"+{limit:.2g}"])
        bar.outline.set_visible(False)
    elif not is_grey:
        figure.supxlabel(
            f"perturbation: grey is 0, black -{limit:.2g}, white +{limit:.2g}", fontsize=7.0
        )
    return figure


def _draw_pair(row: Sequence[Axes], example: Example, limit: float) -> Any:
    image, change = row
    _show(image, example.adversarial)
    before = _guess(example.clean_prediction, example.clean_probability)
    after = _guess(example.adversarial_prediction, example.adversarial_probability)
    _note(image, 0, f"clean: {before}", is_wrong=example.clean_prediction != example.label)
    _note(image, 1, f"adv.: {after}", is_wrong=example.adversarial_prediction != example.label)
    attack = wording.format_attack(example.attack) if example.attack else "withstood all"
    for number, words in enumerate(textwrap.wrap(attack, 17, max_lines=2, placeholder=" …")):
        _note(change, number, style.plain(words), color=style.MUTED)
    delta = example.adversarial - example.clean
    if delta.shape[-1] == 1:
        return change.imshow(delta[..., 0], cmap="PuOr", vmin=-limit, vmax=limit)
    return change.imshow(np.clip(0.5 + delta / (2 * limit), 0, 1))


def _head(row: Sequence[Axes], models: Sequence[str]) -> None:
    row[0].set_title("clean", fontsize=8.0, fontweight="normal")
    for number, model in enumerate(models):
        name = style.wrap(model, 13)
        row[1 + 2 * number].set_title(name, fontsize=8.0)
        row[2 + 2 * number].set_title(
            "perturbation", fontsize=7.5, fontweight="normal", color=style.MUTED
        )


def _note(
    ax: Axes, number: int, text: str, *, is_wrong: bool = False, color: str = style.INK
) -> None:
    ax.annotate(
        text,
        (0.5, 0.0),
        (0, -4 - 9 * number),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=6.8,
        color=style.WRONG_COLOUR if is_wrong else color,
        fontweight="bold" if is_wrong else "normal",
    )


def _show(ax: Axes, image: np.ndarray) -> None:
    if image.shape[-1] == 1:
        ax.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
    else:
        ax.imshow(np.clip(image, 0, 1))


def _guess(prediction: int, probability: float) -> str:
    return f"{prediction} ({_percent(probability)} %)"


def _percent(probability: float) -> str:
    number = wording.to_number(probability)
    return wording.NOT_AVAILABLE if number is None else f"{100 * number:.0f}"
