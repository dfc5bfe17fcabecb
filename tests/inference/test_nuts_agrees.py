"""BlackJAX's NUTS, through our densities, against NumPyro's on its own model."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

from bnn_adv import networks
from bnn_adv.inference import nuts
from bnn_adv.inference.densities import Data, Prior

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = (X @ [1.0, -1.0, 0.5] + RNG.logistic(size=60) > 0).astype(np.int32)


def model(x, y):
    kernel = numpyro.sample("kernel", dist.Normal(0, 1).expand((3, 2)).to_event(2))
    bias = numpyro.sample("bias", dist.Normal(0, 1).expand((2,)).to_event(1))
    numpyro.sample("y", dist.Categorical(logits=x @ kernel + bias), obs=y)


@pytest.mark.slow
def test_both_samplers_agree_on_logistic_regression():
    ours = nuts.run(
        jax.random.key(0),
        networks.MLP((), num_classes=2),
        Data(jnp.asarray(X), jnp.asarray(Y)),
        nuts.Config(
            num_samples=800,
            num_warmup=300,
            num_chains=2,
            step_size=0.1,
            prior=Prior(1.0),
        ),
    ).posterior.samples["logits"]
    reference = MCMC(
        NUTS(model),
        num_warmup=300,
        num_samples=800,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    reference.run(jax.random.key(1), X, Y)
    theirs = reference.get_samples()

    def summaries(kernel, bias):
        flat = np.concatenate([np.reshape(kernel, (-1, 6)), np.asarray(bias)], axis=1)
        return np.concatenate([flat, flat**2], axis=1).astype(np.float64)

    means, errors = [], []
    for samples in (ours, theirs):
        values = summaries(samples["kernel"], samples["bias"])
        ess = effective_sample_size(values.reshape(2, 800, -1))
        assert ess.min() > 200
        means.append(values.mean(axis=0))
        errors.append(values.std(axis=0) / np.sqrt(ess))
    assert (np.abs(means[0] - means[1]) < 5 * np.hypot(*errors)).all()
