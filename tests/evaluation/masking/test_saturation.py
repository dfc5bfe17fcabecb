"""Logit scale of a posterior whose logits are its parameters."""

import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.evaluation.masking.saturation import measure_logits
from bnn_adv.posteriors.posterior import Posterior


def bias_apply(params, x):
    return params + 0 * x.sum(-1, keepdims=True)


@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_scale_of_known_logits(batch_size):
    draws = jnp.asarray([[1.0, -2.0, 0.0], [400.0, 0.0, -800.0], [3.0, 3.0, -3.0]])
    scale = measure_logits(
        Posterior(bias_apply, draws), np.zeros((5, 2), np.float32), batch_size=batch_size
    )
    assert scale.mean_magnitude == pytest.approx(1212 / 9)
    assert scale.median_gap == pytest.approx(1.0)  # of 1, 400 and 0
    assert scale.one_hot_share == pytest.approx(1 / 3)
