"""The entries that ship are small, true, and what they say."""

import json
import subprocess
import tomllib

import numpy as np
import pytest

import bnn_adv
from bnn_adv import zoo
from bnn_adv.data import load_dataset
from bnn_adv.posteriors.posterior import hash_draws, predict_log_probs
from bnn_adv.zoo.folder import FILES, HASHES
from bnn_adv.zoo.reading import ENTRIES
from experiments.readme.__main__ import ROOT

EMBEDDED = ("digits",)


def test_the_zoo_is_not_empty_and_known_by_the_package():
    assert bnn_adv.zoo is zoo
    assert "digits_ensemble" in zoo.names()
    assert list(zoo.names()) == sorted(zoo.names())


def test_all_entries_together_are_small():
    committed = [path for path in ENTRIES.rglob("*") if path.is_file()]
    assert len(committed) == (len(FILES) + 1) * len(zoo.names())
    assert sum(path.stat().st_size for path in committed) <= zoo.MOST_BYTES == 5_000_000


def test_an_installation_holds_them():
    """The wheel has what lies in the package and is not ignored."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert build["targets"] == {"wheel": {"packages": ["bnn_adv"]}}
    assert ENTRIES.is_relative_to(ROOT / "bnn_adv")
    paths = [str(ENTRIES / name / file) for name in zoo.names() for file in (*FILES, HASHES)]
    found = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True)
    assert found.stdout == b""
    # Other line endings would be other bytes.
    attributes = (ROOT / ".gitattributes").read_text("utf-8")
    assert f"{ENTRIES.relative_to(ROOT).as_posix()}/** -text" in attributes


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_the_referee_confirms_an_entry(name):
    entry = zoo.load(name)
    record = entry.record
    assert entry.name == name
    assert entry.certificate.draws_hash == hash_draws(entry.posterior)
    assert 0 < entry.certificate.certified.sum() <= len(entry.y) == len(record.indices)
    right = np.asarray(predict_log_probs(entry.posterior, entry.x)).argmax(1) == entry.y
    np.testing.assert_array_equal(right, entry.certificate.clean_correct)
    assert record.brackets
    for bracket in record.brackets:
        assert bracket.command.startswith("python -m experiments.")
    if record.dataset in EMBEDDED:
        dataset = load_dataset(record.dataset)
        np.testing.assert_array_equal(entry.x, dataset.x_test[list(record.indices)])
        np.testing.assert_array_equal(entry.y, dataset.y_test[list(record.indices)])


def test_the_ensemble_is_that_of_the_committed_results():
    entry = zoo.load("digits_ensemble", verify=False)
    path = ROOT / "experiments" / "results" / "certify_digits_ensemble" / "results.json"
    results = json.loads(path.read_text("utf-8"))
    assert entry.certificate.draws_hash == results["draws_hash"]
    (bracket,) = entry.record.brackets
    same = ("num_test", "accuracy", "certified_accuracy", "adversarial_accuracy", "suite")
    for name in (*same, "norm", "seed", "command"):
        assert getattr(bracket, name) == results[name], name
    assert np.float32(bracket.epsilon) == np.float32(results["epsilon"])
    assert entry.threat == bnn_adv.LInf(0.02)


def test_what_the_study_ships_is_what_it_has_measured():
    path = ROOT / "experiments" / "zoo" / "results" / "joined" / "results.json"
    records = json.loads(path.read_text("utf-8"))["data"]["records"]
    shipped = {record["shipped"]: record for record in records if record["shipped"]}
    assert "fashion_mnist_interval" in shipped
    for name, record in shipped.items():
        own = zoo.load(name, verify=False).record
        assert own.training["command"] == record["command"]
        for bracket, radius in zip(own.brackets, record["radii"], strict=True):
            assert (bracket.epsilon, bracket.num_test) == (radius["epsilon"], radius["num_test"])
            assert bracket.certified_accuracy == radius["certified"]["value"]
            assert bracket.adversarial_accuracy == radius["attacked"]["value"]
            assert bracket.accuracy == record["accuracy"]["value"]


def test_what_it_is_can_be_read():
    entry = zoo.load("digits_ensemble", verify=False)
    assert repr(entry) == (
        "Entry(digits_ensemble: Posterior(10 draws of 9,610 parameters, mean_logits), deep "
        "ensemble on digits; 31 of 32 test inputs certified within linf 0.02)"
    )
    assert str(entry) == entry.citation
    for text in (
        "deep ensemble, 10 draws of fc, 128 units, relu, categorical likelihood, on digits",
        "linf 0.02: certified 93.9 [90.9, 95.9] <= true <= attacked 94.2 [91.2, 96.2] % of 360",
        "`python -m experiments.compare --preset=digits --workdir=runs/demo`, seed 0",
    ):
        assert text in entry.citation


def test_a_name_that_is_no_entry_is_refused():
    for name in ("nothing", "../zoo", "", str(ENTRIES / "digits_ensemble")):
        with pytest.raises(zoo.ZooError, match=r"Known: .*digits_ensemble"):
            zoo.load(name)
