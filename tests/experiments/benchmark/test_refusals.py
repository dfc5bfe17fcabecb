"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.benchmark import __main__ as benchmark
from tests.experiments.command import refuse

CASES = [
    ({"size": "huge"}, "--size=huge: value should be one of <tiny|default|full>"),
    ({"cases": "speed"}, "--cases must be one of ceiling, "),
    ({"cases": ""}, "--cases needs at least 1 of them, got nothing"),
    ({"cases": "ceiling,ceiling"}, "--cases must not name anything twice, got ceiling, ceiling"),
    ({"draws": "10"}, "--draws must be 2 or more different whole numbers of at least 1, got 10"),
    (
        {"draws": "10,10"},
        "--draws must be 2 or more different whole numbers of at least 1, got 10,10",
    ),
    (
        {"images": "0,4"},
        "--images must be 2 or more different whole numbers of at least 1, got 0,4",
    ),
    ({"images": "1,inf"}, "--images must be 2 or more different whole numbers"),
    (
        {"cases": "peers"},
        "--cases=peers compares with public attack tools, of which",
    ),
    (
        {"cases": "ceiling,peers", "peers": "nowhere"},
        "--peers=nowhere holds none of pyautoattack/bin/python, ",
    ),
    ({"torch": "maybe"}, "--torch=maybe: value should be one of <auto|yes|no>"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=benchmark, **given)
