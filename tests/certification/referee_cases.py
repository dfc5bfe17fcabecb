"""Small posteriors of several kinds of network, with inputs that most of them are sure of."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from bnn_adv.posteriors.posterior import Posterior, predict_log_probs


def mlp(activation):
    """Two hidden layers; params ``{"w", "b", "v", "c", "u"}``."""

    def apply_fn(params, x):
        hidden = activation(x.reshape(x.shape[0], -1) @ params["w"] + params["b"])
        return activation(hidden @ params["v"] + params["c"]) @ params["u"]

    return apply_fn


relu_mlp, tanh_mlp = mlp(jax.nn.relu), mlp(jnp.tanh)


def draw_weights(rng, count, sizes=(4, 6, 5, 3), spread=0.1):
    """Weights of ``mlp``, scattered around one network, [count, ...] each."""
    shapes = {
        "w": sizes[:2],
        "b": sizes[1:2],
        "v": sizes[1:3],
        "c": sizes[2:3],
        "u": sizes[2:],
    }
    found = {}
    for name, shape in shapes.items():
        centre = rng.normal(size=shape) * 1.5 / np.sqrt(shape[0])
        moved = centre + spread * rng.normal(size=(count, *shape))
        found[name] = jnp.asarray(moved, jnp.float32)
    return found


def label(posterior, x):
    """Labels that the posterior gives, but for the last one."""
    log_probs = np.asarray(predict_log_probs(posterior, x))
    y = log_probs.argmax(axis=1)
    y[-1] = (y[-1] + 1) % log_probs.shape[1]
    return y


def relu_posterior():
    """Return draws, inputs with two axes, and labels."""
    rng = np.random.default_rng(7)
    posterior = Posterior(relu_mlp, draw_weights(rng, 4, spread=0.35))
    x = rng.uniform(size=(14, 2, 2)).astype(np.float32)
    return posterior, x, label(posterior, x)


def tanh_posterior():
    """Return draws whose mean logits predict, inputs and labels."""
    rng = np.random.default_rng(1)
    weights = draw_weights(rng, 3)
    posterior = Posterior(tanh_mlp, weights, decision_rule="mean_logits")
    x = rng.uniform(size=(10, 4)).astype(np.float32)
    return posterior, x, label(posterior, x)


class Pooled(nn.Module):
    """A strided convolution, leaky relu, max pooling and a linear layer."""

    @nn.compact
    def __call__(self, x):
        """Return [B, 3]."""
        x = nn.Conv(2, (3, 3), strides=2, name="conv")(x)
        x = nn.max_pool(nn.leaky_relu(x), (2, 2), (1, 1))
        return nn.Dense(3, name="logits")(x.reshape(x.shape[0], -1))


def conv_apply(params, x):
    """Logits of ``Pooled``."""
    return Pooled().apply({"params": params}, x)


def conv_posterior():
    """Return draws of a convolutional network, images and labels."""
    rng = np.random.default_rng(2)
    x = rng.uniform(size=(8, 6, 6, 1)).astype(np.float32)
    params = Pooled().init(jax.random.key(0), x[:1])["params"]
    samples = jax.tree.map(
        lambda w: 2 * w[None] + jnp.asarray(rng.normal(size=(3, *w.shape)) / 100, jnp.float32),
        params,
    )
    posterior = Posterior(conv_apply, samples)
    return posterior, x, label(posterior, x)
