"""Half precision and float64: they change the last digits, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import ATTACKS, run_attack
from bnn_adv.attacks.objectives import get_objective, value_and_gradient
from bnn_adv.attacks.threat import L1, LInf
from bnn_adv.attacks.transfer import make_surrogate
from bnn_adv.evaluation.uncertainty.measures import measure
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(8, 6)).astype(np.float32)
SAMPLES = {"w": RNG.normal(size=(5, 6, 4)).astype(np.float32)}


def linear(params, x):
    return (x - 0.5) @ params["w"]


POSTERIOR = Posterior(linear, SAMPLES)
Y = np.asarray(predict_log_probs(POSTERIOR, X)).argmax(1).astype(np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_x64_changes_nothing_but_precision(name):
    """The same random numbers, the same steps: images differ by rounding alone."""
    attack = ATTACKS[name].build() if name == "fgsm" else ATTACKS[name].build(num_steps=2)
    threat = L1(0.3) if attack.norms is None or "l1" in attack.norms else LInf(0.1)
    found = []
    for on in (False, True):
        with jax.enable_x64(on):
            objective = get_objective("log_predictive_margin")
            found.append(
                run_attack(jax.random.key(0), attack, objective, POSTERIOR, X, Y, threat=threat)
            )
    assert found[1].dtype == np.float32
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_x64_draws_the_same_surrogate():
    for seed in range(4):
        chosen = []
        for on in (False, True):
            with jax.enable_x64(on):
                one = make_surrogate(jax.random.key(seed), POSTERIOR, "one_draw")
                chosen.append(np.asarray(one.samples["w"]))
        np.testing.assert_array_equal(*chosen)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["mean_probabilities", "mean_logits"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_logits_are_averaged_in_float32(dtype, rule):
    def narrow(params, x):
        return linear(params, x).astype(dtype)

    many = {"w": RNG.normal(size=(1000, 6, 4)).astype(np.float32)}
    posterior = Posterior(narrow, many, decision_rule=rule)
    logits = np.asarray(jax.vmap(lambda w: narrow({"w": w}, X))(many["w"]), np.float64)
    if rule == "mean_logits":
        want = np.exp(logits.mean(axis=0))
        want /= want.sum(axis=1, keepdims=True)
    else:
        each = np.exp(logits)
        want = (each / each.sum(axis=-1, keepdims=True)).mean(axis=0)
    found = predict_log_probs(posterior, X)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(np.exp(found), want, atol=1e-5)
    np.testing.assert_allclose(np.exp(measure(posterior, X).log_probs), want, atol=1e-5)
    evaluation = value_and_gradient(get_objective("loss_of_mean"), posterior, X, Y)
    np.testing.assert_allclose(evaluation.value, -np.log(want[np.arange(8), Y]), atol=1e-4)
