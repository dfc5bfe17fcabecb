"""Curvature against automatic differentiation, and what Laplace's structures refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from bnn_adv.compute import blocks
from bnn_adv.inference import curvature, laplace
from bnn_adv.inference.densities import Data, Prior, log_likelihood
from bnn_adv.networks import MLP, Convolve, get_apply_fn, init_params, take_patches
from bnn_adv.networks.layers import list_layers

RNG = np.random.default_rng(0)
LIKELIHOODS = pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])


class Pictures(nn.Module):
    """A convolution and a dense layer without bias, kernels of different sizes."""

    window: int = 2
    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(Convolve(2, (self.window, self.window), name="conv")(x))
        return nn.Dense(self.num_classes, use_bias=False, name="out")(x.reshape(len(x), -1))


class Strided(nn.Module):
    """A convolution that sees every second place."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(Convolve(2, (2, 2), stride=2, name="conv")(x))
        return nn.Dense(self.num_classes, name="out")(x.reshape(len(x), -1))


class Places(nn.Module):
    """A convolution, every place of which is an output."""

    num_classes: int = 12

    @nn.compact
    def __call__(self, x):
        return Convolve(2, (2, 2), name="conv")(x).reshape(len(x), -1)


class Normalised(nn.Module):
    """Has weights that are of no layer."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(name="norm")(nn.Dense(4, name="first")(x))
        return nn.Dense(self.num_classes, name="last")(x)


class Flax(nn.Module):
    """Has a convolution of Flax."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (2, 2), name="conv")(x)
        return nn.Dense(self.num_classes, name="out")(x.reshape(len(x), -1))


def make(network, *shape, count=6):
    x = jnp.asarray(RNG.normal(size=(count, *shape)), jnp.float32)
    params = init_params(jax.random.key(1), network, shape)
    return params, Data(x, jnp.asarray(np.arange(count) % 3))


def gauss_newton(params, data, network, likelihood):
    """H by names of two parameters: Jacobians, and the Hessian in the outputs by itself."""
    apply_fn, total = get_apply_fn(network), {}
    for x in data.x:
        jacobian = jax.jacrev(lambda w, x=x: apply_fn(w, x[None])[0])(params)
        outputs = np.asarray(apply_fn(params, x[None])[0], np.float64)
        probs = np.exp(outputs) / np.exp(outputs).sum()
        hessian = np.eye(3) if likelihood == "gaussian" else np.diag(probs) - np.outer(probs, probs)
        rows = {k: np.asarray(v).reshape(3, -1) for k, v in flatten_dict(jacobian, sep="/").items()}
        for a in rows:
            for b in rows:
                total[a, b] = total.get((a, b), 0) + rows[a].T @ hessian @ rows[b]
    return total


@pytest.mark.slow
@LIKELIHOODS
@pytest.mark.parametrize(
    ("network", "shape"),
    [(MLP((4,), 3, "tanh"), (2,)), (Pictures(), (4, 3, 1)), (Normalised(), (2,))],
)
def test_the_diagonal_of_any_network(network, shape, likelihood):
    params, data = make(network, *shape)
    expected = gauss_newton(params, data, network, likelihood)
    found = curvature.diagonal(params, data, network=network, likelihood=likelihood)
    for name, leaf in flatten_dict(found, sep="/").items():
        np.testing.assert_allclose(
            leaf.ravel(), np.diag(expected[name, name]), rtol=1e-4, atol=1e-6
        )


@pytest.mark.slow
@LIKELIHOODS
@pytest.mark.parametrize(
    ("network", "shape"), [(MLP((4,), 3, "tanh"), (2,)), (Pictures(), (4, 3, 1))]
)
def test_the_whole_block_of_the_last_layer(network, shape, likelihood, monkeypatch):
    """In blocks of data, with a remainder."""
    monkeypatch.setattr(blocks, "choose_block", lambda *args: 4)
    params, data = make(network, *shape)
    layer = list_layers(network, shape)[-1]
    found = curvature.full(params, data, network=network, layer=layer, likelihood=likelihood)
    expected = gauss_newton(params, data, network, likelihood)
    names = [f"{layer.name}/{part}" for part in ("kernel", "bias")[: 1 + layer.has_bias]]
    np.testing.assert_allclose(
        found, np.block([[expected[a, b] for b in names] for a in names]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
@LIKELIHOODS
@pytest.mark.parametrize("shape", [(2,), (4, 3, 1)])
def test_input_sides_are_means_over_the_outputs(shape, likelihood, monkeypatch):
    """Of dense layers; in blocks of data, with a remainder."""
    monkeypatch.setattr(blocks, "choose_block", lambda *args: 4)
    network = MLP((4,), 3, "tanh")
    params, data = make(network, *shape)
    layers = list_layers(network, shape)
    found = curvature.input_sides(
        params, data, network=network, layers=layers, likelihood=likelihood
    )
    expected = gauss_newton(params, data, network, likelihood)
    for layer in layers:
        names, size = [f"{layer.name}/kernel", f"{layer.name}/bias"], layer.outputs[-1]
        whole = np.block([[expected[a, b] for b in names] for a in names])
        blocks_of = [whole[output::size, output::size] for output in range(size)]
        np.testing.assert_allclose(
            found[layer.name], np.mean(blocks_of, axis=0), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
def test_input_sides_of_a_convolution_of_one_place_are_those_of_a_dense_layer():
    """A window as large as the image; elsewhere products of different places are left out."""
    network = Pictures(window=3)
    params, data = make(network, 3, 3, 1)
    layers = list_layers(network, (3, 3, 1))
    found = curvature.input_sides(
        params, data, network=network, layers=layers, likelihood="categorical"
    )
    expected = gauss_newton(params, data, network, "categorical")
    names = ["conv/kernel", "conv/bias"]
    whole = np.block([[expected[a, b] for b in names] for a in names])
    np.testing.assert_allclose(
        found["conv"], (whole[::2, ::2] + whole[1::2, 1::2]) / 2, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_of_a_softmax_over_linear_outputs_it_is_the_hessian():
    network = MLP((), 3)
    params, data = make(network, 2)
    (layer,) = list_layers(network, (2,))
    found = curvature.full(params, data, network=network, layer=layer, likelihood="categorical")
    hessian = jax.hessian(lambda w: -log_likelihood(w, data, get_apply_fn(network)))(params)
    own = hessian["logits"]["kernel"]["logits"]["kernel"].reshape(6, 6)
    np.testing.assert_allclose(found[:6, :6], own, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@LIKELIHOODS
@pytest.mark.parametrize(
    ("network", "shape"), [(MLP((4,), 3, "tanh"), (2,)), (Pictures(), (4, 3, 1))]
)
def test_inputs_and_outputs_make_the_gradients_of_kernels(network, shape, likelihood):
    params, data = make(network, *shape)
    layers, apply_fn = list_layers(network, shape), get_apply_fn(network)
    inputs, outputs = curvature.pull_back(params, data.x, network, layers, likelihood)
    logits, vjp = jax.vjp(lambda w: apply_fn(w, data.x), params)
    root = curvature.ROOTS[likelihood](logits)
    for column in range(3):
        (gradient,) = vjp(root[:, :, column])
        for layer in layers:
            name = layer.name
            found = np.einsum("btd,btf->df", inputs[name], outputs[name][column])
            own = flatten_dict(gradient, sep="/")
            rows = [own[f"{name}/kernel"].reshape(-1, found.shape[1])]
            rows += [own[f"{name}/bias"][None]] if layer.has_bias else []
            np.testing.assert_allclose(found, np.concatenate(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@LIKELIHOODS
@pytest.mark.parametrize(
    ("network", "shape"), [(MLP((4,), 3, "tanh"), (2,)), (Pictures(2), (2, 2, 1))]
)
def test_kronecker_factors_are_exact_for_one_example_and_one_place(network, shape, likelihood):
    params, data = make(network, *shape, count=1)
    layers = list_layers(network, shape)
    factors = curvature.kronecker(
        params, data, network=network, layers=layers, likelihood=likelihood
    )
    expected = gauss_newton(params, data, network, likelihood)
    for name, (inputs, outputs) in factors.items():
        kernel = expected[f"{name}/kernel", f"{name}/kernel"]
        found = np.kron(inputs, outputs)[: len(kernel), : len(kernel)]
        np.testing.assert_allclose(found, kernel, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_kronecker_is_exact_where_every_place_is_an_output_of_its_own():
    """Then H = sum_i sum_t a a^T (x) I: the factors' product counts data and places once."""
    network, prior = Places(), Prior(0.3)
    params, data = make(network, 4, 3, 1)
    config = laplace.Config(structure="kronecker", prior=prior, likelihood="gaussian")
    draw = laplace.fit_gaussian(params, data, network, config)
    draws = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000))["conv"]
    weights = np.append(draws["kernel"].reshape(4000, 4, 2), draws["bias"][:, None], axis=1)
    patches = np.asarray(take_patches(data.x, (2, 2))).reshape(-1, 4)
    patches = np.append(patches, np.ones((len(patches), 1)), axis=1).astype(np.float64)
    expected = np.linalg.inv(patches.T @ patches + np.eye(5) / 0.3**2)
    spread = np.sqrt(np.diag(expected))
    error = np.sqrt((np.outer(spread, spread) ** 2 + expected**2) / 4000)
    for output in range(2):
        assert (np.abs(np.cov(weights[:, :, output].T) - expected) < 5 * error).all()


@pytest.mark.parametrize(
    ("network", "shape", "structure", "message"),
    [
        (Normalised(), (2,), "kronecker", "network has norm/bias, norm/scale. Give diagonal"),
        (Flax(), (4, 4, 1), "kronecker", r"conv \(Conv\)"),
        (Places(), (4, 3, 1), "last_layer", r"conv \(Convolve\)"),
    ],
)
def test_layers_of_unknown_curvature_are_refused(network, shape, structure, message):
    _, data = make(network, *shape)
    config = laplace.Config(structure=structure)
    with pytest.raises(ValueError, match=f"structure {structure} is defined for .*{message}"):
        laplace.run(jax.random.key(0), network, data, config)


def test_matrices_of_very_many_weights_are_refused():
    with pytest.raises(ValueError, match=r"at most 12,000 weights, and logits has 13,010. Give"):
        laplace.choose_layers(MLP((1300,), 10), (2,), "last_layer")


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["last_layer", "diagonal", "kronecker"])
def test_draws_of_a_convolutional_network(structure):
    """Where nothing depends on the convolution, its draws are the prior's around the mode."""
    network, prior = Pictures(), Prior(0.5, "fan_in")
    params, data = make(network, 4, 3, 1)
    params = {**params, "out": {"kernel": jnp.zeros_like(params["out"]["kernel"])}}
    config = laplace.Config(structure=structure, prior=prior, likelihood="gaussian")
    draw = laplace.fit_gaussian(params, data, network, config)
    draws = jax.vmap(draw)(jax.random.split(jax.random.key(0), 2000))
    kernel = draws["conv"]["kernel"] - params["conv"]["kernel"]
    expected = 0.0 if structure == "last_layer" else 0.25
    np.testing.assert_allclose(kernel.std(axis=0), expected, rtol=0.1)


@pytest.mark.slow
def test_places_of_a_strided_convolution_are_those_of_its_outputs():
    """Summed over places, ``a g^T`` is the gradient of the kernel."""
    network, shape = Strided(), (5, 4, 1)
    params, data = make(network, *shape, count=2)
    layers = list_layers(network, shape)[:1]

    @jax.jit
    def both(params):
        inputs, outputs = curvature.pull_back(params, data.x, network, layers, "gaussian")
        found = jnp.einsum("btd,btf->df", inputs["conv"], outputs["conv"][1])
        return found, jax.grad(lambda w: get_apply_fn(network)(w, data.x)[:, 1].sum())(params)

    found, expected = both(params)
    np.testing.assert_allclose(found[:-1], expected["conv"]["kernel"].reshape(4, 2), atol=1e-5)
    np.testing.assert_allclose(found[-1], expected["conv"]["bias"], atol=1e-5)
