from __future__ import annotations

import base64
import copy
import math
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bnn_adv.report import render_html, write_report
from experiments.launch.paper import list_paper_tables

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects what the tests ask of a page and checks that its elements nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    @property
    def flat(self) -> str:
        return " ".join(self.text.split())

    def pictures(self) -> list[bytes]:
        sources = [attrs["src"] or "" for tag, attrs in self.tags if tag == "img"]
        prefix = "data:image/png;base64,"
        assert all(source.startswith(prefix) for source in sources)
        return [base64.b64decode(source.removeprefix(prefix), validate=True) for source in sources]


def write(tmp_path: Path, results: Any, examples: Any = ()) -> Page:
    path = write_report(tmp_path / "run", results, examples)
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_attacks_of_an_evaluation_are_a_suite(tmp_path: Path, make_results: Any) -> None:
    page = write(tmp_path, make_results())
    assert "Suites" in page.text
    assert "protocol" not in page.text.lower()


@pytest.mark.slow
def test_a_report_is_one_file_with_valid_pictures(
    tmp_path: Path, make_results: Any, make_images: Any
) -> None:
    page = write(tmp_path, make_results(), make_images())
    pictures = page.pictures()
    written = {path.name: path.read_bytes() for path in (tmp_path / "run/figures").iterdir()}
    assert set(written) == {"accuracy.png", "examples.png", "training.png"}
    assert set(pictures) == set(written.values())
    for picture in pictures:
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert picture.endswith(b"IEND\xaeB`\x82")
        width, height = struct.unpack(">II", picture[16:24])
        assert 600 < width < 4000
        assert 200 < height < 4000
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["figures", "report.html"]


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(
    tmp_path: Path, make_results: Any, make_images: Any
) -> None:
    page = write(tmp_path, make_results(), make_images())
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        assert "href" not in attrs
        assert not any(name.startswith("on") for name in attrs)
        assert (attrs.get("src") or "data:").startswith("data:")
    text = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(|@import", text)


def test_every_accuracy_stands_in_the_page_with_its_interval(
    make_results: Any, shown_accuracies: Any
) -> None:
    results = make_results()
    page = Page(render_html(results, {}))
    for accuracy in shown_accuracies(results):
        assert accuracy in page.flat, accuracy
    strong = results["rows"][2]["protocols"]["strong"]
    assert strong["pgd_mean_logit_margin"] == 0.012
    assert "1.2 [0.6, 2.6]" in page.flat


def test_the_page_holds_warnings_paper_settings_and_command(make_results: Any) -> None:
    results = make_results()
    page = Page(render_html(results, {}, extra=list_paper_tables(results)))
    assert "2 warnings" in page.flat
    # Warnings and summary come before any number.
    assert page.flat.index("2 warnings") < page.flat.index("Accuracy under attack")
    assert "vi: the published robustness is an artefact" in page.flat
    for text in ("97.69", "89.8", "hmc.num_draws", "0.10.2", "max rhat", "energy error.max"):
        assert text in page.flat
    assert "python -m experiments.compare --preset=table2_mnist" in page.flat


def test_cells_fill_the_lines_of_every_table(make_results: Any) -> None:
    results = make_results()
    page = render_html(results, {}, extra=list_paper_tables(results))
    for table in re.findall(r'<table class="results">.*?</table>', page, re.S):
        rows = re.findall(r"<tr.*?</tr>", table, re.S)
        columns = rows[0].count("<th")
        pending: dict[int, int] = {}
        for row in rows[1:]:
            spans = [int(n) for n in re.findall(r'rowspan="(\d+)"', row)]
            cells = len(re.findall(r"<t[hd]", row))
            assert cells + sum(left > 0 for left in pending.values()) == columns
            pending = {i: left - 1 for i, left in pending.items() if left > 1}
            pending |= {len(pending) + i: span - 1 for i, span in enumerate(spans) if span > 1}


def test_all_text_is_escaped(make_results: Any) -> None:
    bad = '<script>alert("1")</script>'
    results = poison(make_results(), bad)
    text = render_html(results, {}, {}, extra=list_paper_tables(results))
    assert "<script" not in text
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.flat.count(bad) > 10
    png = make_png()
    text = render_html(results, {bad: png}, {bad: bad + '" onload="1'})
    assert "<script" not in text
    assert not any("onload" in attrs for _, attrs in Page(text).tags)


def test_gaps_are_not_available(make_results: Any) -> None:
    results = make_results()
    results["rows"] = results["rows"][:1]
    numbers = results["rows"][0]["protocols"]["published"]
    numbers["pgd"], numbers["zero_gradient_share"] = math.nan, None
    results["rows"][0]["diagnostics"] = {"warnings": None, "max_rhat": None, "min_ess": math.nan}
    page = Page(render_html(results, {}))
    assert page.flat.count("n/a") >= 4
    assert "raised no warning" in page.flat
    assert "nan" not in page.flat.lower().replace("nant", "")


@pytest.mark.parametrize("results", [{}, {"rows": []}, {"rows": [{"model": "vi"}]}])
def test_almost_empty_runs_have_a_report(tmp_path: Path, results: dict[str, Any]) -> None:
    assert "Adversarial robustness" in write(tmp_path, results).flat


@pytest.mark.slow
def test_points_get_their_own_caption(tmp_path: Path, make_results: Any, make_points: Any) -> None:
    page = write(tmp_path, make_results() | {"dataset": "half_moons"}, make_points())
    assert "half moons" in page.flat
    assert "arrows lead to the adversarial ones" in page.flat


@pytest.mark.slow
def test_writing_again_replaces_the_report(tmp_path: Path, make_results: Any) -> None:
    first = write_report(tmp_path, make_results()).read_bytes()
    assert write_report(tmp_path, make_results()).read_bytes() == first


@pytest.mark.slow
def test_the_results_are_left_as_they_are(
    tmp_path: Path, make_results: Any, make_images: Any
) -> None:
    results = make_results()
    before = copy.deepcopy(results)
    write_report(tmp_path, results, make_images(count=1))
    assert results == before


def test_what_is_no_picture_is_refused(make_results: Any) -> None:
    with pytest.raises(ValueError, match="not a PNG"):
        render_html(make_results(), {"accuracy": b"GIF89a"})


def test_another_schema_version_is_refused(tmp_path: Path, make_results: Any) -> None:
    with pytest.raises(ValueError, match="schema version"):
        write_report(tmp_path, make_results() | {"schema_version": 2})
    assert list(tmp_path.iterdir()) == []


def make_png() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 10, 10)


def poison(value: Any, text: str) -> Any:
    """Put ``text`` behind every string and every free key."""
    if isinstance(value, str):
        return value if value in ("table2_mnist", "linf") else f"{value}{text}"
    if isinstance(value, list):
        return [poison(item, text) for item in value]
    if isinstance(value, dict):
        free = {"config", "environment", "diagnostics", "seconds"}
        return {
            key: {f"{k}{text}": poison(v, text) for k, v in item.items() if k != "warnings"}
            | {k: poison(v, text) for k, v in item.items() if k == "warnings"}
            if key in free and isinstance(item, dict)
            else poison(item, text)
            for key, item in value.items()
        }
    return value
