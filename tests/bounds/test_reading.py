"""What networks compute is read rightly, bounds hold, and what is not known is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

from bnn_adv.bounds import CertificationError, reading
from bnn_adv.networks import get_apply_fn, init_params
from bnn_adv.networks.convnet import Convolve, max_pool
from bnn_adv.posteriors.posterior import Posterior
from tests.bounds.cases import Checked

DIM, UNITS, CLASSES = 4, 3, 3


def dense(seed=0):
    """Weights of one hidden layer."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (DIM, UNITS), "b": (UNITS,), "v": (UNITS, CLASSES), "c": (CLASSES,)}
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def with_activation(activate):
    return lambda p, x: activate(x @ p["w"] + p["b"]) @ p["v"] + p["c"]


@jax.custom_vjp
def wrong_derivative(z):
    return jnp.maximum(z, 0.0)


wrong_derivative.defvjp(lambda z: (wrong_derivative(z), None), lambda _, g: (-3 * g,))


def scanned(z):
    def turn(carry, scale):
        carry = jax.nn.relu(carry * scale + 0.125)
        return carry, carry.sum(axis=1)

    carry, sums = lax.scan(turn, z, jnp.asarray([1.0, -1.5]))
    back = lax.scan(lambda c, row: (c + row, c), sums[0], sums, reverse=True)[1]
    return carry + back.T.sum(axis=1, keepdims=True)


def moved(z):
    """Whatever is affine, in a row."""
    left, right = jnp.split(z, [2], axis=1)
    z = jnp.concatenate([right, left, jnp.ones((1, 1))], axis=1)[:, ::-1]
    z = jnp.pad(z, ((0, 0), (1, 0)), constant_values=0.5) - 0.25 * jnp.ones(UNITS + 2)
    z = z.at[0, jnp.array([1, 1, 1])].add(z[0, :3]).at[0, 2].add(2.0)
    z = jnp.cumsum(z, axis=1)[:, jnp.array([3, 1, 4])] / 4.0
    z = jnp.einsum("bi,ij->jb", z, jnp.arange(9.0).reshape(3, 3) / 8 - 1).T
    z = lax.dynamic_slice_in_dim(z, 0, 1) + jnp.roll(z, 2, axis=1)
    return jnp.where(jnp.arange(UNITS) % 2 == 0, -z, jnp.mean(z, axis=1, keepdims=True))


KINKS = {
    "relu": jax.nn.relu,
    "leaky_relu": lambda z: jax.nn.leaky_relu(z, 0.25),
    "leaky_where": lambda z: jnp.where(z > 0, z, 0.125 * z),
    "leaky_where_less": lambda z: jnp.where(z <= 0, -0.25 * z, z * 2.0),
    "relu_where": lambda z: jnp.where(z < jnp.zeros_like(z), 0.0, z),
    "leaky_maximum": lambda z: jnp.maximum(z, 0.25 * z),
    "abs": jnp.abs,
    "clip": lambda z: jnp.clip(z, -0.5, 0.75),
    "minimum": lambda z: jnp.minimum(0.375, z),
    "wrong_derivative": wrong_derivative,
    "stop_gradient": lambda z: lax.stop_gradient(jax.nn.relu(z)) + z,
}

SMOOTH = {
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "elu_scaled": lambda z: jax.nn.elu(z, 2.0) + jax.nn.elu(z, jnp.float32(0.5)),
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "log_sigmoid": jax.nn.log_sigmoid,
    "erf": jax.scipy.special.erf,
    "exp": jnp.exp,
    "square": jnp.square,
    "product_with_itself": lambda z: z * z + z**2,
    "remat": jax.checkpoint(lambda z: jnp.tanh(z)),
}

MIXING = {
    "largest_of_two": lambda z: jnp.maximum(z, z[:, ::-1]),
    "reduce_max": lambda z: z - jnp.max(z, axis=1, keepdims=True),
    "logaddexp": lambda z: jnp.logaddexp(z[:, :1], z) + jnp.logaddexp(1.0, z),
    "vmap": lambda z: jax.vmap(lambda row: jax.nn.relu(row) @ jnp.eye(UNITS))(z),
    "loop": lambda z: lax.fori_loop(0, 2, lambda _, s: jax.nn.relu(0.5 - s), z),
}


def side_by_side(units):
    """Add up what units of each kind say, each with a weight of its own."""
    return lambda z: sum((k + 1) / 8 * unit(z) for k, unit in enumerate(units.values()))


HIDDEN = {
    "kinks": side_by_side(KINKS),
    "smooth": side_by_side(SMOOTH),
    "mixing": side_by_side(MIXING),
    "residual": lambda z: z + jax.nn.relu(z + jax.nn.relu(z) * 0.5) - z,
    "scan": scanned,
    "affine": moved,
    "selu": jax.nn.selu,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HIDDEN)
def test_bounds_hold_of_every_kind_of_unit(name):
    rng = np.random.default_rng(0)
    # Intervals of the first layer are exact, so that linear bounds are left to deeper networks.
    most_rows = 64 if name == "residual" else 0
    network = Checked(with_activation(HIDDEN[name]), dense(), (DIM,), most_rows=most_rows)
    for seed in range(12):
        draw, x = dense(seed), rng.uniform(0, 1, DIM).astype(np.float32)
        network.check(draw, x, (0.02, 0.3, 1.0)[seed % 3], rng, count=1000, steps=0)
        # The constants of selu, no multiples of a power of two, are float32 in the network.
        network.check_exact(draw, x, atol=1e-6 if name == "selu" else 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_bounds_hold_against_attacks(norm):
    def apply_fn(p, x):
        z = jnp.tanh(x @ p["w"] + p["b"])
        return jax.nn.relu(jnp.concatenate([z, jnp.abs(z)], axis=1)[:, :UNITS]) @ p["v"] + p["c"]

    rng = np.random.default_rng(1)
    network = Checked(apply_fn, dense(), (DIM,), norm)
    for seed in range(12):
        x = rng.uniform(0, 1, DIM) if seed % 2 else rng.integers(0, 2, DIM)
        network.check(dense(seed), x.astype(np.float32), 10.0 ** rng.uniform(-3, 1), rng)


class Pictures(linen.Module):
    """Convolutions, pools, normalisation with fixed statistics."""

    convolution: str

    @linen.compact
    def __call__(self, x):
        """Return three logits of pictures [B, 4, 4, 1]."""
        x = Convolve(2, (2, 2), self.convolution)(x)
        x = linen.leaky_relu(max_pool(x, stride=1), 0.125)
        if self.convolution == "native":
            x = linen.Conv(2, (2, 2), padding="SAME")(x)
            x = linen.max_pool(linen.tanh(x), (2, 1), strides=(1, 1))
            x = linen.avg_pool(x, (1, 2))
        return linen.Dense(3)(x.reshape(len(x), -1))


@pytest.mark.slow
@pytest.mark.parametrize("convolution", ["patches", "native"])
def test_bounds_hold_of_convolutions_and_pools(convolution):
    shape, rng = (4, 4, 1), np.random.default_rng(2)
    module = Pictures(convolution)
    apply_fn = get_apply_fn(module)
    draw = init_params(jax.random.key(0), module, shape)
    network = Checked(apply_fn, draw, shape, most_rows=4)
    x = rng.uniform(0, 1, shape).astype(np.float32)
    for epsilon in (0.02, 0.2):
        found = network.check(draw, x, epsilon, rng, count=1000, steps=0)
    # Linear bounds are tighter than intervals for some logits, or nothing was gained.
    assert (found[3] - found[2] < found[1] - found[0]).any()
    network.check_exact(draw, x)


class Normalised(linen.Module):
    """Two layers, and normalisation with fixed statistics between them."""

    @linen.compact
    def __call__(self, x):
        """Return three logits."""
        x = linen.BatchNorm(use_running_average=True)(linen.Dense(UNITS)(x))
        return linen.Dense(CLASSES)(linen.relu(x))


def test_batch_norm_with_fixed_statistics_is_affine():
    module, rng = Normalised(), np.random.default_rng(3)
    draw = module.init(jax.random.key(0), jnp.zeros((1, DIM)))
    draw = jax.tree.map(lambda w: jnp.abs(w) + 0.1 * jnp.arange(w.shape[-1]), draw)
    network, x = Checked(module.apply, draw, (DIM,)), rng.uniform(0, 1, DIM).astype(np.float32)
    network.check(draw, x, 0.1, rng, steps=0)
    # Its scale, a constant, is computed in float32 as by the network.
    network.check_exact(draw, x, atol=1e-5)


@pytest.mark.slow
def test_nnx_and_equinox_are_read():
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 1, DIM).astype(np.float32)

    class Layers(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(DIM, UNITS, rngs=rngs)
            self.second = nnx.Linear(UNITS, CLASSES, rngs=rngs)

        def __call__(self, x):
            return self.second(nnx.relu(self.first(x)))

    graphdef, state = nnx.split(Layers(nnx.Rngs(0)))
    # float32 sets the precision of what NNX multiplies; logits in float64 need plain weights.
    network = Checked(lambda p, x: nnx.merge(graphdef, p)(x), state, (DIM,))
    network.check(state, x, 0.1, rng, steps=0)
    network.check_exact(state, x)

    module = eqx.nn.MLP(DIM, CLASSES, UNITS, 1, jax.nn.tanh, key=jax.random.key(0))
    params, static = eqx.partition(module, eqx.is_array)
    network = Checked(lambda p, x: jax.vmap(eqx.combine(p, static))(x), params, (DIM,))
    network.check(params, x, 0.1, rng, steps=0)
    network.check_exact(params, x)


def test_dropout_by_a_key_among_the_parameters_is_a_constant_mask():
    def apply_fn(p, x):
        hidden = jax.nn.relu(x @ p["w"] + p["b"])
        mask = jax.random.bernoulli(p["key"], 0.5, hidden.shape)
        return jnp.where(mask, hidden / 0.5, 0.0) @ p["v"] + p["c"]

    # Of inputs at which a hidden unit is on.
    rng = np.random.default_rng(10)
    keys = jax.random.split(jax.random.key(3), 4)
    posterior = Posterior(apply_fn, jax.tree.map(lambda w: jnp.stack([w] * 4), dense()))
    network = Checked(posterior.logits, {**dense(), "key": keys[0]}, (DIM,))
    x, seen = rng.uniform(0, 1, DIM).astype(np.float32), []
    for key in keys:
        draw = {**dense(), "key": key}
        network.check(draw, x, 0.1, rng, count=200, steps=0)
        # In float64 the key would give other masks: numbers are of the network as it predicts.
        low, high = network.bounds(draw, x, -1.0)[:2]
        exact = posterior.logits(draw, jnp.asarray(x)[None])[0]
        np.testing.assert_allclose(low, exact, atol=1e-5)
        np.testing.assert_allclose(high, exact, atol=1e-5)
        seen.append(network.bounds(draw, x, 0.1)[2])
    assert len({tuple(row) for row in seen}) > 1


REFUSED = {
    "sin": (jnp.sin, "'sin'"),
    "floor": (jnp.floor, "'floor'"),
    "sign": (jnp.sign, "'sign'"),
    "sqrt": (jnp.sqrt, "'sqrt'"),
    "cube": (lambda z: z**3, "integer_pow.y=3"),
    "reciprocal": (lambda z: 1 / z, "div takes more than one operand"),
    "remainder": (lambda z: z % 1.0, "'rem'"),
    "sort": (lambda z: jnp.sort(z, axis=1), "'sort'"),
    "argmax": (lambda z: jax.nn.one_hot(jnp.argmax(z, axis=1), UNITS), "argmax"),
    "rounded_to_integers": (lambda z: z.astype(jnp.int32).astype(jnp.float32), "int32"),
    "step": (lambda z: (z > 0).astype(jnp.float32), "convert_element_type"),
    "steps_chosen": (lambda z: jnp.where(z > 0, 1.0, -1.0), "select_n"),
    "sign_of_another": (lambda z: jnp.where(z[:, ::-1] > 0, z, 0.0), "select_n"),
    "sign_of_one": (lambda z: jnp.where(z[:, :1] > 0, z, 0.0), "broadcast_in_dim"),
    "jump": (lambda z: jnp.where(z > 0, z + 1, z), "select_n"),
    "threshold": (lambda z: jnp.where(z > 0.5, z, 0.0), "gt.* other than zero"),
    "order": (lambda z: jnp.where(z > z[:, ::-1], z, 0.0), "gt.* other than zero"),
    "equality": (lambda z: jnp.where(z == 0, z, 0.0), "eq"),
    "softmax": (jax.nn.softmax, "div takes more than one operand"),
    "attention": (lambda z: (jax.nn.softmax(z.T @ z) @ z.T).T, "dot_general takes more than one"),
    "gate": (jax.nn.silu, "mul takes more than one operand"),
    "layer_norm": (lambda z: jax.nn.standardize(z), "more than one operand|rsqrt|integer_pow"),
    "bfloat16": (lambda z: z.astype(jnp.bfloat16).astype(jnp.float32), "bfloat16"),
    "float16": (lambda z: (z.astype(jnp.float16) * 2).astype(jnp.float32), "float16"),
    "reduce_precision": (lambda z: lax.reduce_precision(z, 8, 4), "reduce_precision"),
    "low_precision": (
        lambda z: lax.dot(z, jnp.eye(UNITS), precision=lax.DotAlgorithmPreset.BF16_BF16_F32),
        "dot_general asks for the precision",
    ),
    "default_precision": (
        lambda z: jnp.dot(z, jnp.eye(UNITS), precision="default"),
        "dot_general asks for the precision",
    ),
    "branch": (lambda z: lax.cond(z[0, 0] > 0, jnp.abs, jnp.tanh, z), "convert_element_type"),
    "while": (
        lambda z: lax.while_loop(lambda s: s.sum() < 9, lambda s: 2 * s + 1, z),
        "'while'",
    ),
    "index": (lambda z: z[:, jnp.int32(z[0, 0])][:, None] * jnp.ones(UNITS), "int32"),
    "clip_by_itself": (lambda z: lax.clamp(0.0, jnp.ones_like(z), z[0, 0]), "clips by bounds"),
    "elu_of_itself": (lambda z: jax.nn.elu(z, z[0, 0]), "elu of a scale"),
    "solve": (lambda z: jnp.linalg.solve(jnp.eye(UNITS) + z, z.T).T, "lu|more than one"),
    "long_loop": (lambda z: lax.scan(lambda c, _: (c / 2, None), z, None, 1000)[0], "1000 times"),
}


def read_only(apply_fn, draw):
    traced = reading.trace(apply_fn, draw, (DIM,))
    with jax.enable_x64(True):
        jax.eval_shape(lambda draw: (reading.read(traced, draw, (DIM,)), None)[1], draw)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_bound_is_refused_by_name(name):
    activate, message = REFUSED[name]
    with pytest.raises(CertificationError, match=message):
        read_only(with_activation(activate), dense())


def test_what_is_computed_of_the_weights_alone_may_be_anything():
    def apply_fn(p, x):
        order = jnp.argsort(jnp.sin(p["b"]))
        scale = jnp.where(p["b"] > p["b"].mean(), jnp.sqrt(jnp.abs(p["b"])), 0.0)
        return jax.nn.relu((x @ p["w"])[:, order] * scale) @ p["v"] + p["c"]

    network, rng = Checked(apply_fn, dense(), (DIM,)), np.random.default_rng(6)
    network.check(dense(), rng.uniform(0, 1, DIM).astype(np.float32), 0.2, rng, steps=0)


def test_what_only_prints_does_not_matter():
    def apply_fn(p, x):
        jax.debug.print("{x}", x=x)
        return x @ p["w"]

    read_only(apply_fn, dense())


def test_logits_that_do_not_depend_on_the_input_are_refused():
    with pytest.raises(CertificationError, match="do not depend on its input"):
        read_only(lambda p, x: p["c"][None], dense())
