"""Records of evaluations as they were written before: their format and numbers do not change."""

import json
from pathlib import Path

import pytest

_BEFORE = json.loads(Path(__file__).with_name("records.json").read_text("utf-8"))


def same_record(record, name):
    """Raise unless a record equals the one of before: names in order, types and numbers."""
    _compare(json.loads(json.dumps(record)), _BEFORE[name], name)


def _compare(found, wanted, where):
    assert type(found) is type(wanted), where
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), where
        for key in wanted.keys() - {"seconds"}:
            _compare(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            _compare(one, other, f"{where}[{number}]")
    elif isinstance(wanted, float):
        # Another machine may round otherwise.
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5), where
    else:
        assert found == wanted, where
