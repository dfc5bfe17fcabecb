"""What one look at gradients says, of all objectives at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import fgsm
from bnn_adv.attacks.objectives import OBJECTIVES
from bnn_adv.attacks.threat import L2, LInf
from bnn_adv.evaluation.masking.gradients import look_at_gradients
from bnn_adv.posteriors.posterior import Posterior, predict_log_probs
from tests.flat import run_attack

RNG = np.random.default_rng(0)
X = RNG.uniform(0.1, 0.9, (5, 4)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1])
POSTERIOR = Posterior(
    lambda params, x: jnp.tanh(x @ params["w"]),
    {"w": jnp.asarray(RNG.normal(size=(3, 4, 3)), jnp.float32)},
)
CHOSEN = tuple(OBJECTIVES[name] for name in ("mean_logit_margin", "scaled_margin"))


@pytest.mark.slow
@pytest.mark.parametrize("threat", [LInf, L2])
def test_one_step_is_that_of_the_fast_gradient_sign_method(threat):
    radii = np.linspace(0.05, 0.3, 5).astype(np.float32)
    found = look_at_gradients(
        CHOSEN, POSTERIOR, X, Y, threat=threat(radii), batch_size=3, sample_chunk=1
    )
    log_probs = predict_log_probs(POSTERIOR, X, sample_chunk=1)
    np.testing.assert_allclose(found.log_probs, log_probs, atol=1e-6)
    for objective in CHOSEN:
        expected = run_attack(
            jax.random.key(0), fgsm.build(), objective, POSTERIOR, X, Y, threat=threat(radii)
        )
        look = found.of[objective.name]
        np.testing.assert_allclose(look.one_step, expected, atol=1e-6)
        assert look.gradient.shape == X.shape
        assert not look.zero.any()
