"""``experiments.ensembles`` at tiny sizes: prefixes, resuming, errors."""

import dataclasses

import numpy as np
import pytest

from bnn_adv.evaluation import SuiteResult
from bnn_adv.inference import sgd
from experiments.ensembles import __main__ as ensembles
from experiments.ensembles import measure
from experiments.ensembles.config import SCALES, Config

TINY = Config(
    dataset="digits",
    num_train=60,
    num_test=12,
    architecture="fc",
    hidden=3,
    sizes=(1, 2),
    epsilons=(0.1,),
    sgd_epochs=2,
    sgd_minibatch_size=30,
    batch_size=12,
    checkpoint_every=0.0,
)


@pytest.fixture
def attacked(monkeypatch):
    """Attack by doing nothing, and return what was attacked."""
    seen = []

    def attack(rng_key, suite, posterior, x, y, *, threat, **_):
        seen.append((suite.name, threat.epsilon, posterior))
        names = ["worst"] if suite.worst_case else [e.name for e in suite.entries]
        return SuiteResult(dict.fromkeys(names, x), dict.fromkeys(names, 1.0), 0.9, 0.1, None)

    monkeypatch.setattr(measure, "run_suite", attack)
    return seen


def _never(*_, **__):
    raise AssertionError("computed again")


@pytest.mark.slow
def test_ensembles_are_prefixes_of_one_and_resume(tmp_path, monkeypatch, attacked):
    build = ensembles.build_study
    monkeypatch.setattr(ensembles, "build_study", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ensembles.run(TINY, str(tmp_path / "run"))
    counts = [posterior.num_samples for _, _, posterior in attacked]
    assert counts == [1] * 3 + [2] * 3
    one, two = attacked[0][2].samples, attacked[-1][2].samples
    np.testing.assert_array_equal(one["logits"]["kernel"][0], two["logits"]["kernel"][0])
    monkeypatch.setattr(ensembles, "build_study", build)
    monkeypatch.setattr(measure, "run_suite", _never)
    monkeypatch.setattr(sgd, "run", _never)
    results = ensembles.run(TINY, str(tmp_path / "run"))
    for size in results["data"]["sizes"]:
        # Nothing was done to the images.
        assert len(set(size["accuracy"].values())) == 1
        assert size["softmax_robustness"] == dict.fromkeys(
            ("published", "corrected", "strong"), 0.9
        )
    assert [row[1:3] for row in results["tables"][0]["rows"]] == [
        ["deterministic", 1],
        ["ensemble", 2],
    ]
    # No change on twelve images is within 14 points of none, not within five.
    assert {v["holds"] for v in results["verdicts"]} == {None}
    assert results["verdicts"][0]["measured"].endswith("+0.0 [-14.0, +14.0] points")
    assert ensembles.run(TINY, str(tmp_path / "run")) == results


@pytest.mark.slow
def test_every_radius_is_attacked(tmp_path, attacked):
    config = dataclasses.replace(TINY, sizes=(1,), epsilons=(0.3, 0.1))
    results = ensembles.run(config, str(tmp_path / "run"))
    assert [epsilon for _, epsilon, _ in attacked] == [0.1] * 3 + [0.3] * 3
    assert [size["epsilon"] for size in results["data"]["sizes"]] == [0.1, 0.3]
    # Another network than the paper's is said to be one.
    assert "The paper's ConvNet on MNIST" in results["claims"][0]["note"]


def test_paper_scale_is_table_2():
    paper = Config(**SCALES["paper"])
    assert paper.sizes == (1, 2, 5, 10, 20, 50, 100)
    assert (paper.dataset, paper.architecture, paper.hidden) == ("mnist", "conv", 512)
    assert (paper.sgd_epochs, paper.sgd_learning_rate, paper.num_test) == (5, 0.01, 1000)
    assert 0.3 in paper.epsilons
    for overlay in SCALES.values():
        Config(**overlay)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "letters"}, "dataset must be one of digits, .*, got 'letters'"),
        ({"sizes": ()}, "sizes needs at least 1 of them, got nothing"),
        ({"sizes": (0, 2)}, "sizes must be at least 1, got 0"),
        ({"epsilons": (-0.1, 0.1)}, "epsilons must be at least 0, got -0.1"),
        ({"num_test": 0}, "num_test must be at least 1, got 0"),
        ({"sgd_learning_rate": 0.0}, "sgd_learning_rate must be above 0, got 0.0"),
        ({"architecture": "fc9"}, "architecture must be one of fc, .*, conv, got 'fc9'"),
    ],
)
def test_errors_come_before_work(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        ensembles.run(dataclasses.replace(TINY, **change), str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
