"""What every inference method must do: a newcomer in the registry is tested by being there."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import networks
from bnn_adv.compute.disk import store_in
from bnn_adv.compute.settings import fields
from bnn_adv.inference import METHODS, mcmc, minibatches, states
from bnn_adv.inference.base import InferenceResult, RunOptions, keep_on_device
from bnn_adv.inference.densities import Data
from bnn_adv.posteriors.posterior import predict_log_probs

NETWORK = networks.MLP((4,), 3, "tanh")
RNG = np.random.default_rng(0)
DATA = Data(
    jnp.asarray(RNG.uniform(size=(50, 2)), jnp.float32), jnp.asarray(np.arange(50) % 3, jnp.int32)
)
CHAINS = {"num_samples": 6, "num_warmup": 4, "num_chains": 2}
BATCHES = {**CHAINS, "thinning": 3, "minibatch_size": 16}
TINY = {
    "sgd": {"num_members": 2, "num_epochs": 2, "minibatch_size": 16},
    "svi": {"num_samples": 3, "num_epochs": 2, "minibatch_size": 16},
    "laplace": {"num_samples": 3, "num_epochs": 2, "minibatch_size": 16},
    "mc_dropout": {"num_samples": 3, "num_epochs": 2, "minibatch_size": 16, "rate": 0.5},
    "swag": {
        **{"num_samples": 3, "num_epochs": 1, "minibatch_size": 16},
        **{"num_runs": 2, "num_swag_epochs": 3, "rank": 2},
    },
    "hmc": {**CHAINS, "step_size": 0.01},
    "nuts": {**CHAINS, "step_size": 0.01, "max_num_doublings": 3},
    "mclmc": {**CHAINS, "thinning": 2, "num_tune": 20},
    "adjusted_mclmc": {
        **CHAINS,
        "num_integration_steps": 2.0,
        "adapt": "tuner",
        "num_tune": 20,
    },
    "sgld": {**BATCHES, "step_size": 1e-3},
    "sghmc": {**BATCHES, "step_size": 0.01, "friction": 10.0},
    "csgmcmc": {**BATCHES, "step_size": 1e-3, "samples_per_cycle": 2},
}
GRADIENTS = {
    # Chains, transitions, gradients a transition; of sampling, warm-up and tuning.
    "hmc": (2 * 6 * 10, 2 * 4 * 10),
    "mclmc": (2 * 12 * 2, 2 * 4 * 2, 2 * 20 * 2),
    # 16 of 50 examples; three cycles of thirty transitions.
    "sgld": (2 * 18 * 16 / 50, 2 * 4 * 16 / 50),
    "sghmc": (2 * 18 * 16 / 50, 2 * 4 * 16 / 50),
    "csgmcmc": (2 * 90 * 16 / 50, 2 * 4 * 16 / 50),
}
NAMES = pytest.mark.parametrize("name", METHODS)


def run(name, key=0, data=DATA, **options):
    module = METHODS[name]
    config = module.Config(**{**TINY.get(name, {}), **options})
    return module.run(jax.random.key(key), NETWORK, data, config, RunOptions(held_out=DATA))


@NAMES
def test_has_the_members_of_its_siblings(name):
    module = METHODS[name]
    assert dataclasses.is_dataclass(module.Config)
    assert hash(module.Config()) == hash(module.Config())
    is_kernel = hasattr(module, "build")
    members = ("Config", *(("State", "Info", "build") if is_kernel else ()), "run")
    for member in (module, *(getattr(module, member) for member in members)):
        assert member.__doc__
    assert all(field.help for field in fields(module.Config))
    assert module.UNIT
    assert module.Config().num_draws >= 1
    if is_kernel:
        assert issubclass(module.Config, mcmc.Config)
        # Everything that one chain does not need is the driver's.
        source = Path(module.__file__).read_text("utf-8")
        assert len(source.splitlines()) <= 120
        for word in ("Mesh", "Checkpoints", "vmap", "for done"):
            assert word not in source


@pytest.mark.slow
@NAMES
def test_returns_stacked_draws_and_a_record_for_json(name):
    calls = []
    module = METHODS[name]
    config = module.Config(**TINY.get(name, {}))
    result = module.run(
        jax.random.key(0),
        NETWORK,
        DATA,
        config,
        RunOptions(
            held_out=DATA, progress=lambda done, total, numbers: calls.append((done, total))
        ),
    )
    assert isinstance(result, InferenceResult)
    template = networks.init_params(jax.random.key(0), NETWORK, (2,))
    shapes = jax.tree.map(
        lambda draw, one: draw.shape[1:] == one.shape, result.posterior.samples, template
    )
    assert all(jax.tree.leaves(shapes))
    assert predict_log_probs(result.posterior, DATA.x).shape == (50, 3)
    record = json.loads(json.dumps(result.diagnostics, allow_nan=False))
    assert isinstance(record["warnings"], list)
    assert 0 <= record["held_out_accuracy"] <= 1
    keys = ("num_gradients", "num_warmup_gradients", "num_tuning_gradients")
    spent = [record[key] for key in keys if key in record]
    assert spent == pytest.approx(GRADIENTS.get(name, spent))
    assert (result.chains is not None) == ("num_chains" in record) == bool(spent)
    assert ("e_bfmi" in record) == (name in ("hmc", "nuts"))
    assert ("energy_error_variance" in record) == (name == "mclmc")
    assert calls[-1][0] == calls[-1][1]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.slow
@NAMES
def test_draws_go_where_they_are_told_to(name, tmp_path):
    module = METHODS[name]
    config = module.Config(**TINY.get(name, {}))
    stores = keep_on_device, store_in(tmp_path / "draws")
    usual, stored = (
        module.run(jax.random.key(0), NETWORK, DATA, config, RunOptions(DATA, store=store))
        for store in stores
    )
    same = jax.tree.map(
        lambda a, b: a == (b if isinstance(b, str) else pytest.approx(b, rel=1e-4)),
        stored.diagnostics,
        usual.diagnostics,
    )
    assert all(jax.tree.leaves(same)), (stored.diagnostics, usual.diagnostics)
    everything = stored.posterior.take(np.arange(usual.posterior.num_samples)).samples
    jax.tree.map(np.testing.assert_array_equal, everything, usual.posterior.samples)


@pytest.mark.slow
@NAMES
def test_everything_follows_from_the_key(name):
    first, again, other = run(name), run(name), run(name, key=1)
    leaves = [jax.tree.leaves(result.posterior.samples) for result in (first, again, other)]
    for a, b in zip(leaves[0], leaves[1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, c) for a, c in zip(leaves[0], leaves[2], strict=True))


@pytest.mark.slow
@NAMES
def test_draws_differ_from_one_another(name):
    samples = jax.tree.leaves(run(name).posterior.samples)
    assert not np.array_equal(samples[-1][0], samples[-1][-1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sgd", {"num_members": 0}, "num_members.*got 0"),
        ("sgd", {"learning_rate": 0.0}, "learning_rate.*got 0.0"),
        ("svi", {"num_samples": 0}, "num_samples.*got 0"),
        ("svi", {"guide": "flow"}, "mean_field, low_rank, got 'flow'"),
        ("svi", {"init": "published", "guide": "low_rank"}, "guide mean_field only"),
        ("svi", {"likelihood": "poisson"}, "poisson"),
        ("laplace", {"structure": "full"}, "last_layer, diagonal, kronecker, got 'full'"),
        ("mc_dropout", {"rate": 1.0}, "rate must be below 1, got 1.0"),
        ("swag", {"rank": 1}, "rank must be at least 2, got 1"),
        ("hmc", {"thinning": 0}, "thinning.*got 0"),
        ("hmc", {"adapt": "all"}, "window, step_size, none, got 'all'"),
        ("hmc", {"jitter": 0.1}, "jitter needs a trajectory_length, got 0.1 alone"),
        ("hmc", {"jitter": 1.0, "trajectory_length": 1.0}, "jitter must be below 1, got 1.0"),
        ("nuts", {"ensemble": states.Ensemble}, "ensemble must be a"),
        ("mclmc", {"num_tune": 5}, "num_tune must be at least 20, got 5"),
        ("hmc", {"target_acceptance_rate": 1.0}, "target_acceptance_rate"),
        ("hmc", {"step_size": -1.0}, "step_size"),
        ("sgld", {"minibatch_size": 0}, "minibatch_size.*got 0"),
        ("sghmc", {"precondition": 0.5}, "precondition is for chains on all data: hmc.*got 0.5"),
        ("nuts", {"precondition": 1.5}, "precondition must be at most 1, got 1.5"),
        ("sghmc", {"friction": 101.0}, r"at most 1 / step_size \(100\), got 101"),
        ("sghmc", {"gradient_variance": 2001.0}, r"friction / .*\(2000\), got 2001"),
        ("csgmcmc", {"exploration": 0.9999999999}, r"num_samples makes 1.*transitions a chain"),
        ("sgld", {"num_warmup": 2**31}, r"num_samples makes 2,147,483,6\d\d transitions a chain"),
        ("csgmcmc", {"samples_per_cycle": 4}, r"multiple of samples_per_cycle \(4\), got 6"),
        ("csgmcmc", {"exploration": 1.0}, "exploration must be below 1, got 1.0"),
    ],
)
def test_bad_settings_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        run(name, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what"), [("sgd", "training loss"), ("svi", "ELBO"), ("swag", "training loss")]
)
def test_losses_that_are_not_finite_stop_the_run(name, what):
    with pytest.raises(FloatingPointError, match=f"{what} is not finite at epoch .*learning_rate"):
        run(name, learning_rate=1e38)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgld", "sghmc", "csgmcmc"])
def test_chains_that_are_not_finite_stop_the_run(name):
    """Nothing is rejected: such a chain would never return."""
    options = {"friction": 1e-9} if name == "sghmc" else {}
    with pytest.raises(FloatingPointError, match=r"log density is not finite .* Lower step_size"):
        run(name, step_size=1e8, num_warmup=10, **options)


@NAMES
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(DATA.x.at[3].set(jnp.nan), DATA.y), "NaN or infinite"),
        (Data(DATA.x, DATA.y.at[3].set(-1)), "found -1"),
        (Data(DATA.x, DATA.y.at[3].set(99)), "found 0..99"),
        (Data(DATA.x, DATA.y.astype(jnp.float32)), "Labels must be integers"),
        (Data(DATA.x[:0], DATA.y[:0]), "at least 1"),
        (Data((255 * DATA.x).astype(jnp.int32), DATA.y), "Divide bytes"),
    ],
)
def test_data_that_cannot_be_learnt_are_refused_before_work(name, data, message):
    with pytest.raises(ValueError, match=message):
        run(name, data=data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["svi", "laplace", "mc_dropout", "swag"])
def test_fresh_draws_are_new_and_of_the_same_distribution(name):
    result = run(name, num_samples=400, num_epochs=1)
    old = result.posterior.samples["logits"]["kernel"]
    for sample in (result.sample, jax.jit(result.sampler.sample, static_argnums=1)):
        new = sample(jax.random.key(7), 400).samples["logits"]["kernel"]
        assert not np.array_equal(old, new)
        error = np.hypot(old.std(axis=0), new.std(axis=0)) / np.sqrt(400)
        assert (np.abs(old.mean(axis=0) - new.mean(axis=0)) < 5 * error).all()


def test_what_cannot_draw_anew_says_so():
    assert run("sgd").sample is None
    assert run("sgd").sampler is None


@pytest.mark.slow
def test_published_start_has_wide_scales_and_the_default_is_the_network():
    wide = run("svi", init="published", num_epochs=1, num_samples=200, learning_rate=1e-9)
    narrow = run("svi", num_epochs=1, num_samples=200, learning_rate=1e-9)
    # Scales are softplus(N(0, 1)): their mean is near 0.8; the default is 0.01.
    assert (
        0.5 < np.mean([w.std(axis=0).mean() for w in jax.tree.leaves(wide.posterior.samples)]) < 1.2
    )
    for leaf in jax.tree.leaves(narrow.posterior.samples):
        np.testing.assert_allclose(leaf.std(axis=0), 0.01, rtol=0.3)


@pytest.mark.slow
def test_ensemble_members_do_not_depend_on_how_many_are_trained_at_once():
    together = run("sgd", num_members=3, member_chunk=3).posterior.samples
    in_turn = run("sgd", num_members=3, member_chunk=2).posterior.samples
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), together, in_turn
    )


@pytest.mark.parametrize(("num_data", "batch"), [(10, 5), (10, 4), (3, 8), (1, 1)])
def test_minibatches_see_every_example(num_data, batch):
    indices = minibatches.shuffle(jax.random.key(0), num_data, batch)
    assert indices.shape == (-(-num_data // min(batch, num_data)), min(batch, num_data))
    assert set(np.ravel(indices).tolist()) == set(range(num_data))
    for row in np.asarray(indices):
        assert len(set(row.tolist())) == len(row)


@pytest.mark.parametrize("name", ["hmc", "sgld"])
def test_so_long_a_thinning_that_a_chain_never_ends_is_refused(name):
    with pytest.raises(ValueError, match="thinning must be at most 1000000, got 1000001"):
        METHODS[name].Config(thinning=1_000_001)
