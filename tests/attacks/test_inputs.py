"""What enters an attack: what is converted, to what, and what is refused by name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks import fgsm, inputs
from bnn_adv.attacks.objectives import get_objective
from bnn_adv.attacks.threat import L1, L2, LInf
from bnn_adv.attacks.validation import check_ess
from bnn_adv.compute import arguments
from bnn_adv.posteriors.posterior import Posterior
from tests.flat import run_attack

X = np.random.default_rng(0).uniform(size=(5, 6)).astype(np.float32)
Y = np.arange(5) % 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">f8", np.longdouble])
def test_images_of_every_width_and_byte_order_are_the_same_float32(dtype):
    found = inputs.as_images(X.astype(dtype), LInf(0.1))
    np.testing.assert_array_equal(found, X)
    assert found.dtype == np.dtype("=f4")


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
@pytest.mark.parametrize(("lower", "upper"), [(0.0, 0.3), (-0.4242, 2.8215), (-0.1, 0.1)])
def test_images_in_half_precision_lie_in_the_box(dtype, lower, upper):
    """Walls that a narrow type rounds outwards are walls again."""
    x = np.array([[lower, upper, (lower + upper) / 2]]).astype(dtype)
    found = inputs.as_images(x, LInf(0.1, lower, upper))
    assert (found >= np.float32(lower)).all()
    assert (found <= np.float32(upper)).all()
    np.testing.assert_allclose(found, x.astype(np.float32), atol=8e-3 * (upper - lower))


def test_float64_values_at_the_wall_are_in_the_box():
    for lower, upper in ((-0.4242, 2.8215), (0.0, 0.1)):
        found = inputs.as_images(np.array([[lower, upper]]), LInf(0.1, lower, upper))
        assert found.tolist() == [[np.float32(lower), np.float32(upper)]]
    with pytest.raises(ValueError, match="box"):
        inputs.as_images(np.array([[0.0, 0.1001]]), LInf(0.1, 0.0, 0.1))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ((X * 255).astype(np.int64), "int64. Divide bytes"),
        (X > 0.5, "bool"),
        (X.astype(str), "array of numbers"),
        (X.astype(complex), "array of numbers"),
        ([[1.0], [1.0, 2.0]], "cannot be made an array"),
        (np.where(X > 0.9, np.inf, X), "NaN or infinite"),
        (X[:, :0], "shape"),
        (X[0], r"x\[None\]"),
    ],
)
def test_images_that_are_none_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        inputs.as_images(x, LInf(0.1))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, ">i4"])
def test_labels_of_every_integer_type_are_int32(dtype):
    found = arguments.as_labels(Y.astype(dtype), 5, 4)
    assert found.tolist() == Y.tolist()
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(4)[Y], "argmax"),
        (Y[:, None], r"y\[:, 0\]"),
        (Y + 0.7, "no classes"),
        (Y > 1, "booleans"),
        (Y[:3], "5 inputs and 3 labels"),
        (Y + 1, r"0\.\.3.*1\.\.4"),
        (Y - 1, "found -1"),
        (np.full(5, 2**32, np.int64), "0..3"),
        ([], "5 inputs and 0 labels"),
        (["cat"] * 5, "array of numbers"),
    ],
)
def test_labels_that_are_no_classes_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        arguments.as_labels(y, 5, 4)


@pytest.mark.parametrize("make", [LInf, L2, L1])
def test_radii_are_one_or_one_an_image(make):
    assert inputs.as_threat(make(np.float64(0.1)), 5, (6,)).epsilon == 0.1
    assert inputs.as_threat(make(np.array([0.1])), 5, (6,)).epsilon == 0.1
    assert type(inputs.as_threat(make(jnp.float32(0.5)), 5, (6,)).epsilon) is float
    found = inputs.as_threat(make(np.linspace(0.1, 0.5, 5)), 5, (6,)).epsilon
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.linspace(0.1, 0.5, 5), rtol=1e-7)


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        (np.inf, "finite.*whole box"),
        (1e30, "finite.*whole box"),
        (np.array([0.1, np.inf, 0, 0, 0]), "finite"),
        (np.nan, "at least 0, got nan"),
        (-0.1, "at least 0, got -0.1"),
        (np.full(4, 0.1), r"one for each of 5 images.*\(4,\)"),
        (np.full((5, 1), 0.1), r"\(5, 1\)"),
        (True, "number"),
        ("0.1", "array of numbers"),
        (None, "array of numbers"),
    ],
)
def test_radii_that_are_none_are_refused(epsilon, message):
    with pytest.raises(ValueError, match=message):
        inputs.as_threat(LInf(epsilon), 5, (6,))
    with pytest.raises(ValueError, match="walls"):
        inputs.as_threat(LInf(0.1, 0.0, np.inf), 5, (6,))


def test_indices_are_distinct_and_not_negative():
    assert arguments.as_indices(None, 3).tolist() == [0, 1, 2]
    assert arguments.as_indices([7, 3, 5], 3).tolist() == [7, 3, 5]
    for bad in ([0, 0, 1], [-1, 0, 1], [0.0, 1.0, 2.0], [0, 1], [0, 1, 2**32]):
        with pytest.raises(ValueError, match="indices"):
            arguments.as_indices(bad, 3)


def test_keys_are_typed_and_counts_whole():
    arguments.check_key(jax.random.key(0))
    for bad in (jax.random.key_data(jax.random.key(0)), 0, jax.random.split(jax.random.key(0))):
        with pytest.raises(TypeError, match="key"):
            arguments.check_key(bad)
    arguments.check_count("num_probe", np.int64(3), 0)
    for bad in (True, 2.0, -1, "3", None):
        with pytest.raises(ValueError, match="num_probe"):
            arguments.check_count("num_probe", bad, 0)


KNOWN = Posterior(lambda p, z: z @ p["w"], {"w": np.ones((2, 3, 4), np.float32)})
SOME, LABELS = np.full((4, 3), 0.5, np.float32), np.zeros(4, int)
NOT_A_NUMBER = {"w": np.where(np.arange(24).reshape(2, 3, 4) == 17, np.nan, 1).astype(np.float32)}
REFUSED = {
    "masked images": ({"x": np.ma.masked_array(SOME, SOME > 0)}, "hold 12 masked values"),
    "masked labels": ({"y": np.ma.masked_array(LABELS, [1, 0, 0, 0])}, "hold 1 masked values"),
    "no threat": ({"threat": 0.1}, "got float without norm, epsilon, lower, upper"),
    "walls": ({"threat": LInf(0.1, np.zeros(3), 1.0)}, "needs one number a wall"),
    "text wall": ({"threat": LInf(0.1, "0", 1.0)}, "needs one number a wall"),
    "chunk": ({"sample_chunk": True}, "sample_chunk must be at least 1, got True"),
    "part of a chunk": ({"sample_chunk": 1.5}, "sample_chunk must be at least 1, got 1.5"),
    "draws": (
        {"posterior": dataclasses.replace(KNOWN, samples=NOT_A_NUMBER)},
        r"Some of 2 draws hold NaN .*w: 1\.",
    ),
    "complex logits": (
        {"posterior": dataclasses.replace(KNOWN, apply_fn=lambda p, z: z @ p["w"] + 0j)},
        "real numbers, got complex64",
    ),
    "boolean logits": (
        {"posterior": dataclasses.replace(KNOWN, apply_fn=lambda p, z: z @ p["w"] > 0)},
        "real numbers, got bool",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_attack_refuses_what_it_would_misread(name):
    change, message = REFUSED[name]
    given = {"posterior": KNOWN, "x": SOME, "y": LABELS, "threat": LInf(0.1)} | change
    model, x, y = (given.pop(key) for key in ("posterior", "x", "y"))
    objective = get_objective("expected_loss")
    with pytest.raises(ValueError, match=message):
        run_attack(jax.random.key(0), fgsm.build(), objective, model, x, y, **given)


@pytest.mark.parametrize("value", [-1, "many", np.inf, True])
def test_an_effective_sample_size_is_a_number_or_unknown(value):
    with pytest.raises(ValueError, match="min_ess must be a number at least 0"):
        check_ess(value)
    for known in (None, 0, 3.5, np.float32(7), float("nan")):
        check_ess(known)
