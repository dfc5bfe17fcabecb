"""The page of the zoo: whole, escaped, and with the numbers of its records."""

import dataclasses
import re

import pytest

from bnn_adv.report.wording import Measured
from experiments.zoo.figures import bracket_figure, training_colours
from experiments.zoo.page import COLUMNS, render_zoo
from experiments.zoo.record import RadiusRecord
from tests.experiments.zoo.made_up import BARE, make_record, make_records
from tests.experiments.zoo.parsing import parse

RECORDS = make_records()
LINES = [(record, radius) for record in RECORDS for radius in record.radii or (None,)]


@pytest.fixture(scope="module")
def text():
    return render_zoo(RECORDS, title="Zoo", summary="In short.", command="python -m experiments")


@pytest.fixture(scope="module")
def page(text):
    return parse(text)


def rows_of(page):
    (table,) = page.find("table", id="posteriors")
    (body,) = table.find("tbody")
    return [row.children for row in body.find("tr")]


def test_the_page_needs_nothing_else(page, text):
    for element in page.all:
        assert element.tag not in ("link", "iframe", "object", "base", "embed")
        assert not any(name.startswith("on") for name in element.attrs)
        assert element.attrs.get("href", "#").startswith("#")
        assert element.attrs.get("src", "data:").startswith("data:image/png;base64,") or (
            "src" not in element.attrs
        )
    assert not re.search(r"https?://|url\(|@import|fetch\(|eval\(|innerHTML", text)
    (policy,) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attrs["content"].startswith("default-src 'none'; img-src data:;")
    assert len(page.find("script")) == 1


def test_links_lead_somewhere_and_controls_have_names(page):
    identities = [element.attrs["id"] for element in page.all if "id" in element.attrs]
    assert len(set(identities)) == len(identities)
    for link in page.find("a"):
        assert link.attrs["href"].removeprefix("#") in identities
    for element in page.all:
        for name in ("aria-labelledby",):
            assert element.attrs.get(name, identities[0]) in identities
    (form,) = page.find("form")
    labels = form.find("label")
    controls = [*form.find("select"), *form.find("input")]
    assert len(labels) == len(controls) == 5
    assert all(label.find("select") or label.find("input") for label in labels)
    # Until a script makes them do something.
    assert "hidden" in form.attrs
    assert not page.find("thead")[0].find("button")
    heads = page.find("table", id="posteriors")[0].find("thead")[0].find("th")
    assert [head.words for head in heads] == [column.name for column in COLUMNS]
    assert all(head.attrs["scope"] == "col" for head in heads)


def test_filters_offer_what_there_is(page):
    offered = {
        select.attrs["name"]: [option.attrs["value"] for option in select.find("option")]
        for select in page.find("select")
    }
    assert offered == {
        "dataset": ["", "digits", "fashion_mnist", "mnist"],
        "method": ["", "ensemble", "laplace", "mcmc", "sgd", "vi"],
        "training": ["", "adversarial", "interval", "standard"],
        "radius": ["", "linf 0.05", "linf 0.1", "linf 0.3"],
    }


def expected(record, radius):
    """Return (text, number) by column, written down again."""

    def share(measured):
        if measured.value is None:
            return "not measured", None
        value, (low, high) = 100 * measured.value, (100 * end for end in measured.interval)
        return f"{value:.1f} [{low:.1f}, {high:.1f}]", measured.value

    found = dict.fromkeys(("radius", "clean %", "certified %"), ("not measured", None))
    found |= dict.fromkeys(("strong attack %", "published attack %"), ("not measured", None))
    found |= dict.fromkeys(("fresh draws %", "mean of weights %"), ("not measured", None))
    found |= dict.fromkeys(("training time", "evaluation time"), ("not measured", None))
    found |= dict.fromkeys(("AUROC detection", "AUROC shift"), ("not measured", None))
    found["signs of masking"] = ("not measured", None)
    if radius is None:
        return found
    found["radius"] = (f"linf {radius.epsilon:g}", radius.epsilon)
    found["clean %"] = share(record.accuracy)
    found["certified %"] = share(radius.certified)
    found["strong attack %"] = share(radius.attacked)
    found["published attack %"] = share(radius.published)
    found["fresh draws %"] = share(radius.fresh)
    found["mean of weights %"] = share(radius.mean_weights)
    for task, auroc in (("detection", record.aurocs[0]), ("shift", record.aurocs[2])):
        assert auroc.task == task
        attacked = auroc.attacked.value
        found[f"AUROC {task}"] = (f"{attacked:.3f} clean {auroc.clean.value:.3f}", attacked)
    count = len(record.masking)
    found["signs of masking"] = (str(count or "none"), count)
    found["training time"] = (f"{record.training_seconds:.0f} s", record.training_seconds)
    if record.training_seconds < 100:
        found["training time"] = (f"{record.training_seconds:.1f} s", record.training_seconds)
    found["evaluation time"] = ("12.5 s", 12.5)
    return found


def test_numbers_of_the_table_are_those_of_the_records(page):
    rows = rows_of(page)
    assert len(rows) == len(LINES) == 49
    for cells, (record, radius) in zip(rows, LINES, strict=True):
        by_name = dict(zip([column.name for column in COLUMNS], cells, strict=True))
        draws = "1 draw" if record.num_samples == 1 else f"{record.num_samples} draws"
        assert by_name.pop("posterior").words == f"{record.name} {draws}"
        for name, value in (
            ("data set", record.dataset),
            ("method", record.method),
            ("training", record.training),
            ("chains", "mixed" if record.mixed else "-"),
        ):
            assert by_name.pop(name).words == value
        wanted = expected(record, radius)
        assert by_name.keys() == wanted.keys()
        for name, (shown, number) in wanted.items():
            cell = by_name[name]
            assert cell.words == shown, name
            assert cell.attrs["data-key"] == "" if number is None else True
            assert number is None or float(cell.attrs["data-key"]) == number
            assert ("missing" in cell.attrs["class"]) == (number is None)


def test_each_posterior_has_its_full_record(page):
    for record in RECORDS:
        (article,) = page.find("article", id=f"posterior-{record.name}")
        pairs = {
            row.find("th")[0].words: row.find("td")[0].words
            for table in article.find("table")
            if table.attrs["class"] == "pairs"
            for row in table.find("tr")
        }
        bare = record is BARE
        assert pairs["seed"] == str(record.seed)
        assert pairs["hardware"] == record.hardware
        assert pairs["network"] == record.network
        assert pairs["chains"] == ("mixed" if record.mixed else "not judged")
        assert (pairs["clean accuracy %"] == "not measured") == bare
        assert (pairs["training time"] == "not measured") == bare
        assert (pairs["signs of masking"] == "not measured") == bare
        assert (pairs["evaluation time"] == "12.5 s") != bare
        if not bare and record.masking:
            assert pairs["signs of masking"] == "zero gradients, black box stronger"
        assert ("these draws" in pairs) == (record.training == "interval")
        assert [block.words for block in article.find("pre")] == [record.command]
        assert all(remark in article.words for remark in record.remarks)
        if not bare:
            heads, *lines = article.find("table")[0].find("tr")
            assert heads.words == (
                "radius inputs certified % strong attack % published attack % fresh draws % "
                "mean of weights %"
            )
            for line, radius in zip(lines, record.radii, strict=True):
                shares = (radius.certified, radius.attacked, radius.published, *radius[6:])
                shown = [str(share).replace("n/a", "not measured") for share in shares]
                assert [cell.words for cell in line.children] == [
                    f"linf {radius.epsilon:g}",
                    "1,000",
                    *shown,
                ]
        for auroc in record.aurocs:
            low, high = auroc.attacked.interval
            assert f"{auroc.attacked.value:.3f} [{low:.3f}, {high:.3f}]" in article.words
            assert auroc.score.replace("_", " ") in article.words


def test_what_was_not_measured_is_no_zero():
    page = parse(render_zoo([BARE], title="Zoo"))
    (cells,) = rows_of(page)
    words = dict(zip([column.name for column in COLUMNS], [c.words for c in cells], strict=True))
    assert words.pop("chains") == "-"
    assert list(words.values())[4:] == ["not measured"] * 12
    (article,) = page.find("article")
    assert "Within a radius nothing was measured." in article.words
    assert "0.0" not in page.find("main")[0].find("section")[0].find("tbody")[0].words
    assert not page.find("img")
    lost = dataclasses.replace(make_record("mnist", "vi", "interval"), mixed=False)
    assert "not mixed" in parse(render_zoo([lost], title="Zoo")).words


def test_every_text_is_escaped():
    evil = "</script><script>alert('x')</script><img src=x onerror=alert(1)> \"'&amp; ${1} $x$"
    record = dataclasses.replace(
        make_record("mnist", "vi", "interval"),
        **dict.fromkeys(("dataset", "method", "training", "network"), evil),
        **dict.fromkeys(("command", "hardware", "shipped"), evil),
        masking=(evil,),
        remarks=(evil,),
    )
    radii = tuple(radius._replace(norm=evil) for radius in record.radii)
    aurocs = tuple(a._replace(score=evil, other=evil) for a in record.aurocs)
    record = dataclasses.replace(record, radii=radii, aurocs=aurocs)
    page = parse(render_zoo([record], title=evil, summary=evil, command=evil))
    assert len(page.find("script")) == 1
    assert "alert" not in page.find("script")[0].text
    assert all(image.attrs["src"].startswith("data:") for image in page.find("img"))
    assert not [e for e in page.all if any(name.startswith("on") for name in e.attrs)]
    flat = " ".join(evil.split())
    assert page.find("h1")[0].words == flat
    assert page.find("option")[1].attrs["value"] == evil
    cells = rows_of(page)[0]
    assert [cells[number].words for number in (1, 2, 3)] == [flat] * 3
    assert page.words.count(flat) >= 12


def test_two_posteriors_of_one_name_are_refused():
    with pytest.raises(ValueError, match="one name: digits_bare"):
        render_zoo([BARE, BARE], title="Zoo")


def bars(ax):
    """Return the ends of the thick bars of a panel by place."""
    return {
        line.get_ydata()[0]: tuple(line.get_xdata())
        for line in ax.lines
        if line.get_linewidth() == 4
    }


def test_bars_go_from_what_is_certified_to_what_attacks_leave():
    figure = bracket_figure(RECORDS)
    panels = {(record.dataset, radius.epsilon) for record, radius in LINES if radius}
    drawn = [ax for ax in figure.axes if ax.axison]
    assert len(drawn) == len(panels) == 4
    for ax, (name, epsilon) in zip(
        drawn,
        [("mnist", 0.1), ("mnist", 0.3), ("fashion_mnist", 0.05), ("fashion_mnist", 0.1)],
        strict=True,
    ):
        assert ax.get_title().startswith(f"{name}, ")
        assert ax.get_title().endswith(f"{epsilon:g}")
        own = [record for record in RECORDS if record.dataset == name]
        assert bars(ax) == {
            place: (100 * radius.certified.value, 100 * radius.attacked.value)
            for place, record in enumerate(own)
            for radius in record.radii
            if radius.epsilon == epsilon
        }


def test_a_side_that_was_not_measured_has_no_mark_and_no_bar():
    radius = RadiusRecord("linf", 0.1, 10, attacked=Measured(0.5))
    record = dataclasses.replace(BARE, radii=(radius,))
    (ax,) = bracket_figure([record]).axes
    assert bars(ax) == {}
    assert [line.get_xdata().tolist() for line in ax.lines] == [[50.0]]
    assert bracket_figure([BARE]) is None
    assert bracket_figure([]) is None


def test_kinds_of_training_have_their_own_colours():
    others = [dataclasses.replace(BARE, name=f"p{i}", training=f"new{i}") for i in range(3)]
    colours = training_colours([*RECORDS, *others])
    assert list(colours) == ["standard", "adversarial", "interval", "new0", "new1", "new2"]
    assert len(set(colours.values())) == 6
    assert training_colours([BARE]) == {"standard": colours["standard"]}
