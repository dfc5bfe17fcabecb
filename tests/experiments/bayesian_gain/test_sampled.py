"""``experiments.bayesian_gain`` of chains that another run has sampled."""

import dataclasses
import shutil

import numpy as np
import pytest

from bnn_adv.data import load_dataset
from bnn_adv.evaluation.suites import Suite, get_suite
from bnn_adv.inference import hmc
from bnn_adv.inference.densities import Data
from bnn_adv.networks import MLP
from experiments.bayesian_gain import __main__ as bayesian_gain
from experiments.bayesian_gain import measure
from experiments.bayesian_gain.config import SCALES, Config
from experiments.launch.sampled import find_runs
from experiments.launch.stages import StageError
from tests.experiments.sampled_run import sample

OWN = {"num_train": 60, "hidden": (4,), "hmc_draws": 12, "num_test": 6}
SMALL = Config(**SCALES["smoke"] | OWN)
CHAINS = {"hmc.num_chains": 4, "hmc.num_samples": 6}
NETWORK = MLP((4,), 10, "relu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run with four chains of six draws on 60 digits."""
    return sample(tmp_path_factory.mktemp("sampled") / "run", **CHAINS)


def test_a_share_is_some_of_the_chains_and_judged_by_itself(finished):
    run = find_runs([str(finished)], ["digits"])["digits"]
    dataset = load_dataset("digits", None, num_train=60, num_test=200, seed=0)
    held_out = Data(dataset.x_test, dataset.y_test)
    whole = run.read(NETWORK, (8, 8, 1))
    kernel = np.asarray(whole.posterior.samples["logits"]["kernel"]).reshape(4, 6, 4, 10)
    shares = [
        run.read_share(NETWORK, (8, 8, 1), held_out, number=number, count=2) for number in (0, 1)
    ]
    for number, share in enumerate(shares):
        found = np.asarray(share.posterior.samples["logits"]["kernel"])
        np.testing.assert_array_equal(found, kernel[number::2].reshape(12, 4, 10))
        assert (share.diagnostics["num_chains"], share.diagnostics["num_distinct_draws"]) == (
            2,
            len({draw.tobytes() for draw in found}),
        )
        assert share.diagnostics["sampled_hash"] == whole.diagnostics["sampled_hash"]
    assert shares[0].diagnostics["max_rhat"] != shares[1].diagnostics["max_rhat"]
    # Of six draws a chain nobody can say that they agree.
    assert any("Too few effective draws" in text for text in shares[0].diagnostics["warnings"])


def test_all_chains_are_judged_as_when_they_were_sampled(finished):
    """On the same held-out points: nothing else was kept of them than their draws."""
    run = find_runs([str(finished)], ["digits"])["digits"]
    dataset = load_dataset("digits", None, num_train=60, num_test=5, seed=0)
    held_out = Data(dataset.x_test, dataset.y_test)
    then = run.read(NETWORK, (8, 8, 1)).diagnostics
    now = run.read_share(NETWORK, (8, 8, 1), held_out, number=0, count=1).diagnostics
    for name in ("max_rhat", "min_ess", "log_density_rhat", "log_density_ess", "acceptance_rate"):
        assert now[name] == pytest.approx(then[name], rel=1e-4), name
    for name in ("num_chains", "num_distinct_draws", "num_still_chains", "rhat"):
        assert now[name] == then[name]


def test_repetitions_have_chains_of_their_own(finished, tmp_path, monkeypatch):
    short = Suite(get_suite("fast").entries[:1], "short", worst_case=True)
    monkeypatch.setattr(measure, "get_suite", lambda _: short)

    def never(*_, **__):
        raise AssertionError("sampled again")

    monkeypatch.setattr(hmc, "run", never)
    config = dataclasses.replace(SMALL, mixed_runs=(str(finished),))
    results = bayesian_gain.run(config, str(tmp_path / "run"))
    rows = [row for row in results["data"]["rows"] if row["training"] == "hmc"]
    assert {row["repeat"] for row in rows} == {0, 1}
    assert {row["diagnostics"]["num_chains"] for row in rows} == {2}
    assert all("experiments.compare" in row["diagnostics"]["sampled_by"] for row in rows)
    told = "on digits they come from one finished run; each repetition takes its share"
    assert told in results["summary"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_repeats": 3}, "its 4 chains cannot be shared by 3 repetitions"),
        ({"num_repeats": 4}, "its 4 chains cannot be shared by 4 repetitions"),
        ({"hmc_draws": 10}, "2 repetitions has 12 of its draws, .* give --hmc_draws=12"),
        ({"hidden": (4, 8)}, "its network is"),
        ({"networks": ("fc", "small_conv")}, "its network is"),
        ({"num_train": 50}, "trained on other images"),
    ],
)
def test_chains_that_do_not_fit_are_refused(finished, tmp_path, changed, message):
    config = dataclasses.replace(SMALL, mixed_runs=(str(finished),), **changed)
    with pytest.raises(ValueError, match=message):
        bayesian_gain.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda stats: {**stats, "lp": stats["lp"][:2]},
        lambda stats: {**stats, "lp": stats["lp"][:, :3]},
        lambda stats: {name: value for name, value in stats.items() if name != "lp"},
    ],
    ids=["fewer chains", "fewer draws", "no log density"],
)
def test_a_record_of_other_chains_is_refused(finished, tmp_path, change):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "posterior" / "hmc_chains.npz"
    with np.load(path) as stored:
        stats = dict(stored)
    np.savez(path, **change(stats))
    config = dataclasses.replace(SMALL, mixed_runs=(str(tmp_path / "run"),))
    with pytest.raises(ValueError, match="the record of its chains has lp of shape"):
        bayesian_gain.run(config, str(tmp_path / "study"))
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_chains_that_were_replaced_end_the_study(finished, tmp_path, monkeypatch):
    """Repetitions of two samplings would pass for shares of one."""
    short = Suite(get_suite("fast").entries[:1], "short", worst_case=True)
    monkeypatch.setattr(measure, "get_suite", lambda _: short)
    shutil.copytree(finished, tmp_path / "run")
    config = dataclasses.replace(SMALL, mixed_runs=(str(tmp_path / "run"),))
    monkeypatch.setattr(bayesian_gain, "build_study", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bayesian_gain.run(config, str(tmp_path / "study"))
    shutil.rmtree(tmp_path / "run")
    sample(tmp_path / "run", **CHAINS | {"hmc.step_size": 0.03})
    with pytest.raises(StageError, match="chains of digits"):
        bayesian_gain.run(config, str(tmp_path / "study"))


def test_a_run_without_a_record_of_its_draws_is_refused(finished, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "command.txt", "posterior"):
        (tmp_path / "run" / name).symlink_to(finished / name)
    (tmp_path / "run" / "posterior").unlink()
    (tmp_path / "run" / "posterior").mkdir()
    for name in ("hmc.json", "hmc.npz"):
        (tmp_path / "run" / "posterior" / name).symlink_to(finished / "posterior" / name)
    config = dataclasses.replace(SMALL, mixed_runs=(str(tmp_path / "run"),))
    with pytest.raises(ValueError, match="holds no chains"):
        bayesian_gain.run(config, str(tmp_path / "study"))
    assert not (tmp_path / "study").exists()
