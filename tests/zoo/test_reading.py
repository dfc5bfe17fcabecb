"""What was written reads back bit for bit; what is damaged, foreign or forged does not."""

import dataclasses
import sys

import numpy as np
import pytest

import bnn_adv
from bnn_adv import zoo
from bnn_adv.compute import files
from bnn_adv.posteriors.posterior import hash_draws, predict_log_probs, save_posterior
from tests.zoo.small import change_arrays, change_record, make_posterior, rehash

# Its certificate takes seconds.
pytestmark = pytest.mark.slow


def test_an_entry_reads_back_as_what_was_written(parts, written):
    entry = zoo.read(written)
    assert entry.name == "points_small"
    assert hash_draws(entry.posterior) == hash_draws(parts.posterior)
    np.testing.assert_array_equal(
        predict_log_probs(entry.posterior, entry.x), predict_log_probs(parts.posterior, entry.x)
    )
    for field in dataclasses.fields(parts.certificate):
        read, given = (getattr(c, field.name) for c in (entry.certificate, parts.certificate))
        np.testing.assert_array_equal(read, given, err_msg=field.name)
        assert getattr(read, "dtype", None) == getattr(given, "dtype", None)
    assert entry.record == parts.record
    assert entry.threat == bnn_adv.LInf(0.01)
    np.testing.assert_array_equal(entry.x, parts.dataset.x_test[[1, 0, 4, 5]])
    assert "attacked (not measured) %" in entry.citation


def damage(change):
    """Name a change of a folder by what it does."""
    return pytest.param(change, id=change.__name__)


def truncated(folder):
    path = folder / "draws.npz"
    path.write_bytes(path.read_bytes()[:-40])
    return "draws.npz has the bytes [0-9]+ where hashes.json says"


def one_bit(folder):
    path = folder / "certificate.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "certificate.npz has the sha256"


def edited_record(folder):
    change_record(folder, method="something better")
    return "entry.json has the"


def missing_file(folder):
    (folder / "draws.npz").unlink()
    return "draws.npz is missing.*bnn_adv.zoo.write"


def stray_file(folder):
    (folder / "notes.txt").write_text("", "utf-8")
    return "notes.txt is no file of an entry"


def hashes_that_are_no_json(folder):
    (folder / "hashes.json").write_text("{", "utf-8")
    return "hashes.json cannot be read"


def hashes_of_another_version(folder):
    path = folder / "hashes.json"
    files.write_json(path, {**files.read_json(path), "schema_version": 2})
    return "schema version 1"


def hashes_of_too_little(folder):
    path = folder / "hashes.json"
    stored = files.read_json(path)
    del stored["files"]["draws.npz"]
    files.write_json(path, stored)
    return "hashes.json says nothing of draws.npz"


@pytest.mark.parametrize(
    "change",
    [
        damage(truncated),
        damage(one_bit),
        damage(edited_record),
        damage(missing_file),
        damage(stray_file),
        damage(hashes_that_are_no_json),
        damage(hashes_of_another_version),
        damage(hashes_of_too_little),
    ],
)
def test_a_damaged_entry_is_refused(entry_folder, change):
    with pytest.raises(zoo.ZooError, match=change(entry_folder)):
        zoo.read(entry_folder, verify=False)


def another_name(folder):
    change_record(folder, name="points_large")
    return "says that it is 'points_large', not 'points_small'"


def foreign_draws(folder):
    save_posterior(folder / "draws.npz", make_posterior(seed=1))
    return "certificate .* is of draws of the hash"


def fewer_draws(folder):
    save_posterior(folder / "draws.npz", make_posterior().take([0]))
    return "is of draws of the hash .* of a number of draws of 2, not 1"


def draws_of_another_network(folder):
    change_record(folder, settings={"hidden": 4, "activation": "tanh"})
    return r"hidden_0/kernel has shape \(4, 3\) a draw where the network has \(4, 4\)"


def draws_of_another_dtype(folder):
    change_arrays(folder / "draws.npz", **{"logits/bias": lambda w: w.astype(np.float64)})
    return "logits/bias has dtype float64"


def network_beyond_all_bounds(folder):
    change_record(folder, settings={"hidden": 2**62})
    return "is refused"


def another_decision_rule(folder):
    change_record(folder, decision_rule="mean_logits")
    return "is of the decision rule mean_probabilities, not mean_logits"


def other_indices(folder):
    change_record(folder, indices=[0, 1])
    return "is of a number of inputs of 4, not 2"


def labels_beyond_the_classes(folder):
    change_arrays(folder / "certificate.npz", y=lambda y: np.where(y == y[0], 7, y))
    return "labels beyond its 3 classes"


def certificate_without_an_array(folder):
    path = folder / "certificate.npz"
    arrays = files.read_arrays(path)
    del arrays["nearest"]
    files.write_arrays(path, arrays)
    return "needs the array nearest"


def certificate_of_another_version(folder):
    change_arrays(folder / "certificate.npz", schema_version=lambda v: v + 1)
    return "schema version 2"


def record_of_another_version(folder):
    change_record(folder, schema_version=9)
    return "schema version 9; this library reads 1"


def record_with_too_much(folder):
    change_record(folder, licence="none")
    return "unknown there: licence"


def record_that_is_a_list(folder):
    files.write_json(folder / "entry.json", [1])
    return "says that it is None"


def unknown_setting(folder):
    change_record(folder, settings={"width": 3})
    return "no settings width; it has activation, depth, hidden"


def brackets_that_contradict(folder):
    stored = files.read_json(folder / "entry.json")["brackets"][0]
    change_record(folder, brackets=[{**stored, "adversarial_accuracy": 0.5}])
    return "0 <= certified <= attacked <= clean <= 1"


@pytest.mark.parametrize(
    "change",
    [
        damage(another_name),
        damage(foreign_draws),
        damage(fewer_draws),
        damage(draws_of_another_network),
        damage(draws_of_another_dtype),
        damage(network_beyond_all_bounds),
        damage(another_decision_rule),
        damage(other_indices),
        damage(labels_beyond_the_classes),
        damage(certificate_without_an_array),
        damage(certificate_of_another_version),
        damage(record_of_another_version),
        damage(record_with_too_much),
        damage(record_that_is_a_list),
        damage(unknown_setting),
        damage(brackets_that_contradict),
    ],
)
def test_what_does_not_belong_together_is_refused_whatever_the_hashes_say(entry_folder, change):
    message = change(entry_folder)
    rehash(entry_folder)
    with pytest.raises(zoo.ZooError, match=message):
        zoo.read(entry_folder, verify=False)


def test_the_referee_refuses_forged_claims(entry_folder):
    path = entry_folder / "certificate.npz"
    change_arrays(path, epsilon=lambda e: 0 * e + 0.9, radius=lambda r: 0.9 * (r > 0))
    rehash(entry_folder)
    # What the docstring says: without the referee it is the file's word.
    assert zoo.read(entry_folder, verify=False).certificate.certified.sum() == 3
    with pytest.raises(zoo.ZooError, match=r"certified and not confirmed.*Do not use its"):
        zoo.read(entry_folder)


def test_the_referee_refuses_draws_whose_hash_was_forged_too(entry_folder):
    other = make_posterior(seed=1, scale=3.0)
    save_posterior(entry_folder / "draws.npz", other)
    own = np.asarray(hash_draws(other))
    change_arrays(entry_folder / "certificate.npz", draws_hash=lambda _: own)
    rehash(entry_folder)
    with pytest.raises(zoo.ZooError, match="referee does not confirm"):
        zoo.read(entry_folder)


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return exec, ("import sys; sys.modules['bomb'] = sys",)


def test_nothing_is_unpickled(entry_folder):
    arrays = files.read_arrays(entry_folder / "draws.npz")
    arrays["logits/bias"] = np.array([Bomb()], dtype=object)
    np.savez(entry_folder / "draws.npz", **arrays)
    rehash(entry_folder)
    with pytest.raises(zoo.ZooError, match="Python objects, which are not unpickled"):
        zoo.read(entry_folder)
    assert "bomb" not in sys.modules
    # It would have been seen.
    run, arguments = Bomb().__reduce__()
    run(*arguments)
    assert sys.modules.pop("bomb") is sys


def test_no_module_that_an_entry_names_is_imported(entry_folder, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("class Network: pass\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    change_record(entry_folder, network="evil:Network")
    rehash(entry_folder)
    with pytest.raises(zoo.ZooError, match="network 'evil:Network' is one of mlp, conv"):
        zoo.read(entry_folder)
    assert "evil" not in sys.modules
