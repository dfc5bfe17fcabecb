"""Records of entries: plain JSON, and checked field by field."""

import dataclasses
import json

import pytest

from bnn_adv import zoo
from tests.zoo.small import BRACKET, RECORD


def test_a_record_survives_json():
    text = json.dumps(RECORD.to_json(), allow_nan=False)
    assert zoo.EntryRecord.from_json(json.loads(text)) == RECORD


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": ["mlp"]}, "network"),
        ({"network": "my_fork.my_network"}, "is one of mlp, conv"),
        ({"dataset": ""}, "text"),
        ({"settings": [1]}, "objects"),
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"indices": ()}, "indices"),
        ({"indices": (1, 1)}, "indices"),
        ({"indices": (-1,)}, "indices"),
        ({"training": {"seed": 0}}, "training says likelihood, command, seed, hardware"),
        ({"decision_rule": "vote"}, "vote"),
    ],
)
def test_a_field_that_is_not_what_it_must_be_is_named(changes, message):
    with pytest.raises(zoo.ZooError, match=message):
        dataclasses.replace(RECORD, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"certified_accuracy": 0.99},
        {"adversarial_accuracy": 0.5},
        {"accuracy": 1.1},
        {"accuracy": None},
        {"accuracy": float("nan")},
        {"epsilon": -0.1},
        {"epsilon": float("inf")},
        {"epsilon": None},
        {"norm": "l7"},
        {"norm": []},
        {"num_test": 0},
        {"seed": "0"},
        {"command": None},
    ],
)
def test_a_bracket_that_contradicts_itself_is_refused(changes):
    with pytest.raises(zoo.ZooError, match="0 <= certified <= attacked <= clean <= 1"):
        dataclasses.replace(RECORD, brackets=(BRACKET._replace(**changes),))


def test_what_was_not_measured_is_said_and_is_no_zero():
    assert str(BRACKET) == (
        "linf 0.02: certified 90.0 [86.5, 92.7] <= true <= attacked (not measured) % of 360 test "
        "inputs"
    )
    both = BRACKET._replace(certified_accuracy=0.0, adversarial_accuracy=0.0, suite="fast")
    assert "certified 0.0 [0.0, 1.1] <= true <= attacked 0.0 [0.0, 1.1] %" in str(both)
    assert str(both).endswith("by fast")
