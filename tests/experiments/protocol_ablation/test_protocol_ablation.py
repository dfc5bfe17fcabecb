"""The experiment on a few digits: it runs, resumes, and reports what the library computes."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.compute import files
from bnn_adv.data import load_dataset
from bnn_adv.inference import InferenceResult
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.posteriors.sampler import Sampler
from experiments.launch.run_directory import RunDirectory
from experiments.launch.stages import StageError
from experiments.protocol_ablation import __main__ as protocol_ablation
from experiments.protocol_ablation import measure as stages
from experiments.protocol_ablation import switches as ablation
from experiments.protocol_ablation.config import SCALES, Config
from experiments.protocol_ablation.switches import SWITCHES

TINY = dataclasses.replace(Config(**SCALES["smoke"]), num_test=8, num_factorial=4)


# The whole module's run replaces it.
TRAIN = stages._train


def fake_posterior(num_draws, seed):
    """Draws of a small network, in place of those that training would give."""
    network = networks.MLP((4,), 10, "tanh")
    keys = jax.random.split(jax.random.key(seed), num_draws)
    samples = jax.vmap(lambda key: networks.init_params(key, network, (8, 8, 1)))(keys)
    return Posterior(networks.get_apply_fn(network), samples)


def fake_train(work, name, method, settings, data, then=None):
    num_draws = settings.num_samples
    seed = sum(map(ord, name))
    found = {}
    if then is not None:
        found = then(InferenceResult(None, {}, None, fake_sampler(seed)))
    record = {"num_distinct_draws": num_draws, "warnings": []}
    return fake_posterior(num_draws, seed), {**record, **found}


def fake_sampler(seed):
    """Draws around a small network, in place of a trained guide's."""
    centre = jax.tree.map(lambda leaf: leaf[0], fake_posterior(1, seed).samples)

    def draw(params, rng_key):
        return jax.tree.map(lambda leaf: leaf * jax.random.normal(rng_key, leaf.shape), params)

    return Sampler(fake_posterior(1, seed).apply_fn, jax.tree_util.Partial(draw, centre))


def fake_restore(network, settings, input_shape, params):
    return fake_sampler(0)


def fake_attack(rng_key, kind, on, known, x, y, *, threat, sampler, settings):
    """Images that depend on what an attack sees; the real ones are compared with the suites."""
    shift = len(ablation.relevant(kind, on)) * threat.epsilon / 7
    return np.clip(x + np.float32(shift if kind == "pgd" else -shift), 0, 1)


def fake_run(rng_key, kind, chosen, objective, attacked, x, y, *, threat, settings):
    return np.clip(x + np.float32(threat.epsilon / 3), 0, 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_train", fake_train)
        patch.setattr(stages.stored_guides, "restore_sampler", fake_restore)
        patch.setattr(stages.stored_guides, "get_guide_params", lambda sampler: {"w": np.zeros(1)})
        patch.setattr(ablation, "run_published", fake_run)
        patch.setattr(ablation, "attack", fake_attack)
        patch.setattr(ablation, "zero_gradient_share", lambda *args, **options: 0.25)
        yield folder, protocol_ablation.run(TINY, str(folder), scale="smoke")


def test_every_switch_has_its_rows(finished):
    _, results = finished
    rows = results["data"]["rows"]
    for group, names in (("alone", list(SWITCHES)), ("all_but", list(SWITCHES)[:-1])):
        assert [row["switch"] for row in rows if row["group"] == group] == names
    for row in rows:
        assert row["num_predictions"] == (10 if "draws" in row["on"] else 1)
        for name in ("accuracy", "fgsm", "pgd", "strong"):
            low, high = row["intervals"][name]
            assert low <= row[name] <= high


def test_metric_changes_the_score_alone(finished):
    _, results = finished
    rows = {row["group"] + row["switch"]: row for row in results["data"]["rows"]}
    base, scored = rows["base"], rows["alonemetric_softmax"]
    assert scored["softmax_robustness"] > 0.853 - 1e-9
    different = {name for name in base if base[name] != scored[name]}
    assert different <= {"group", "switch", "on", "softmax_robustness", "change_from_2020"}


def test_hmc_rows_say_what_was_sampled(finished):
    _, results = finished
    rows = results["data"]["hmc"]
    assert [(r["training"], r["attack"]) for r in rows] == [
        (training, attack)
        for training in ("hmc-full", "hmc-minibatch")
        for attack in ("corrected", "published")
    ]
    assert [r["diagnostics"]["num_train"] for r in rows] == [200, 200, 100, 100]
    # One chain of 1 draw; two minibatches leave one transition each.
    assert [r["diagnostics"]["num_distinct_draws"] for r in rows] == [1, 1, 1, 1]


@pytest.mark.slow
def test_hmc_as_published_keeps_few_draws_and_its_length(monkeypatch):
    seen = {}

    def record(work, name, method, settings, data, then=None):
        seen[name] = settings
        return fake_posterior(settings.num_samples * settings.num_chains, 0), {}

    monkeypatch.setattr(stages, "_train", record)
    config = dataclasses.replace(TINY, hmc_num_samples=25, hmc_num_chains=2, hmc_minibatch_size=20)
    work = stages.Work(config, None, load_dataset("digits", num_train=100, num_test=2))
    full, part = stages.train_hmc(work)
    assert (full.known.num_samples, part.known.num_samples) == (50, 50)
    settings = seen["hmc-minibatch"]
    assert (settings.num_samples, settings.num_chains) == (11, 1)
    assert settings.trajectory_length == pytest.approx(0.05)
    assert (settings.adapt, seen["hmc-full"].trajectory_length) == ("window", None)
    assert part.diagnostics["num_distinct_draws"] <= 11


@pytest.mark.slow
def test_mixed_chains_are_sampled_beside_the_published_ones(monkeypatch):
    """On a subset, by trajectories of the prior's scale, with a key from its name."""
    seen, draws = [], fake_posterior(16, 0)

    def sample(rng_key, network, data, settings, options):
        seen.append((rng_key, network.hidden, data, settings))
        return InferenceResult(draws, {"num_chains": 1}, None)

    def train_now(run, name, network, shape, train, **_):
        result = train()
        return result.posterior, result.diagnostics

    monkeypatch.setattr(stages, "_train", TRAIN)
    monkeypatch.setattr(stages, "cached_posterior", train_now)
    monkeypatch.setitem(stages.METHODS, "hmc", SimpleNamespace(run=sample))
    config = dataclasses.replace(
        TINY, mixed_num_train=40, mixed_hidden=5, mixed_num_samples=4, mixed_num_draws=3
    )
    run = SimpleNamespace(checkpoints=lambda *_: None)
    work = stages.Work(config, run, load_dataset("digits", num_train=100, num_test=20))
    full, part, mixed = stages.train_hmc(work)
    assert (full.name, part.name, mixed.name) == ("hmc-full", "hmc-minibatch", "hmc-mixed")
    assert (mixed.known.num_samples, mixed.diagnostics["num_train"]) == (3, 40)
    keys = [jax.random.key_data(key).tolist() for key, *_ in seen]
    assert keys[0] == keys[1] == jax.random.key_data(work.key(stages._TRAIN)).tolist()
    assert keys[2] != keys[0]
    _, hidden, data, settings = seen[2]
    assert (hidden, len(data.y)) == ((5,), 40)
    assert (settings.trajectory_length, settings.num_chains, settings.init) == (1.3, 4, "prior")
    without = dataclasses.replace(config, mixed_num_train=0)
    assert len(stages.train_hmc(work._replace(config=without))) == 2


def test_versions_differ_in_their_draws(finished):
    _, results = finished
    lines = results["data"]["versions"]
    assert len(lines) == 2 * 2 * 1 * 2
    for line in lines:
        redrawn = line["version"] == "today"
        assert line["num_predictions"] == (2 // line["defender_draws"] if redrawn else 1)
        assert line["miss"] == pytest.approx(max(abs(line["fgsm"] - 0.9), abs(line["pgd"] - 0.898)))


def test_shares_add_up_to_the_difference(finished):
    _, results = finished
    shares = results["data"]["shares"]
    by_set = {frozenset(c["on"]): c for c in shares["combinations"]}
    assert len(by_set) == 64
    for name, each in shares["shapley"].items():
        total = by_set[ablation.IN_2020][name] - by_set[ablation.NONE][name]
        assert sum(share[0] for share in each.values()) == pytest.approx(total, abs=1e-9)
        assert all(low <= value <= high for value, low, high in each.values())
    # What changes the score alone has no share in an accuracy.
    assert shares["shapley"]["pgd"]["metric_softmax"][0] == 0


def test_images_attacked_first_are_those_of_the_table(finished):
    """Combinations that the table has are read from it; the others are attacked by themselves."""
    folder, results = finished
    by_set = {frozenset(c["on"]): c for c in results["data"]["shares"]["combinations"]}
    stored = {path.name for path in (folder / "figures").iterdir()}
    assert {"departures.png", "shares.png"} <= stored
    logged = (folder / "metrics.jsonl").read_text()
    assert '"vi-corrected-pgd-draws"' in logged
    assert '"vi-corrected-pgd-pgd_step-first4"' not in logged
    assert '"vi-kl_weight-pgd-pgd_step-first4"' in logged
    assert all(
        4 * combination["pgd"] == round(4 * combination["pgd"]) for combination in by_set.values()
    )


@pytest.mark.slow
def test_training_follows_its_switches(monkeypatch, tmp_path):
    """Four trainings of one key, whose guides are kept and draw anew."""
    seen = {}

    def record(work, name, method, settings, data, then):
        seen[name] = (settings.kl_weight, settings.init)
        found = then(InferenceResult(None, {}, None, fake_sampler(0)))
        return fake_posterior(settings.num_samples, 0), found

    monkeypatch.setattr(stages, "_train", record)
    monkeypatch.setattr(stages.stored_guides, "get_guide_params", lambda sampler: {"w": np.ones(2)})
    monkeypatch.setattr(stages.stored_guides, "restore_sampler", lambda *args: args[-1])
    config = dataclasses.replace(TINY, num_draws=3)
    run = RunDirectory(str(tmp_path), "protocol_ablation", {}, "")
    work = stages.Work(config, run, load_dataset("digits", num_train=10, num_test=2))
    for training in ablation.combinations(ablation.TRAINING):
        subject = stages.train_vi(work, training)
        assert subject.known.num_samples == 3
        np.testing.assert_array_equal(subject.sampler["w"], np.ones(2))
    assert seen == {
        "vi-corrected": ("corrected", "network"),
        "vi-kl_weight": ("published", "network"),
        "vi-vi_init": ("corrected", "published"),
        "vi-kl_weight-vi_init": ("published", "published"),
    }


def test_a_guide_that_was_replaced_is_refused(monkeypatch, tmp_path):
    stored = {}

    def train(work, name, method, settings, data, then):
        if name not in stored:
            stored[name] = then(InferenceResult(None, {}, None, fake_sampler(0)))
        return fake_posterior(settings.num_samples, 0), dict(stored[name])

    monkeypatch.setattr(stages, "_train", train)
    monkeypatch.setattr(stages.stored_guides, "get_guide_params", lambda sampler: {"w": np.ones(2)})
    monkeypatch.setattr(stages.stored_guides, "restore_sampler", lambda *args: args[-1])
    run = RunDirectory(str(tmp_path), "protocol_ablation", {}, "")
    work = stages.Work(TINY, run, load_dataset("digits", num_train=10, num_test=2))
    subject = stages.train_vi(work, ablation.NONE)
    assert "guide_hash" not in subject.diagnostics
    stages.train_vi(work, ablation.NONE)
    files.write_arrays(tmp_path / "posterior" / "vi-corrected-guide.npz", {"w": np.zeros(2)})
    with pytest.raises(StageError, match=r"guide.npz was replaced: posterior/vi-corrected.json"):
        stages.train_vi(work, ablation.NONE)


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
        (
            "attacker_draws",
            ("ten",),
            "attacker_draws must be .* whole numbers of at least 1, got ten",
        ),
        (
            "attacker_draws",
            ("5",),
            r"attacker_draws must be at most the smallest of defender_draws \(1\), .* got 5",
        ),
        ("num_rows", -1, "num_rows must be at least 0, got -1"),
        ("epsilon", 1.5, "epsilon must be at most 1, got 1.5"),
        ("suite", "corrected", "suite must be one of .*, got 'corrected'"),
        ("architecture", "resnet", "architecture must be one of fc, .*, conv, got 'resnet'"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **{setting: value})


@pytest.mark.parametrize("scale", SCALES)
def test_scales_are_valid(scale):
    Config(**SCALES[scale])
