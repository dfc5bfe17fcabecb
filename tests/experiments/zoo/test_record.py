"""Records of the zoo: plain JSON, and nothing in them that a page would show wrongly."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn_adv.report.wording import Measured
from experiments.zoo.record import NOTHING, AurocRecord, PosteriorRecord, RadiusRecord
from tests.experiments.zoo.made_up import BARE, make_record, make_records

RECORD = make_record("mnist", "vi", "interval")


@st.composite
def shares(draw):
    ends = sorted(draw(st.lists(st.floats(0, 1), min_size=3, max_size=3)))
    return draw(
        st.sampled_from([NOTHING, Measured(ends[1]), Measured(ends[1], (ends[0], ends[2]))])
    )


@given(st.lists(shares(), min_size=4, max_size=4), st.sampled_from([None, True, False]))
def test_any_record_survives_json(found, mixed):
    record = dataclasses.replace(
        RECORD,
        accuracy=found[0],
        # Certified below and attacked at once would have to be in order.
        radii=(RadiusRecord("l2", 0.5, 7, certified=found[1], fresh=found[2]),),
        aurocs=(AurocRecord("shift", "entropy", "noise", attacked=found[3]),),
        mixed=mixed,
        masking=None if mixed is None else ("falls",) * mixed,
    )
    text = json.dumps(record.to_json(), allow_nan=False)
    assert PosteriorRecord.from_json(json.loads(text)) == record


def test_what_was_not_measured_is_null_and_comes_back_as_that():
    record = BARE.to_json()
    for name in ("accuracy", "masking", "mixed", "training_seconds", "evaluation_seconds"):
        assert record[name] is None
    assert PosteriorRecord.from_json(record) == BARE
    assert all(PosteriorRecord.from_json(r.to_json()) == r for r in make_records())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "A name"}, "lower case"),
        ({"name": 'x"onclick'}, "lower case"),
        ({"accuracy": Measured(1.2)}, "mnist_vi_interval: accuracy"),
        ({"accuracy": Measured(float("nan"))}, "accuracy"),
        ({"accuracy": Measured(0.9, (0.91, 0.95))}, "within its interval"),
        ({"accuracy": Measured(None, (0.1, 0.2))}, "or not measured"),
        ({"training_seconds": -1.0}, "training_seconds"),
        ({"evaluation_seconds": float("nan")}, "evaluation_seconds"),
        ({"radii": 2 * (RadiusRecord("linf", 0.1, 5),)}, "twice"),
        ({"radii": (RadiusRecord("linf", -0.1, 5),)}, "at least 0"),
        ({"radii": (RadiusRecord("linf", 0.1, 0),)}, "at least 1 input"),
        ({"radii": (RadiusRecord("linf", 0.1, 5, fresh=Measured(-0.1)),)}, "fresh"),
        ({"aurocs": (AurocRecord("guess", "entropy"),)}, "Known: detection, shift"),
        ({"aurocs": (AurocRecord("shift", "entropy", clean=Measured(2)),)}, "shift.clean"),
    ],
)
def test_what_a_page_would_show_wrongly_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECORD, **changes)


def test_more_certified_than_attacks_leave_is_refused():
    radius = RadiusRecord("linf", 0.1, 50, attacked=Measured(0.5), certified=Measured(0.52))
    with pytest.raises(ValueError, match=r"0.52 is certified and 0.5 left by attacks within 0.1"):
        dataclasses.replace(RECORD, radii=(radius,))
    equal = radius._replace(certified=Measured(0.5))
    assert dataclasses.replace(RECORD, radii=(equal,)).radii == (equal,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("seed"), "fields: seed"),
        (lambda record: record.update(licence="none"), "fields: licence"),
        (lambda record: record.update(schema_version=3), "schema version 3"),
        (lambda record: record["radii"][0].pop("fresh"), "fields: fresh"),
    ],
)
def test_records_of_another_form_are_refused(change, message):
    record = RECORD.to_json()
    change(record)
    with pytest.raises(ValueError, match=message):
        PosteriorRecord.from_json(record)


def test_records_of_the_version_before_are_read():
    record = RECORD.to_json()
    record["schema_version"] = 1
    for radius in record["radii"]:
        del radius["mean_weights"]
    lacking = {key: value for key, value in record.items() if key != "radii"}
    with pytest.raises(ValueError, match="fields: radii"):
        PosteriorRecord.from_json(lacking)
    mixed = {**record, "radii": [{**record["radii"][0], "mean_weights": None}]}
    with pytest.raises(ValueError, match="unknown fields: mean_weights"):
        PosteriorRecord.from_json(mixed)
    without = tuple(r._replace(mean_weights=Measured(None)) for r in RECORD.radii)
    assert PosteriorRecord.from_json(record) == dataclasses.replace(RECORD, radii=without)
