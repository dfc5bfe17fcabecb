"""A posterior of a finished run becomes an entry of the package's zoo, or nothing is written."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import bnn_adv
from bnn_adv.data import load_dataset
from bnn_adv.networks import MLP, get_apply_fn, init_params
from bnn_adv.posteriors.posterior import Posterior, hash_draws
from experiments.zoo import __main__ as zoo
from experiments.zoo.measure import split_draws
from experiments.zoo.ship import Config, describe_likelihood, ship
from tests.experiments.zoo.test_zoo import TINY

NAME = "digits_sgd_standard"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    learns = {"trainings": ("standard",), "num_epochs": 40, "learning_rate": 0.02}
    config = dataclasses.replace(TINY, suite="fast", **learns)
    zoo.run(config, str(folder))
    return folder


def configure(run, tmp_path, **changes):
    entry = str(tmp_path / "entries" / "small")
    return Config(
        **{"run": str(run), "posterior": NAME, "entry": entry, "num_inputs": 3, **changes}
    )


@pytest.mark.slow
def test_what_ships_is_what_was_attacked(finished, tmp_path):
    entry = bnn_adv.zoo.read(ship(configure(finished, tmp_path)))
    with pytest.raises(FileExistsError, match="small exists"):
        ship(configure(finished, tmp_path))
    results = json.loads((finished / "results.json").read_text())
    (found,), (record,) = results["data"]["posteriors"], results["data"]["records"]
    dataset = load_dataset("digits", num_train=TINY.num_train, num_test=TINY.num_test)
    np.testing.assert_array_equal(entry.x, dataset.x_test[:3])
    # The certificate of the first inputs repeats the run's, which had more of them.
    (radius,) = found["radii"]
    assert entry.certificate.certified.tolist() == radius["certified"][:3]
    assert entry.certificate.clean_correct.tolist() == radius["clean"][:3]
    assert any(radius["clean"][:3])
    (bracket,) = entry.record.brackets
    assert bracket.epsilon == radius["epsilon"] == TINY.epsilons[0]
    assert bracket.num_test == 4
    assert bracket.adversarial_accuracy == np.mean(radius["standing"])
    assert bracket.certified_accuracy == np.mean(radius["certified"])
    assert entry.record.training["likelihood"] == "categorical"
    assert bracket.command == entry.record.training["command"] == record["command"]
    assert entry.certificate.draws_hash == hash_draws(entry.posterior)


@pytest.mark.parametrize(
    ("method", "known", "held"),
    [("vi", [0, 1, 2], [3, 4, 5]), ("hmc", [0, 2, 5], None), ("ensemble", [*range(6)], None)],
)
def test_draws_that_nobody_attacked_do_not_ship(method, known, held):
    network = MLP((2,), 3, "relu")
    samples = init_params(jax.random.key(0), network, (4,))
    samples = jax.tree.map(
        lambda leaf: np.arange(6.0)[(..., *[None] * leaf.ndim)] + 0 * leaf, samples
    )
    own, others = split_draws(Posterior(get_apply_fn(network), samples), method, 3)
    assert jax.tree.leaves(own.samples)[0][:, 0].tolist() == known
    assert (others is None) == (held is None)
    if others is not None:
        assert jax.tree.leaves(others.samples)[0][:, 0].tolist() == held


@pytest.mark.parametrize(
    ("training", "weight", "words"),
    [
        ("standard", 0.5, "categorical"),
        ("interval", 0.0, "interval (l_inf 0.3)"),
        ("adversarial", 0.25, "adversarial (l_inf 0.3, 25 % clean)"),
    ],
)
def test_the_likelihood_is_told_in_words(training, weight, words):
    config = zoo.Config(epsilons=(0.3, 0.1), weight=weight)
    found = {"training": training, "dataset": "mnist"}
    assert describe_likelihood(config, found) == words


@pytest.mark.slow
def test_what_the_run_does_not_have_is_refused(finished, tmp_path):
    with pytest.raises(ValueError, match=rf"vi_standard is none of this run's: {NAME}\."):
        ship(configure(finished, tmp_path, posterior="digits_vi_standard"))
    zoo.run(zoo.Config(join=(str(finished),)), str(tmp_path / "joined"))
    with pytest.raises(ValueError, match=r"no run of experiments\.zoo that has draws of its own"):
        ship(configure(tmp_path / "joined", tmp_path))
    assert not (tmp_path / "entries").exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["draws", "data"])
def test_what_was_replaced_is_refused(finished, tmp_path, what):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    if what == "draws":
        path = run / "posterior" / f"{NAME}.npz"
        with np.load(path) as stored:
            arrays = {name: array + np.float32(0.5) for name, array in stored.items()}
        np.savez(path, **arrays)
        words = "npz: it has the hash"
    else:
        path = run / "results.json"
        results = json.loads(path.read_text())
        results["sources"]["data digits"] = "another"
        path.write_text(json.dumps(results))
        words = "digits there has the hash .* what the run used has another"
    with pytest.raises(ValueError, match=words):
        ship(configure(run, tmp_path))
    assert not (tmp_path / "entries").exists()
