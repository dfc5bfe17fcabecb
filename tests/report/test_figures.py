from __future__ import annotations

import itertools
import math
import struct
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from bnn_adv.report import accuracy_figure, examples_figure, training_figure
from bnn_adv.report.style import to_png


def texts(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def clashes(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that are drawn over each other or beyond the edge of the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    # Ticks outside the limits keep a label that is never drawn.
    unseen = {
        label
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for tick in axis.get_major_ticks() + axis.get_minor_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        or not ax.get_visible()
        for label in (tick.label1, tick.label2)
    }
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in unseen
    ]
    (width, height), slack = figure.bbox.size, 1.0
    cut = [
        (name, "the edge")
        for name, box in boxes
        if min(box.x0, box.y0) < -slack or box.x1 > width + slack or box.y1 > height + slack
    ]
    return cut + [
        (name, other)
        for (name, box), (other, box2) in itertools.combinations(boxes, 2)
        if box.shrunk(0.9, 0.8).overlaps(box2.shrunk(0.9, 0.8)) and box.width and box2.width
    ]


def test_the_accuracy_figure_shows_every_value_at_its_place(make_results: Any) -> None:
    figure = accuracy_figure(make_results())
    shown = texts(figure)
    assert figure is not None
    for value in ("97.6", "92.0", "67.0", "93.8", "2.2"):
        assert value in shown
    vi = figure.axes[2]
    points = {
        tuple(np.round(np.asarray(line.get_xydata())[0], 6).tolist())
        for line in vi.lines
        if line.get_marker() == "o"
    }
    # (value, height): line 2 is the published PGD, line 5 the strong worst case; fresh draws below.
    assert {(92.0, 1.8), (93.8, 2.2), (0.0, 4.8), (2.2, 5.2)} <= points
    bars = [line.get_xdata() for line in vi.lines if line.get_marker() in ("None", "")]
    assert any(np.allclose(bar, (87.06, 92.33), atol=0.01) for bar in bars)


def test_missing_numbers_leave_gaps(make_results: Any) -> None:
    results = make_results()
    results["rows"] = results["rows"][2:3]
    numbers = results["rows"][0]["protocols"]["published"]
    numbers["fgsm"], numbers["intervals"]["pgd"] = math.nan, None
    shown = texts(accuracy_figure(results))
    assert "90.0" not in shown
    assert "92.0" in shown


@pytest.mark.parametrize("draw", [accuracy_figure, training_figure])
def test_a_run_without_models_has_no_figure(draw: Any) -> None:
    assert draw({"rows": []}) is None


@pytest.mark.slow
@pytest.mark.parametrize("draw", [accuracy_figure, training_figure])
def test_labels_do_not_overlap(draw: Any, make_results: Any) -> None:
    assert clashes(draw(make_results())) == []


@pytest.mark.parametrize("models", [slice(2, 3), slice(1, 3)])
def test_a_figure_of_few_models_holds_its_label(models: slice, make_results: Any) -> None:
    results = make_results()
    results["rows"] = results["rows"][models]
    figure = accuracy_figure(results)
    assert "hollow: fresh draws" in " ".join(" ".join(texts(figure)).split())
    assert clashes(figure) == []


def test_overlaps_would_be_found() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "here")
    figure.text(0.51, 0.5, "there")
    figure.text(0.97, 0.1, "beyond")
    assert clashes(figure) == [("beyond", "the edge"), ("here", "there")]


@pytest.mark.slow
@pytest.mark.parametrize("draw", [accuracy_figure, training_figure])
def test_labels_do_not_overlap_for_many_long_names(draw: Any, make_results: Any) -> None:
    results = make_results()
    results["rows"] = [
        row | {"model": f"{row['model']}_with_a_rather_long_name_{i}"}
        for i in range(2)
        for row in results["rows"]
    ][:6]
    figure = draw(results)
    assert figure is not None
    assert clashes(figure) == []


def test_the_elbo_is_drawn_negative_and_chains_apart(make_results: Any) -> None:
    results = make_results()
    figure = training_figure(results)
    assert figure is not None
    vi, hmc = figure.axes[2:]
    elbo = results["rows"][2]["diagnostics"]["elbo"]
    np.testing.assert_allclose(vi.lines[0].get_ydata(), [-value for value in elbo])
    assert vi.get_ylabel() == "negative ELBO (nats)"
    assert len(hmc.lines) == 2


@pytest.mark.parametrize(
    "curve", [None, [], "text", {"a": 1}, [math.nan], [None], [[1.0], [1.0, 2.0]], 3.0]
)
def test_what_is_no_curve_is_left_out(curve: object) -> None:
    row = {"model": "vi", "diagnostics": {"loss": curve}}
    assert training_figure({"rows": [row]}) is None


@pytest.mark.parametrize("curve", [[1.0], [1.0, math.nan, 0.5], [0.0, 0.0], [-3.0, 1e9]])
def test_odd_curves_are_drawn(curve: list[float]) -> None:
    figure = training_figure({"rows": [{"model": "vi", "diagnostics": {"loss": curve}}]})
    assert figure is not None
    assert min(size(to_png(figure, dpi=50))) > 50


@pytest.mark.slow
def test_dollars_are_text_and_not_formulas(make_results: Any) -> None:
    results = make_results()
    results["rows"][0]["model"] = r"$\frac$"
    for figure in (accuracy_figure(results), training_figure(results)):
        assert figure is not None
        to_png(figure, dpi=50)


def test_examples_state_label_predictions_attack_and_scale(make_images: Any) -> None:
    figure = examples_figure(make_images(), epsilon=0.3)
    shown = texts(figure)
    assert {"label 0", "no. 17", "clean: 0 (99 %)", "adv.: 3 (87 %)"} <= set(shown)
    assert "withstood all" in shown
    assert {"-0.3", "+0.3"} <= set(shown)


def test_images_show_what_they_should(make_images: Any) -> None:
    examples = make_images(("vi",), count=1)
    figure = examples_figure(examples, epsilon=0.3)
    assert figure is not None
    clean, adversarial, change = (ax.images[0].get_array() for ax in figure.axes[:3])
    np.testing.assert_allclose(clean, examples[0].clean[..., 0])
    np.testing.assert_allclose(adversarial, examples[0].adversarial[..., 0])
    np.testing.assert_allclose(change, (examples[0].adversarial - examples[0].clean)[..., 0])
    assert figure.axes[2].images[0].get_clim() == (-0.3, 0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "examples",
    [
        lambda images, points: images(count=2),
        lambda images, points: images(count=2, channels=3),
        lambda images, points: images(("vi",), count=1),
        lambda images, points: images()[:-1],
        lambda images, points: points(),
    ],
    ids=["grey", "colour", "one", "gap", "points"],
)
def test_labels_of_examples_do_not_overlap(
    examples: Any, make_images: Any, make_points: Any
) -> None:
    figure = examples_figure(examples(make_images, make_points))
    assert figure is not None
    assert clashes(figure) == []


def test_no_more_images_than_asked_for(make_images: Any) -> None:
    figure = examples_figure(make_images(count=5), max_inputs=2)
    assert sum(text.startswith("label") for text in texts(figure)) == 2


def test_no_examples_and_other_shapes_have_no_figure(make_points: Any) -> None:
    assert examples_figure([]) is None
    assert examples_figure([_with_shape(make_points(1)[0], (5,))]) is None


def test_mixed_shapes_are_refused(make_points: Any) -> None:
    example = make_points(1)[0]
    with pytest.raises(ValueError, match="one shape"):
        examples_figure([_with_shape(example, (2,)), _with_shape(example, (4, 4))])


@pytest.mark.slow
def test_drawing_leaves_no_trace_and_needs_no_display(make_results: Any) -> None:
    before = dict(mpl.rcParams)
    figure = accuracy_figure(make_results())
    assert figure is not None
    png = to_png(figure, dpi=60)
    assert dict(mpl.rcParams) == before
    again = accuracy_figure(make_results())
    assert again is not None
    assert to_png(again, dpi=60) == png


def _with_shape(example: Any, shape: tuple[int, ...]) -> Any:
    return type(example)(
        **(vars(example) | {"clean": np.zeros(shape), "adversarial": np.zeros(shape)})
    )
