"""What is kept of every draw, what chains cost, and what ArviZ makes of them."""

import builtins

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.inference import Data, InferenceResult, RunOptions, hmc, load_chains, mclmc
from bnn_adv.inference.records import MOST_POINTS, name_file, record_chains, save_chains
from bnn_adv.inference.transitions import describe_energies, ess_per_second
from bnn_adv.networks import MLP, count_params

NETWORK = MLP((), 3)
RNG = np.random.default_rng(0)
DATA = Data(
    jnp.asarray(RNG.uniform(size=(30, 2)), jnp.float32), jnp.asarray(np.arange(30) % 3, jnp.int32)
)
CONFIG = hmc.Config(
    num_samples=40,
    num_warmup=5,
    num_chains=2,
    step_size=0.1,
    num_integration_steps=3,
    adapt="step_size",
)


@pytest.fixture(scope="module")
def sampled():
    options = RunOptions(held_out=Data(DATA.x[:4], DATA.y[:4]))
    return hmc.run(jax.random.key(1), NETWORK, DATA, CONFIG, options)


@pytest.mark.slow
def test_arviz_finds_what_the_diagnostics_say(sampled):
    weights = "logits.kernel"
    tree, found = sampled.to_arviz([weights]), sampled.diagnostics
    # Nothing that ArviZ's loo would take for the data of the fit.
    assert set(tree.children) == {"posterior", "sample_stats"}
    log_prob = tree["posterior"]["held_out_log_prob"]
    assert log_prob.dims == ("chain", "draw", "held_out_point")
    assert log_prob.shape == (2, 40, 4)
    assert set(tree["sample_stats"].data_vars) == {
        *("lp", "energy", "energy_error", "acceptance_rate", "diverging"),
        *("num_gradients", "is_longest", "step_size"),
    }
    assert all(each.dims == ("chain", "draw") for each in tree["sample_stats"].data_vars.values())
    kernel = sampled.posterior.samples["logits"]["kernel"]
    np.testing.assert_array_equal(tree["posterior"][weights].values.reshape(kernel.shape), kernel)
    np.testing.assert_allclose(tree["sample_stats"]["lp"], found["log_density"], rtol=1e-12)
    each = arviz_stats.rhat(tree)["held_out_log_prob"].values
    sizes = arviz_stats.ess(tree)["held_out_log_prob"].values
    assert found["max_rhat"] == pytest.approx(each.max())
    assert found["median_rhat"] == pytest.approx(np.median(each))
    assert found["rhat_95"] == pytest.approx(each.max())
    assert found["min_ess"] == pytest.approx(sizes.min())
    stats = tree["sample_stats"]
    assert found["log_density_rhat"] == pytest.approx(float(arviz_stats.rhat(stats["lp"])))
    np.testing.assert_allclose(found["e_bfmi"], arviz_stats.bfmi(tree)["energy"].values)


@pytest.mark.slow
def test_the_energy_is_that_of_a_new_momentum(sampled):
    """Twice its kinetic part, of d independent standard normal numbers, is chi-squared."""
    stats, size = sampled.chains.sample_stats, count_params(sampled.posterior.take([0]).samples)
    kinetic = 2 * (stats["energy"][:, 1:] + stats["lp"][:, :-1]) + size
    assert kinetic.min() > 0
    assert abs(kinetic.mean() - size) < 5 * np.sqrt(2 * size / kinetic.size)


def test_every_gradient_is_counted(sampled):
    found = sampled.diagnostics
    assert (found["num_gradients"], found["num_warmup_gradients"]) == (2 * 40 * 3, 2 * 5 * 3)
    assert "num_tuning_gradients" not in found
    assert found["min_ess_per_gradient"] == found["min_ess"] / 240
    assert found["median_ess_per_gradient"] == found["median_ess"] / 240


def test_thinned_transitions_are_summarised():
    rows = np.arange(12.0).reshape(3, 2, 2)  # draws, thinning, chains
    info = hmc.Info(rows, rows == 4, -rows, 2 * rows, rows.astype(np.int32), 3 * rows, rows == 7)
    stats, kept = record_chains(info, np.zeros((2, 3, 150)), {"step_size": [0.1, 0.2]})
    np.testing.assert_array_equal(stats["lp"], [[4, 12, 20], [6, 14, 22]])
    np.testing.assert_array_equal(stats["energy"], 1.5 * stats["lp"])
    np.testing.assert_array_equal(stats["acceptance_rate"], [[1, 5, 9], [2, 6, 10]])
    np.testing.assert_array_equal(stats["diverging"], [[False, True, False], [False] * 3])
    np.testing.assert_array_equal(stats["is_longest"], [[False] * 3, [False, True, False]])
    np.testing.assert_array_equal(stats["num_gradients"], [[2, 10, 18], [4, 12, 20]])
    np.testing.assert_allclose(stats["step_size"], [[0.1] * 3, [0.2] * 3])
    assert kept.shape == (2, 3, MOST_POINTS)


def test_energy_errors_are_those_of_the_worst_chain():
    """One chain whose steps are too long is not hidden by the others; what is not finite is out."""
    errors = np.array([[[1.0, 10.0]], [[-1.0, -10.0]], [[np.nan, np.inf]]])  # 2 chains
    info = mclmc.Info(np.zeros_like(errors, bool), errors, errors, errors)
    assert describe_energies(info, 5) == {"energy_error_variance": 20.0}
    info = info._replace(energy_error=np.full_like(errors, np.nan))
    assert describe_energies(info, 5) == {"energy_error_variance": None}


def test_records_are_read_back(sampled, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no chains: methods without"):
        load_chains(tmp_path)
    for missing in (tmp_path / "run", tmp_path / "hmc_chains.npz"):
        with pytest.raises(FileNotFoundError, match=f"^{missing} is not there: give the run dir"):
            load_chains(missing)
    for name in ("hmc", "nuts"):
        save_chains(tmp_path / name_file(name), sampled.chains)
    jax.tree.map(np.testing.assert_array_equal, load_chains(tmp_path, "nuts"), sampled.chains)
    with pytest.raises(ValueError, match="holds chains of hmc, nuts: give one"):
        load_chains(tmp_path)
    with pytest.raises(FileNotFoundError, match="no chains of vi, only of hmc, nuts"):
        load_chains(tmp_path, "vi")


def test_without_chains_or_arviz_it_is_said_so(sampled, monkeypatch):
    with pytest.raises(ValueError, match="no Markov chains"):
        InferenceResult(sampled.posterior, {}, None).to_arviz()
    with pytest.raises(ValueError, match="has no kernel; it has logits"):
        sampled.to_arviz(["kernel"])
    ordinary = builtins.__import__

    def missing(name, *rest, **options):
        if name == "arviz_base":
            raise ImportError(name)
        return ordinary(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="pip install"):
        sampled.to_arviz()


def test_effective_draws_per_second():
    found = ess_per_second({"training_seconds": 4.0, "min_ess": 100.0, "median_ess": 200.0})
    assert found == {"min_ess_per_second": 25.0, "median_ess_per_second": 50.0}
    assert ess_per_second({"training_seconds": 4.0}) == ess_per_second({"min_ess": 1.0}) == {}
