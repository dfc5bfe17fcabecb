"""The experiment on a few digits: it runs, resumes, and reports what the library computes."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from bnn_adv import ablation, networks
from bnn_adv.ablation import SWITCHES
from bnn_adv.data import load_dataset
from bnn_adv.posterior import Posterior
from experiments import protocol_ablation
from experiments import protocol_ablation_stages as stages
from experiments.protocol_ablation_config import SCALES, Config, validate

TINY = dataclasses.replace(Config(**SCALES["smoke"]), num_test=8, num_factorial=4)


def fake_posterior(num_draws, seed):
    """Draws of a small network, in place of those that training would give."""
    network = networks.MLP((4,), 10, "tanh")
    keys = jax.random.split(jax.random.key(seed), num_draws)
    samples = jax.vmap(lambda key: networks.init_params(key, network, (8, 8, 1)))(keys)
    return Posterior(networks.get_apply_fn(network), samples)


def fake_train(work, name, method, settings, data):
    num_draws = settings.num_samples
    seed = sum(map(ord, name))
    return fake_posterior(num_draws, seed), {"num_distinct_draws": num_draws, "warnings": []}


def fake_attack(rng_key, kind, on, known, x, y, *, threat, settings):
    """Images that depend on what an attack sees; the real ones are compared with the protocols."""
    shift = len(ablation.relevant(kind, on)) * threat.epsilon / 7
    return np.clip(x + np.float32(shift if kind == "pgd" else -shift), 0, 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_train", fake_train)
        patch.setattr(ablation, "attack", fake_attack)
        patch.setattr(ablation, "zero_gradient_share", lambda *args, **options: 0.25)
        yield folder, protocol_ablation.run(TINY, str(folder), scale="smoke")


def test_every_switch_has_its_rows(finished):
    _, results = finished
    rows = results["data"]["rows"]
    for group in ("alone", "all_but"):
        assert [row["switch"] for row in rows if row["group"] == group] == list(SWITCHES)
    for row in rows:
        assert row["attacker_draws"] == (1 if "seeds" in row["on"] else TINY.num_draws)
        for name in ("accuracy", "fgsm", "pgd", "strong"):
            low, high = row["intervals"][name]
            assert low <= row[name] <= high


def test_metric_changes_the_score_alone(finished):
    _, results = finished
    rows = {row["group"] + row["switch"]: row for row in results["data"]["rows"]}
    base, scored = rows["base"], rows["alonemetric_softmax"]
    assert scored["softmax_robustness"] > 0.853 - 1e-9
    different = {name for name in base if base[name] != scored[name]}
    assert different <= {"group", "switch", "on", "softmax_robustness", "change_from_all"}


def test_hmc_rows_say_what_was_sampled(finished):
    _, results = finished
    rows = results["data"]["hmc"]
    assert [(r["training"], r["attack"]) for r in rows] == [
        (training, attack)
        for training in ("hmc-full", "hmc-minibatch")
        for attack in ("corrected", "published")
    ]
    assert [r["diagnostics"]["num_train"] for r in rows] == [200, 200, 100, 100]


def test_shares_add_up_to_the_difference(finished):
    _, results = finished
    shares = results["data"]["shares"]
    by_set = {frozenset(c["on"]): c for c in shares["combinations"]}
    assert len(by_set) == 128
    for name, each in shares["shapley"].items():
        total = by_set[ablation.ALL][name] - by_set[ablation.NONE][name]
        assert sum(each.values()) == pytest.approx(total, abs=1e-9)
    # What changes the score alone has no share in an accuracy.
    assert shares["shapley"]["pgd"]["metric_softmax"] == 0


def test_images_attacked_first_are_those_of_the_table(finished):
    """Combinations that the table has are read from it; the others are attacked by themselves."""
    folder, results = finished
    by_set = {frozenset(c["on"]): c for c in results["data"]["shares"]["combinations"]}
    stored = {path.name for path in (folder / "figures").iterdir()}
    assert {"departures.png", "shares.png"} <= stored
    logged = (folder / "metrics.jsonl").read_text()
    assert '"vi-corrected-pgd-seeds"' in logged
    assert '"vi-corrected-pgd-seeds-first4"' not in logged
    assert '"vi-kl_weight-pgd-seeds-first4"' in logged
    assert all(
        4 * combination["pgd"] == round(4 * combination["pgd"]) for combination in by_set.values()
    )


def test_training_follows_its_switches(monkeypatch):
    """Four trainings of one key; the draws that attack and those that are fresh are others."""
    seen = {}

    def record(work, name, method, settings, data):
        seen[name] = (settings.kl_weight, settings.init)
        return fake_posterior(settings.num_samples, 0), {}

    monkeypatch.setattr(stages, "_train", record)
    config = dataclasses.replace(TINY, num_draws=3)
    work = stages.Work(config, None, load_dataset("digits", num_train=10, num_test=2))
    for training in ablation.combinations(ablation.TRAINING):
        subject = stages.train_vi(work, training)
        assert subject.known.num_samples == subject.fresh.num_samples == 3
        both = [jax.tree.leaves(p.samples)[-1] for p in (subject.known, subject.fresh)]
        assert len(np.unique(np.concatenate(both), axis=0)) == 6
    assert seen == {
        "vi-corrected": ("corrected", "network"),
        "vi-kl_weight": ("published", "network"),
        "vi-vi_init": ("corrected", "published"),
        "vi-kl_weight-vi_init": ("published", "published"),
    }


def test_a_finished_run_is_read_back(finished, capsys):
    folder, results = finished
    again = protocol_ablation.run(TINY, str(folder), scale="smoke")
    assert again == results
    assert "What each departure" in capsys.readouterr().out
    assert json.loads((folder / "results.json").read_text()) == results
    for name in ("departures.png", "departures.pdf"):
        assert (folder / "figures" / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("num_draws", 0, "num_draws must be at least 1, got 0"),
        ("epsilon", 1.5, r"epsilon must lie in \(0, 1\], got 1.5"),
        ("suite", "corrected", "suite must be one with a worst case"),
        ("architecture", "resnet", "Unknown architecture"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        validate(dataclasses.replace(TINY, **{setting: value}))


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_valid(scale):
    validate(Config(**SCALES[scale]))
