"""One part of the ablation by itself, and mixed HMC of chains that another run has sampled."""

import dataclasses

import numpy as np
import pytest

from bnn_adv.inference import InferenceResult
from experiments.protocol_ablation import __main__ as protocol_ablation
from experiments.protocol_ablation import measure as stages
from experiments.protocol_ablation import switches as ablation
from experiments.protocol_ablation.config import SCALES, Config
from tests.experiments.sampled_run import sample

SMALL = Config(
    **SCALES["smoke"]
    | {"num_train": 0, "num_test": 6, "parts": ("hmc",), "mixed_num_train": 60, "mixed_hidden": 4}
    | {"mixed_num_draws": 3}
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a run whose chains can be taken."""
    return sample(tmp_path_factory.mktemp("sampled") / "run")


@pytest.fixture
def attacked(monkeypatch):
    """Replace attacks, and note on how many images, from which start, HMC is sampled."""

    def shift(rng_key, kind, on, known, x, y, *, threat, sampler, settings):
        return np.clip(x + np.float32(threat.epsilon), 0, 1)

    monkeypatch.setattr(ablation, "attack", shift)
    monkeypatch.setattr(ablation, "zero_gradient_share", lambda *args, **options: 0.25)
    sampled = []
    run = stages.METHODS["hmc"].run

    def once(rng_key, network, data, settings, options):
        sampled.append((len(data.y), settings.init))
        found: InferenceResult = run(rng_key, network, data, settings, options)
        return found

    monkeypatch.setattr(stages.hmc, "run", once)
    return sampled


@pytest.mark.slow
def test_hmc_alone_takes_chains_that_a_run_has_sampled(finished, attacked, tmp_path):
    config = dataclasses.replace(SMALL, mixed_runs=(str(finished),))
    results = protocol_ablation.run(config, str(tmp_path / "run"))
    assert set(results["data"]) & {"rows", "versions", "shares"} == set()
    rows = {row["training"]: row for row in results["data"]["hmc"]}
    assert list(rows) == ["hmc-full", "hmc-minibatch", "hmc-mixed"]
    # Those two were sampled, and nothing from the prior.
    assert attacked == [(1437, "network"), (100, "network")]
    mixed = rows["hmc-mixed"]
    assert (mixed["num_draws"], mixed["diagnostics"]["num_train"]) == (3, 60)
    # Of the draws that predict, not of all that the run has.
    assert mixed["diagnostics"]["num_distinct_draws"] <= 3
    assert "experiments.compare" in mixed["diagnostics"]["sampled_by"]
    assert results["sources"]["chains of digits"] == mixed["diagnostics"]["sampled_hash"]
    claims = [verdict["claim"] for verdict in results["verdicts"]]
    assert [claim.split(" ")[0] for claim in claims] == ["HMC", "Of"]
    assert [table["title"] for table in results["tables"]] == ["HMC on one minibatch (hmc_batches)"]
    assert "HMC of long trajectories" in results["summary"]
    # The table that explains the columns is not there.
    assert "zero gradients: images at which" in results["tables"][0]["caption"]
    assert "Columns as above" not in results["tables"][0]["caption"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixed_hidden": 5}, "its network is"),
        ({"mixed_num_train": 50}, "other images"),
        ({"mixed_num_train": 0}, "samples no such chains"),
        ({"parts": ("published",)}, "samples no such chains"),
        ({"num_train": 100}, "leave --num_train at 0, got 100"),
    ],
)
def test_other_chains_are_refused_before_work(finished, changes, message, tmp_path):
    config = dataclasses.replace(SMALL, mixed_runs=(str(finished),), **changes)
    with pytest.raises(ValueError, match=message):
        protocol_ablation.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_part_on_vi_knows_no_hmc(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(protocol_ablation, "_published_rows", lambda *_: {"rows": "made up"})
    monkeypatch.setattr(protocol_ablation, "build_study", seen.update)
    monkeypatch.setattr(
        protocol_ablation, "run_study", lambda name, config, workdir, work, **_: work(config, None)
    )
    monkeypatch.setattr(protocol_ablation, "note_data", lambda run, dataset: dataset)
    monkeypatch.setattr(protocol_ablation, "note_suites", lambda *_: None)
    config = dataclasses.replace(SMALL, parts=("published",), mixed_num_train=0)
    protocol_ablation.run(config, str(tmp_path / "run"))
    assert seen["rows"] == "made up"
    assert "hmc" not in seen
