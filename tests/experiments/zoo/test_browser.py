"""The page in a browser: it sorts and filters by mouse and keys, and reads well without a script.

No package brings the browser: where none is installed, these tests are skipped.
"""

import pytest

from experiments.zoo.page import COLUMNS, render_zoo
from tests.experiments.zoo.browser import find_browser, open_browser
from tests.experiments.zoo.made_up import make_records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="needs chromium, or chrome, on the path"),
]

RECORDS = make_records()
COUNT = 49
ROWS = "Array.from(document.querySelectorAll('#posteriors tbody tr'))"
SHOWN = f"{ROWS}.filter(row => row.offsetParent !== null)"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "zoo.html"
    path.write_text(render_zoo(RECORDS, title="Zoo"), "utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(browser, path):
    browser.open(path)
    return browser


def keys_of(tab, number):
    return tab.run(f"{ROWS}.map(row => row.cells[{number}].dataset.key)")


def orders(tab):
    return tab.run(
        "Array.from(document.querySelectorAll('#posteriors thead th'))"
        ".map(head => head.getAttribute('aria-sort'))"
    )


def status(tab):
    return tab.run("document.getElementById('shown').textContent")


def test_columns_sort_both_ways_and_what_is_missing_stands_last(tab):
    for number, column in enumerate(COLUMNS):
        before = keys_of(tab, number)
        is_number = column.kind == "number"
        known = [float(key) if is_number else key for key in before if key]
        for is_descending in (is_number, not is_number):
            tab.run(f"document.querySelectorAll('thead button')[{number}].click()")
            found = keys_of(tab, number)
            own = [float(key) if is_number else key for key in found[: len(known)]]
            assert own == sorted(known, reverse=is_descending), column.name
            assert found[len(known) :] == [""] * (COUNT - len(known)), column.name
            word = "descending" if is_descending else "ascending"
            assert orders(tab) == [word if own is column else None for own in COLUMNS]
            assert status(tab) == f"49 of 49 lines. Sorted by {column.name}, {word}."


def test_ties_stay_in_the_order_of_the_page(tab):
    names = f"{ROWS}.map(row => row.cells[0].dataset.key)"
    first = tab.run(names)
    tab.run("document.querySelectorAll('thead button')[6].click()")
    tab.run("document.querySelectorAll('thead button')[1].click()")
    own = [name for name in first if name.startswith("mnist")]
    assert [name for name in tab.run(names) if name.startswith("mnist")] == own


def test_keys_are_enough_to_sort(tab):
    tab.run("document.querySelector('#filters button').focus()")
    # The table, which scrolls by keys; then the first heading.
    for _ in range(2):
        tab.press("Tab")
    assert tab.run("document.activeElement.textContent") == "posterior"
    tab.press("Tab")
    tab.press("Enter", "\r")
    assert orders(tab)[1] == "ascending"
    tab.press(" ", " ")
    assert orders(tab)[1] == "descending"
    assert tab.run("document.activeElement.textContent") == "data set"
    assert keys_of(tab, 1)[0] == "mnist"


def choose(tab, **values):
    for name, value in values.items():
        tab.run(
            f"(() => {{ const control = document.forms.filters.elements['{name}'];"
            f" control.value = {value!r};"
            " control.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
    return tab.run(f"{SHOWN}.map(row => row.cells[0].dataset.key)")


def test_filters_leave_what_they_name(tab):
    lines = [(r, radius) for r in RECORDS for radius in r.radii or (None,)]

    def names(holds):
        return [record.name for record, radius in lines if holds(record, radius)]

    assert choose(tab, dataset="mnist") == names(lambda r, _: r.dataset == "mnist")
    both = names(lambda r, _: r.dataset == "mnist" and r.method == "vi")
    assert choose(tab, method="vi") == both
    assert choose(tab, training="interval") == 2 * ["mnist_vi_interval"]
    assert choose(tab, radius="linf 0.3") == ["mnist_vi_interval"]
    assert status(tab) == "1 of 49 lines."
    assert choose(tab, dataset="digits") == []
    assert status(tab) == "0 of 49 lines."
    # Sorting brings back nothing.
    tab.run("document.querySelectorAll('thead button')[5].click()")
    assert tab.run(f"{SHOWN}.length") == 0
    tab.run("document.querySelector('#filters button').click()")
    assert tab.run(f"new Promise(done => setTimeout(() => done({SHOWN}.length), 20))") == COUNT


def test_typed_words_are_all_looked_for(tab):
    tab.run("document.forms.filters.elements.text.focus()")
    tab.type("INTERVAL  fashion")
    tab.press("Enter", "\r")
    found = tab.run(f"{SHOWN}.map(row => row.cells[0].dataset.key)")
    assert found
    assert set(found) == {r.name for r in RECORDS if r.name.startswith("fashion")} & {
        r.name for r in RECORDS if r.training == "interval"
    }
    assert tab.run("location.search") == ""
    # What stands with each posterior below is found too.
    assert set(choose(tab, text="zero gradients")) == {
        r.name for r in RECORDS if r.training == "standard" and r.radii
    }
    assert set(choose(tab, text="units, tanh")) == {"digits_bare"}
    assert choose(tab, text="<b>") == []


def test_a_name_leads_to_its_posterior(tab):
    tab.run("document.querySelector('#posteriors tbody tr:nth-child(9) a').click()")
    address = tab.run("location.hash.slice(1)")
    assert address == f"posterior-{RECORDS[4].name}"
    place = tab.run(f"document.getElementById('{address}').getBoundingClientRect().top")
    assert -5 <= place <= 200


def test_without_a_script_everything_can_be_read(browser, path):
    browser.open(path, scripts=False)
    assert browser.run(f"{SHOWN}.length") == COUNT
    assert browser.run("document.querySelectorAll('thead button').length") == 0
    assert browser.run("document.getElementById('filters').offsetParent === null")
    articles = "Array.from(document.querySelectorAll('article'))"
    assert browser.run(f"{articles}.filter(a => a.offsetHeight > 100).length") == len(RECORDS)


def test_the_page_is_never_wider_than_the_window(tab):
    left = "document.querySelector('#posteriors tbody th').getBoundingClientRect().left"
    for width in (320, 390, 768, 1280, 2000):
        tab.resize(width)
        assert tab.run("document.documentElement.scrollWidth") <= width
        # Names stay in sight while the table moves.
        tab.run("document.querySelector('#posteriors').parentElement.scrollLeft = 300")
        assert 0 <= tab.run(left) <= width / 4 + 300 * (width > 1500)


def test_nothing_is_requested_from_elsewhere(tab, path):
    for url in tab.requested:
        assert url == path.as_uri() or url.startswith("data:image/png;base64,")
    assert path.as_uri() in tab.requested
