"""Settings of robust likelihoods: which methods have them, how they grow, where they start."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from bnn_adv import networks
from bnn_adv.inference import METHODS, Data, RunOptions, hmc, mcmc, members, sgd, sgmcmc, svi
from bnn_adv.inference.base import identify
from bnn_adv.inference.members import Training
from bnn_adv.inference.robust import OFF, Robust, share_of_radius, start_params
from bnn_adv.inference.states import Ensemble, train_ensemble
from experiments.launch.config import read_flags, to_json
from experiments.launch.methods import define_method_flags, make_rows

NAMES = pytest.mark.parametrize("name", METHODS)
NETWORK = networks.MLP((400,), 3, "relu")
DATA = Data(jnp.zeros((4, 2)), jnp.zeros(4, jnp.int32))
ON = Robust(worst="interval", epsilon=0.2)


def parse(name, *arguments):
    flag_values = flags.FlagValues()
    define_method_flags([name], {}, flag_values)
    flag_values(["test", *arguments])
    (row,) = make_rows(read_flags(flag_values), (name,), "mlp")
    return row


@NAMES
def test_flags_of_every_method_reach_its_likelihood(name):
    row = parse(name, f"--{name}.robust.worst=interval", f"--{name}.robust.epsilon=0.2")
    assert row.config.robust == ON
    assert row.to_json()[f"{name}.robust.epsilon"] == 0.2


@NAMES
def test_flags_are_checked_by_name(name):
    with pytest.raises(ValueError, match=rf"--{name}\.robust\.weight must be at most 1, got 2"):
        parse(name, f"--{name}.robust.weight=2")
    with pytest.raises(ValueError, match=rf"--{name}\.robust\.norm must be linf where worst is"):
        parse(name, f"--{name}.robust.worst=interval", f"--{name}.robust.norm=l2")


@NAMES
def test_flags_that_would_change_nothing_are_refused(name):
    """A radius alone would train the plain likelihood, and no record would say so."""
    given = f"--{name}.robust.epsilon=0.2"
    with pytest.raises(ValueError, match=rf"{given[:-4]} changes nothing without --.*\.worst"):
        parse(name, given)
    assert parse(name, f"--{name}.robust.worst=none", given).config.robust.is_off


@NAMES
@pytest.mark.parametrize(
    "off",
    [Robust(epsilon=0.3), Robust(worst="pgd", weight=1.0), Robust("fgsm", form="trades", beta=0)],
)
def test_what_is_off_leaves_no_trace_in_records_and_identities(name, off):
    module = METHODS[name]
    plain, same, other = (
        dataclasses.replace(module.Config(), robust=robust) for robust in (OFF, off, ON)
    )
    ours = [
        identify(name, jax.random.key(0), NETWORK, config, DATA, None)()
        for config in (plain, same, other)
    ]
    assert not [key for key in to_json(plain) if "robust" in key]
    assert to_json(plain) == to_json(same) != to_json(other)
    assert ours[0] == ours[1] != ours[2]
    assert not [key for key in ours[0] if "robust" in key]


def test_records_within_records_leave_it_out_too():
    assert "robust" not in sgd.Config().__identity__()[1]
    assert "robust" in sgd.Config(robust=ON).__identity__()[1]


@pytest.mark.parametrize("worst", ["fgsm", "pgd"])
@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if hasattr(m, "build")])
def test_chains_without_a_key_for_every_density_refuse_attacks(name, worst):
    config = METHODS[name].Config
    if issubclass(config, sgmcmc.Config):
        assert config(robust=Robust(worst)).robust.attacks
        return
    with pytest.raises(ValueError, match=rf"robust\.worst {worst} starts at random.*interval or"):
        config(robust=Robust(worst))


@NAMES
def test_only_what_optimises_has_a_warm_up(name):
    config = METHODS[name].Config
    warm = dataclasses.replace(ON, warmup=0.5)
    if issubclass(config, mcmc.Config):
        with pytest.raises(ValueError, match=r"robust\.warmup is for methods that optimise"):
            config(robust=warm)
    else:
        assert config(robust=warm).robust == warm


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if hasattr(m, "build")])
def test_what_would_change_nothing_of_chains_is_refused(name):
    config, warm = METHODS[name].Config, Ensemble(warmup=0.5)
    with pytest.raises(ValueError, match=r"ensemble\.warmup is 0\.5.*here is the plain likelihood"):
        config(ensemble=warm, init="ensemble")
    with pytest.raises(ValueError, match=r"ensemble\.warmup is 0\.5.*here is init=prior"):
        config(ensemble=warm, robust=ON, init="prior")
    small = dataclasses.replace(ON, init="ibp")
    with pytest.raises(ValueError, match=r"robust\.init is ibp.*have init=prior"):
        config(robust=small, init="prior")
    assert config(robust=small, init="ensemble", ensemble=warm).ensemble == warm


@NAMES
def test_the_worst_case_of_real_targets_is_refused(name):
    with pytest.raises(ValueError, match="needs the likelihood categorical, got gaussian"):
        METHODS[name].Config(likelihood="gaussian", robust=ON)
    assert METHODS[name].Config(likelihood="gaussian", robust=OFF)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"worst": "apgd"}, "none, interval, crown_ibp, fgsm, pgd, got 'apgd'"),
        ({"worst": "crown_ibp", "norm": "l1"}, r"norm must be linf.*got 'l1'.*fgsm, pgd"),
        ({"worst": "interval", "form": "trades"}, r"form trades needs an attack \(fgsm, pgd\)"),
        ({"lower": 1.0}, r"lower must be below upper \(1.0\), got 1.0"),
        ({"warmup": 1.5}, "warmup must be at most 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Robust(**changes)


def test_a_chain_may_start_at_an_ensemble_that_is_as_robust(monkeypatch):
    seen = []

    def stop(rng_key, network, data, config, options):
        seen.append(config)
        raise InterruptedError

    monkeypatch.setattr(sgd, "run", stop)
    robust = dataclasses.replace(ON, init="ibp")
    for warmup in (0.0, 0.5):
        own = Ensemble(num_epochs=3, learning_rate=0.02, minibatch_size=5, warmup=warmup)
        config = hmc.Config(init="ensemble", robust=robust, ensemble=own)
        with pytest.raises(InterruptedError):
            train_ensemble(
                jax.random.key(0), NETWORK, DATA, config, RunOptions(), num_transitions=1
            )
        # The radius may grow while they are trained; the chains count all of it.
        assert seen[-1].robust == dataclasses.replace(robust, warmup=warmup)
        assert config.robust.warmup == 0
        for name in ("num_epochs", "learning_rate", "minibatch_size"):
            assert getattr(seen[-1], name) == getattr(own, name)


@pytest.mark.parametrize("schedule", ["linear", "smooth"])
def test_the_radius_grows_from_nothing_to_all_of_it(schedule):
    robust = Robust("pgd", warmup=0.5, schedule=schedule)
    done = np.arange(0, 1001)
    share = np.asarray(jax.vmap(lambda n: share_of_radius(robust, n, 1000))(done))
    assert share[0] == 0
    np.testing.assert_array_equal(share[500:], 1)
    assert (np.diff(share[:501]) > -1e-7).all()
    # Neither the value nor the slope jumps, but where the warm-up ends.
    assert np.abs(np.diff(share)).max() < 0.005
    middle = {"linear": 0.25, "smooth": (1 / 13)}[schedule]
    np.testing.assert_allclose(share[125], middle, rtol=1e-5)
    assert np.abs(np.diff(share[:500], 2)).max() < 1e-3


def test_without_a_warm_up_the_radius_is_whole_from_the_start():
    assert share_of_radius(Robust("pgd"), 0, 1000) == 1
    # Epochs before SWAG's first iterate may be none.
    assert share_of_radius(Robust("pgd", warmup=0.5), 0, 0) == 1


def test_interval_initialisation_keeps_the_mean_width():
    """Kernels of mean absolute value 2 / n, all but the last; half of the units are on."""
    key = jax.random.key(0)
    robust = sgd.Config(robust=dataclasses.replace(ON, init="ibp"))
    network = networks.MLP((400, 400), 3, "relu")
    usual, drawn = (start_params(key, network, (300,), config) for config in (sgd.Config(), robust))
    for name, inputs in (("hidden_0", 300), ("hidden_1", 400)):
        size = np.abs(drawn[name]["kernel"]).mean()
        np.testing.assert_allclose(size, 2 / inputs, rtol=0.01)
        np.testing.assert_array_equal(drawn[name]["bias"], usual[name]["bias"])
    jax.tree.map(np.testing.assert_array_equal, drawn["logits"], usual["logits"])
    initial = networks.init_params(key, network, (300,))
    jax.tree.map(np.testing.assert_array_equal, usual, initial)


@pytest.mark.parametrize("module", [sgd, svi])
def test_training_starts_there(module):
    config = module.Config(robust=dataclasses.replace(ON, init="ibp"))
    if module is sgd:
        training = Training(NETWORK, config, sgd.likelihood_loss)
        found = members.init(jax.random.key(0), DATA, training=training).params["hidden_0"][
            "kernel"
        ]
    else:
        problem, state = svi.init(jax.random.key(0), NETWORK, DATA, config)
        found = problem.svi.get_params(state.svi)["hidden_0/kernel_auto_loc"]
    np.testing.assert_allclose(np.abs(found).mean(), 2 / 2, rtol=0.1)
