"""The referee confirms what is true, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv.attacks.threat import THREATS
from bnn_adv.compute import files
from bnn_adv.compute.disk import store_in
from bnn_adv.evaluation.verification import VerificationError, verify_adversarial, verify_arrays
from bnn_adv.posteriors.posterior import Posterior, hash_draws, predict_log_probs
from tests.conftest import linear_apply

EPSILON = 0.2


def two_class(scale=1.0):
    """Draws that all see class 1 where x_0 > 0.5 by far more than they disagree."""
    slopes = np.float32(scale) * np.linspace(1, 3, 5, dtype=np.float32)
    w = np.zeros((5, 4, 2), np.float32)
    w[:, 0, 1] = slopes
    b = np.stack([np.zeros(5), -0.5 * slopes], axis=1).astype(np.float32)
    return Posterior(linear_apply, {"w": jnp.asarray(w), "b": jnp.asarray(b)})


def honest(posterior):
    """Images 0-2 cross the boundary, 3 and 4 do not, 5 is wrong from the start."""
    x = np.full((6, 2, 2), 0.25, np.float32)
    x[:, 0, 0] = [0.4, 0.6, 0.45, 0.1, 0.9, 0.8]
    y = np.array([0, 1, 0, 0, 1, 0])
    x_adv = x.copy()
    x_adv[:5, 0, 0] += np.float32(EPSILON) * np.array([1, -1, 1, 1, -1], np.float32)
    x_adv[3, 1, 1] = np.float32(0.25) - np.float32(EPSILON)
    return {
        "schema_version": np.int64(1),
        "x": x,
        "x_adv": x_adv,
        "y": y,
        "indices": np.array([10, 11, 12, 13, 14, 15]),
        "broken": np.array([1, 1, 1, 0, 0, 1], bool),
        "norm": np.array("linf"),
        "epsilon": np.float64(EPSILON),
        "lower": np.float64(0),
        "upper": np.float64(1),
        "draws_hash": np.array(hash_draws(posterior)),
        "clean_correct": np.array([1, 1, 1, 1, 1, 0], bool),
    }


@pytest.fixture(scope="module")
def draws():
    return two_class()


@pytest.fixture
def arrays(draws):
    return honest(draws)


def offence(arrays, posterior, **options):
    found = verify_arrays(arrays, posterior, **options)
    assert not found.ok
    with pytest.raises(VerificationError) as error:
        found.check()
    return found, str(error.value)


def test_the_callers_threat_model_counts(draws, arrays):
    allowed = THREATS["linf"](EPSILON)
    found = verify_arrays(arrays, draws, threat=allowed)
    found.check()
    assert "linf ball of radius 0.2 in the box [0, 1], as the caller says" in str(found)
    assert "as the file says" in str(verify_arrays(arrays, draws))
    verify_arrays(arrays, draws, threat=THREATS["linf"](np.full(6, EPSILON, np.float32))).check()
    for threat, message in (
        (THREATS["linf"](0.1), "claim the epsilon 0.2; the threat model that was given has 0.1"),
        (THREATS["l2"](EPSILON), "claim the norm linf; .* given has l2"),
        (THREATS["linf"](EPSILON, -1.0), "claim the lower 0; .* given has -1"),
        (THREATS["linf"](EPSILON, 0.0, 2.0), "claim the upper 1; .* given has 2"),
        (THREATS["linf"](np.inf), "epsilon must be finite"),
        (THREATS["linf"](None), "epsilon must be finite"),
        (THREATS["linf"](np.full(5, EPSILON)), "one, or one an image"),
        (THREATS["linf"](EPSILON, -np.inf), "lower must be finite"),
    ):
        with pytest.raises(VerificationError, match=message):
            verify_arrays(arrays, draws, threat=threat)


def test_honest_file_is_confirmed(draws, arrays, tmp_path):
    files.write_arrays(tmp_path / "adversarial.npz", arrays)
    found = verify_adversarial(tmp_path / "adversarial.npz", draws, batch_size=4)
    found.check()
    assert found.ok
    assert found.num_inputs == 6
    np.testing.assert_array_equal(found.confirmed, arrays["broken"])
    np.testing.assert_array_equal(found.fooled, arrays["broken"])
    assert found.unconfirmed.size == found.unclaimed.size == 0
    assert (found.accuracy, found.adversarial_accuracy) == (5 / 6, 2 / 6)
    assert "4 claimed, 4 confirmed" in str(found)
    # The mean of five sigmoids of slope * 0.1, and its log odds.
    p = np.mean(1 / (1 + np.exp(-np.linspace(1, 3, 5) * 0.1)))
    np.testing.assert_allclose(found.margin[0], np.log(p / (1 - p)), rtol=1e-5)


@pytest.mark.parametrize("change", [1e-3, -1e-3])
def test_pixel_outside_the_ball_is_caught(draws, arrays, change):
    arrays["x_adv"][2, 1, 0] = 0.25 + np.sign(change) * EPSILON + change
    found, message = offence(arrays, draws)
    assert "outside the ball: 12." in message
    assert found.unconfirmed.tolist() == [12]
    assert found.adversarial_accuracy == 3 / 6


def test_pixel_outside_the_box_is_caught(draws, arrays):
    arrays["x"][0, 1, 1] = 0.05
    arrays["x_adv"][0, 1, 1] = -1e-6
    found, message = offence(arrays, draws)
    assert "outside the box: 10." in message
    assert found.in_ball.all()
    assert found.unconfirmed.tolist() == [10]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_image_that_is_not_finite_is_never_confirmed(draws, arrays, value):
    arrays["x_adv"][1, 0, 0] = value
    found, message = offence(arrays, draws)
    assert "outside the ball: 11." in message
    assert found.unconfirmed.tolist() == [11]


def test_wrong_label_is_caught(draws, arrays):
    """Another label turns an image that stands into one that looks fooled."""
    arrays["y"][3], arrays["broken"][3] = 1, True
    _, message = offence(arrays, draws)
    assert "clean_correct differs from the prediction: 13." in message


@pytest.mark.parametrize("label", [-1, 2])
def test_label_that_is_no_class_is_caught(draws, arrays, label):
    arrays["y"][0] = label
    found, message = offence(arrays, draws)
    assert "label is no class: 10." in message
    assert found.unconfirmed.tolist() == [10]


def test_claim_on_an_image_that_stands_is_caught(draws, arrays):
    arrays["broken"][[3, 4]] = True
    found, message = offence(arrays, draws)
    assert "claimed and not misclassified: 13, 14." in message
    assert found.unconfirmed.tolist() == [13, 14]


def test_swapped_rows_are_caught(draws, arrays):
    arrays["x_adv"] = arrays["x_adv"][[0, 1, 4, 3, 2, 5]]
    _, message = offence(arrays, draws)
    assert "outside the ball: 12, 14." in message


def test_tie_confirms_nothing(draws, arrays):
    arrays["x_adv"][0, 0, 0] = 0.5
    found, _ = offence(arrays, draws)
    assert found.margin[0] == 0
    assert found.unconfirmed.tolist() == [10]


def test_fooled_image_may_go_unclaimed(draws, arrays):
    arrays["broken"][1] = False
    found = verify_arrays(arrays, draws)
    assert found.ok
    assert found.unclaimed.tolist() == [11]
    assert found.adversarial_accuracy == 2 / 6


def test_other_draws_are_refused(draws, arrays):
    with pytest.raises(VerificationError, match=str(arrays["draws_hash"])):
        verify_arrays(arrays, two_class(1.001))


def test_data_set_tells_foreign_images_and_labels(draws, arrays):
    x, y = np.zeros((20, 2, 2), np.float32), np.zeros(20, int)
    x[arrays["indices"]], y[arrays["indices"]] = arrays["x"], arrays["y"]
    assert verify_arrays(arrays, draws, x=x, y=y).ok
    x[11, 0, 1] += 1e-3
    y[14] = 0
    _, message = offence(arrays, draws, x=x, y=y)
    assert "differs from the data set: 11, 14." in message
    with pytest.raises(VerificationError, match="has 15 rows of x"):
        verify_arrays(arrays, draws, x=x[:15])


def test_radius_may_differ_by_image(draws, arrays):
    arrays["epsilon"] = np.full(6, EPSILON)
    assert verify_arrays(arrays, draws).ok
    arrays["epsilon"][4] = 0.1
    _, message = offence(arrays, draws)
    assert "outside the ball: 14." in message


@pytest.mark.slow
@pytest.mark.parametrize("norm", THREATS)
def test_rounding_at_the_edge_of_the_ball_is_accepted(norm):
    """Projections fill the ball to the last bit; a thousandth more is not rounding."""
    draws = Posterior(linear_apply, {"w": jnp.zeros((1, 768, 2)), "b": jnp.zeros((1, 2))})
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(64, 768)).astype(np.float32)
    epsilon = np.geomspace(0.01, {"linf": 0.5, "l2": 5, "l1": 50}[norm], 64).astype(np.float32)
    threat = THREATS[norm](jnp.asarray(epsilon))
    moved = jnp.asarray(x + rng.normal(size=x.shape).astype(np.float32))
    x_adv = np.asarray(threat.project(moved, jnp.asarray(x)))
    arrays = {
        **honest(draws),
        **{"x": x, "x_adv": x_adv, "norm": np.array(norm), "epsilon": epsilon},
        **{name: np.zeros(64, bool) for name in ("broken", "clean_correct")},
        **{"y": np.zeros(64, int), "indices": np.arange(64)},
    }
    found = verify_arrays(arrays, draws)
    assert found.ok
    assert (found.distance > 0.999 * epsilon).all()
    assert not verify_arrays({**arrays, "epsilon": epsilon - 1e-3}, draws).in_ball.any()


def test_saturated_draws_are_told_apart():
    """Logits of thousands: probabilities that underflow still have an order."""
    draws = two_class(scale=1e4)
    arrays = honest(draws)
    found = verify_arrays(arrays, draws)
    found.check()
    # The softest of the five draws decides: a gap of 1,000 at 0.1 from the boundary.
    np.testing.assert_allclose(np.abs(found.margin[0]), 1000 + np.log(5), rtol=1e-3)
    np.testing.assert_array_equal(found.confirmed, arrays["broken"])


def test_draws_on_disk_and_an_independent_network(draws, arrays, tmp_path):
    on_disk = Posterior(linear_apply, store_in(tmp_path)(draws.samples))
    expected = verify_arrays(arrays, draws)
    found = verify_arrays(arrays, on_disk)
    np.testing.assert_array_equal(found.margin, expected.margin)

    def in_numpy(params, x):
        assert isinstance(params["w"], np.ndarray)
        return x.reshape(len(x), -1).astype(np.float64) @ params["w"] + params["b"]

    def liar(params, x):
        return -in_numpy(params, x)

    alone = verify_arrays(arrays, on_disk, apply_fn=in_numpy)
    np.testing.assert_allclose(alone.margin, expected.margin, rtol=1e-4, atol=1e-6)
    assert alone.ok
    assert not verify_arrays(arrays, on_disk, apply_fn=liar).confirmed.any()


def test_logits_that_are_not_finite_confirm_nothing(draws, arrays):
    def broken(params, x):
        return np.full((len(x), 2), np.nan)

    assert not verify_arrays(arrays, draws, apply_fn=broken).confirmed.any()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x_adv", None, "lack the arrays x_adv"),
        ("x_adv", np.zeros((6, 4), np.float32), "x_adv must have shape"),
        ("x", np.zeros(6, np.float32), "x must have shape"),
        ("y", np.zeros(6), "y must have shape .* got .* float64"),
        ("broken", np.zeros(5, bool), "broken must have shape"),
        ("epsilon", np.zeros(5), "epsilon must have shape"),
        ("epsilon", np.float64(np.nan), "Need epsilon >= 0"),
        ("schema_version", np.int64(2), "schema version 2"),
        ("norm", np.array("l7"), "Unknown norm 'l7'. Known: linf"),
        ("upper", np.float64(-1), "lower < upper"),
        ("epsilon", np.float64(np.inf), "all finite.*epsilon inf"),
        ("lower", np.float64(-np.inf), "all finite.*-inf"),
        ("upper", np.float64(np.inf), "all finite"),
        ("indices", np.zeros(6, int), "distinct"),
    ],
)
def test_malformed_arrays_are_refused(draws, arrays, name, value, message):
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    with pytest.raises(VerificationError, match=message):
        verify_arrays(arrays, draws)


def test_bad_batch_size_and_damaged_file(draws, arrays, tmp_path):
    with pytest.raises(ValueError, match="batch_size"):
        verify_arrays(arrays, draws, batch_size=0)
    (tmp_path / "a.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="damaged"):
        verify_adversarial(tmp_path / "a.npz", draws)


def test_agrees_with_the_streamed_prediction(posterior, batch):
    """On a random network: the two implementations share nothing but the network."""
    x, y = (np.asarray(part) for part in batch)
    log_probs = np.asarray(predict_log_probs(posterior, jnp.asarray(x)))
    rows = np.arange(len(y))
    others = np.where(jax.nn.one_hot(y, 4) > 0, -np.inf, log_probs).max(axis=1)
    arrays = {
        **honest(posterior),
        **{"x": x, "x_adv": x, "y": y, "indices": rows},
        "broken": others > log_probs[rows, y],
        "clean_correct": others < log_probs[rows, y],
    }
    found = verify_arrays(arrays, posterior)
    found.check()
    np.testing.assert_allclose(found.margin, others - log_probs[rows, y], rtol=1e-4, atol=1e-5)


def test_arrays_that_the_referee_does_not_know_are_not_read(draws, arrays, tmp_path, monkeypatch):
    read, real = [], files.restored
    monkeypatch.setattr(
        files, "restored", lambda leaf, *a: read.append(leaf.shape) or real(leaf, *a)
    )
    files.write_arrays(tmp_path / "a.npz", arrays | {"more": np.zeros((7, 11))})
    verify_adversarial(tmp_path / "a.npz", draws).check()
    assert (7, 11) not in read
    assert (6, 2, 2) in read
