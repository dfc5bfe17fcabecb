"""``experiments.bayesian_gain`` at tiny sizes: what is attacked, resuming, errors."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from bnn_adv.evaluation.suites import Suite, get_suite
from bnn_adv.inference import hmc, sgd
from experiments.bayesian_gain import __main__ as bayesian_gain
from experiments.bayesian_gain import attacks, measure
from experiments.bayesian_gain.architectures import ARCHITECTURES, describe
from experiments.bayesian_gain.config import SCALES, Config
from experiments.bayesian_gain.trainings import TRAININGS, count_stored, list_sizes

SMOKE = Config(**SCALES["smoke"] | {"num_probe": 4, "num_fresh": 1, "num_predictions": 5})


def _never(*_, **__):
    raise AssertionError("computed again")


@pytest.fixture
def quick(monkeypatch):
    """Attack by one attack of the suite; look for signs of masking by doing nothing."""
    short = Suite(get_suite("fast").entries[:1], "short", worst_case=True)
    monkeypatch.setattr(measure, "get_suite", lambda _: short)
    sign = attacks.masking.Check("zero_gradients", False, 0.0, 0.05, {}, "None is zero.")
    monkeypatch.setattr(attacks.masking, "inspect", lambda *_, **__: [sign])


@pytest.mark.slow
def test_a_run_that_is_stopped_resumes_without_its_draws(tmp_path, monkeypatch, quick):
    folder = tmp_path / "run"
    build = bayesian_gain.build_study
    monkeypatch.setattr(bayesian_gain, "build_study", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bayesian_gain.run(SMOKE, str(folder))
    monkeypatch.setattr(bayesian_gain, "build_study", build)
    for module in (sgd, hmc):
        monkeypatch.setattr(module, "run", _never)
    for name in ("attack_radii", "attack_unknown", "find_signs"):
        monkeypatch.setattr(measure, name, _never)
    # What is finished needs no draws.
    for path in (folder / "posterior").iterdir():
        path.unlink()
    results = bayesian_gain.run(SMOKE, str(folder))
    rows = results["data"]["rows"]
    assert {(r["training"], r["draws"], r["kind"], r["repeat"]) for r in rows} == {
        (training, draws, kind, repeat)
        for training in ("sgd", "hmc")
        for draws, kind in ((1, "known"), (4, "known"), (1, "fresh"))
        for repeat in (0, 1)
    }
    for row in rows:
        if row["kind"] == "known":
            full = row["draws"] == 4 or row["training"] == "sgd"
            assert row["epsilons"] == ([0.05, 0.1] if full else [0.1])
            assert len(row["signs"]) == (1 if full else 0)
            assert len(row["withstood"]) == 12
        else:
            assert all(0 <= share <= 1 for share in row["right"])
    # Repetitions are trained and attacked by keys of their own.
    first, second = (
        [r["withstood"] for r in rows if r["kind"] == "known" and r["repeat"] == repeat]
        for repeat in (0, 1)
    )
    assert first != second
    # Chains of two draws have not mixed.
    about_hmc = [v for v in results["verdicts"] if ": HMC" in v["claim"]]
    assert about_hmc
    assert all("not judged" in v["measured"] for v in about_hmc)
    assert bayesian_gain.run(SMOKE, str(folder)) == results


@pytest.mark.slow
def test_another_sampler_stands_for_the_posterior(tmp_path, quick):
    changes = {"sampler": "mclmc", "methods": ("sgd", "mclmc"), "num_repeats": 1}
    config = dataclasses.replace(SMOKE, **changes, mclmc_warmup=3, mclmc_thinning=2)
    results = bayesian_gain.run(config, str(tmp_path / "run"))
    rows = [row for row in results["data"]["rows"] if row["training"] == "mclmc"]
    assert [row["draws"] for row in rows if row["kind"] == "known"] == [1, 4]
    assert all("energy_error_variance" in row["diagnostics"] for row in rows)
    claims = [verdict["claim"] for verdict in results["verdicts"]]
    assert any("MCLMC leaves more than one network" in claim for claim in claims)
    assert not any("HMC" in claim for claim in claims)
    assert "4 draws of MCLMC leave" in results["summary"]
    assert "energy errors of variance" in results["tables"][0]["rows"][-1][-1]


def test_mclmc_runs_as_its_settings_say():
    config = dataclasses.replace(
        Config(methods=("sgd", "mclmc"), sampler="mclmc", chains=2, hmc_draws=400),
        **{"mclmc_warmup": 7, "mclmc_thinning": 3, "mclmc_step_size": 0.5, "mclmc_length": 9.0},
    )
    settings = TRAININGS["mclmc"].configure(config, 6000)
    assert (settings.num_chains, settings.num_samples, settings.num_draws) == (2, 200, 400)
    assert (settings.num_warmup, settings.thinning) == (7, 3)
    assert (settings.step_size, settings.length) == (0.5, 9.0)
    assert max(list_sizes(config, "mclmc")[1]) == 400


def test_chains_of_another_run_are_of_hmc_alone():
    config = Config(methods=("sgd", "mclmc"), sampler="mclmc", mixed_runs=("nowhere",))
    with pytest.raises(ValueError, match="nowhere"):
        measure.check_sampled(config, {})


def test_scales_are_what_they_say():
    for overlay in SCALES.values():
        config = Config(**overlay)
        for name in config.methods:
            settings = TRAININGS[name].configure(config, config.num_train or 1437)
            full, few = list_sizes(config, name)
            assert max([*full, *few]) <= settings.num_draws
            if config.num_fresh and config.num_fresh in [*full, *few]:
                # The draws that are attacked are not those that predict anew.
                assert 2 * config.num_fresh <= settings.num_draws
    cpu = Config(**SCALES["cpu"])
    assert (cpu.num_train, cpu.datasets) == (6000, ("mnist", "fashion_mnist"))
    assert set(cpu.methods) == set(TRAININGS) - {"mclmc"}
    assert list_sizes(cpu, "hmc") == ([100], [1, 2, 5, 10, 25, 50, 200, 400])
    assert list_sizes(cpu, "sgd") == ([1, 10, 100], [2, 5, 25, 50])
    assert list_sizes(cpu, "swag") == ([100], [25])
    assert count_stored(cpu) == 100


def test_a_cold_posterior_has_steps_of_its_own_scale():
    config = Config(**SCALES["cpu"])
    warm, cold = (TRAININGS[name].configure(config, 6000) for name in ("hmc", "hmc_cold"))
    assert (warm.temperature, cold.temperature) == (1.0, 0.1)
    assert cold.step_size == pytest.approx(0.1**0.5 * warm.step_size)
    assert cold.trajectory_length == warm.trajectory_length
    assert (cold.num_warmup, cold.thinning) == (warm.num_warmup, warm.thinning)
    longer = dataclasses.replace(config, cold_warmup=70, cold_thinning=9)
    cold = TRAININGS["hmc_cold"].configure(longer, 6000)
    assert (cold.num_warmup, cold.thinning) == (70, 9)
    assert TRAININGS["hmc"].configure(longer, 6000) == warm
    cyclical = TRAININGS["csgmcmc"].configure(config, 6000)
    assert cyclical.num_warmup == cyclical.cycle.length
    published = TRAININGS["hmc_published"].configure(config, 6000)
    assert (published.num_integration_steps, published.trajectory_length) == (10, None)


def test_the_first_repetition_of_everything_comes_first():
    cases = dataclasses.replace(SMOKE, hidden=(8, 16)).cases
    assert [(case.hidden, case.repeat) for case in cases] == [(8, 0), (16, 0), (8, 1), (16, 1)]
    assert cases[0].name == "digits-fc8-r0"
    networks = tuple(ARCHITECTURES)
    names = [case.name for case in dataclasses.replace(SMOKE, networks=networks).cases]
    first = [f"digits-{network}8-r0" for network in networks]
    assert names == first + [name.replace("r0", "r1") for name in first]


def test_networks_have_the_width_and_channels_that_are_asked_for():
    config = dataclasses.replace(SMOKE, networks=tuple(ARCHITECTURES), channels=(2, 3))
    sizes = {}
    for name, architecture in ARCHITECTURES.items():
        network = architecture.build(config, 5, 10)
        params = network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
        sizes[name] = {layer: p["kernel"].shape for layer, p in params.items()}
    assert sizes["fc"] == {"hidden_0": (64, 5), "logits": (5, 10)}
    convolutions = {"conv_0": (4, 4, 1, 2), "conv_1": (3, 3, 2, 3)}
    assert sizes["small_conv"] == {**convolutions, "hidden_0": (3, 5), "logits": (5, 10)}


@pytest.mark.slow
def test_every_network_has_rows_of_its_own(tmp_path, quick):
    changes = {"networks": tuple(ARCHITECTURES), "channels": (2, 3), "num_repeats": 1}
    config = dataclasses.replace(SMOKE, **changes)
    results = bayesian_gain.run(config, str(tmp_path / "run"))
    words = [describe(name, 8) for name in ARCHITECTURES]
    assert words == ["fc 8", "small conv 8"]
    titles = [table["title"] for table in results["tables"]]
    for text in words:
        assert f"digits, {text}: accuracy left by the suite" in titles
    known = [row for row in results["data"]["rows"] if row["kind"] == "known"]
    left = {
        name: [row["withstood"] for row in known if row["network"] == name]
        for name in ARCHITECTURES
    }
    assert len(left["fc"]) == len(left["small_conv"])
    assert left["fc"] != left["small_conv"]


@pytest.mark.slow
def test_parts_fill_every_stage(tmp_path, monkeypatch, quick):
    """What processes are given to work on is all that there is to compute."""
    asked = []

    def apart(work, run, parts, jobs):
        asked.append(parts)
        for part in parts:
            work(run, part)
        if len(asked) == 2:
            for module in (sgd, hmc):
                monkeypatch.setattr(module, "run", _never)
            for name in ("attack_radii", "attack_unknown", "find_signs"):
                monkeypatch.setattr(measure, name, _never)

    monkeypatch.setattr(measure, "work_apart", apart)
    config = dataclasses.replace(SMOKE, jobs=2, num_repeats=1)
    results = bayesian_gain.run(config, str(tmp_path / "run"))
    made, attacked = asked
    assert [part.training for part in made] == ["hmc", "sgd"]
    assert len(attacked) == sum(row["kind"] == "known" for row in results["data"]["rows"])
