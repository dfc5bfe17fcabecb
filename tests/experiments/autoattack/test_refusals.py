"""Bad values of flags: refused in one line, before any work, and nothing is left behind."""

import pytest

from experiments.autoattack import __main__ as autoattack
from tests.experiments.command import refuse

CASES = [
    ({"posteriors": "mlp"}, "--posteriors must be one of det_relu, "),
    ({"posteriors": "vi,vi"}, "--posteriors must not name anything twice, got vi, vi"),
    ({"posteriors": ""}, "--posteriors needs at least 1 of them, got nothing"),
    (
        {"posterior": "runs/x", "posteriors": "vi"},
        "--posterior and posteriors cannot both be given",
    ),
    ({"model": "vi"}, "--model is one of a run and needs posterior, got 'vi'"),
    ({"suites": "published"}, "--suites must be one of fast, strong, full, got 'published'"),
    ({"suites": "fast,fast"}, "--suites must not name anything twice, got fast, fast"),
    ({"threats": ""}, "--threats needs at least 1 of them, got nothing"),
    ({"threats": "linf"}, "--threats must be norm:radius with a norm of linf, l2, l1"),
    ({"threats": "l2:inf"}, "got 'l2:inf'"),
    ({"threats": "l2:nan"}, "got 'l2:nan'"),
    ({"threats": "l2:1e308"}, "got 'l2:1e308'"),
    ({"threats": "l2:1,l2:1.0"}, "--threats must not name anything twice, got l2:1, l2:1.0"),
    ({"num_images": 0}, "--num_images must be at least 1, got 0"),
    (
        {"autoattack_version": "rand"},
        "--autoattack_version=rand: value should be one of <standard|",
    ),
    ({"jobs": 0}, "--jobs must be at least 1, got 0"),
    ({"seed": 2**64}, f"--seed must be below 2**63, got {2**64}"),
    ({"compilation_cache": ""}, "--compilation_cache must be auto, off or a folder, got ''"),
]


@pytest.mark.parametrize(("given", "message"), CASES)
def test_bad_values_are_refused(given, message, tmp_path, capsys):
    assert message in refuse(tmp_path, capsys, module=autoattack, **given)
