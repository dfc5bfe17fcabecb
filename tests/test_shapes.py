"""Shapes in signatures are checked while the tests run: a wrong one is refused by its name."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from bnn_adv import networks
from bnn_adv.attacks import pgd, threat
from bnn_adv.evaluation import metrics
from bnn_adv.posteriors import decision, posterior
from tests.conftest import random_posterior


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("x", lambda: networks.max_pool(jnp.zeros((4, 5, 1)), stride=1)),
        ("x", lambda: posterior.log_probs(random_posterior(2), jnp.zeros((3, 6), jnp.int32))),
        ("y", lambda: decision.is_fooled(jnp.zeros((3, 4)), jnp.zeros(2, jnp.int32))),
        ("x_clean", lambda: threat.L2(0.1).project(jnp.zeros((3, 6)), jnp.zeros((3, 7)))),
        ("gradient", lambda: threat.LInf(0.1).ascend(jnp.zeros(()), jnp.zeros((3, 6)))),
        ("rng_keys", lambda: pgd.init(jnp.zeros((3, 2)), None, jnp.zeros((3, 6)), None, None)),
        ("y", lambda: metrics.accuracy(np.zeros((3, 4), np.float32), np.zeros(2, int))),
    ],
)
def test_a_wrong_shape_is_refused_by_the_name_of_the_argument(name, call):
    with pytest.raises(TypeCheckError, match=rf"whilst typechecking parameter '{name}'"):
        call()


def test_a_wrong_shape_that_is_returned_is_refused():
    def apply_fn(params, x):
        return jnp.zeros(len(x))

    one = posterior.Posterior(apply_fn, {"w": jnp.zeros((1, 2))})
    with pytest.raises(TypeCheckError, match=r"return value of .*Posterior.logits"):
        one.logits({"w": jnp.zeros(2)}, jnp.zeros((3, 6)))


def test_what_is_no_array_is_left_to_the_library():
    with pytest.raises(ValueError, match="sample_chunk must be at least 1"):
        posterior.check_sample_chunk(random_posterior(2), "all", jnp.zeros((3, 6)))
