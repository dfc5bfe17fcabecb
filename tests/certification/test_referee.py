"""The referee of certificates confirms what is true, and nothing else."""

import ast
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bnn_adv
from bnn_adv.certification import referee as referee_module
from bnn_adv.certification.referee import verify_certificate, verify_certificate_arrays
from bnn_adv.compute import files
from bnn_adv.evaluation.verification import VerificationError
from bnn_adv.networks.convnet import max_pool
from bnn_adv.posteriors.posterior import predict_log_probs
from tests.certification.referee_cases import conv_posterior, relu_posterior, tanh_posterior

# All of them look at certificates that take seconds to make.
pytestmark = pytest.mark.slow

CASES = {
    "linf": (
        relu_posterior,
        bnn_adv.LInf(0.15),
        {"method": "alpha-crown", "num_rounds": 3, "num_halvings": 2},
    ),
    "l2": (tanh_posterior, bnn_adv.L2(0.08), {"arithmetic": "real"}),
    "l1": (conv_posterior, bnn_adv.L1(0.05), {"rule": "every_draw"}),
}


class Case:
    """A posterior, inputs of its own classes but for the last, and the certificate's arrays."""

    def __init__(self, name, folder):
        make, self.threat, settings = CASES[name]
        self.posterior, self.x, self.y = make()
        settings = bnn_adv.CertificationSettings(**settings)
        self.certificate = bnn_adv.certify(
            self.posterior, self.x, self.y, threat=self.threat, settings=settings
        )
        self.path = folder / f"{name}.npz"
        self.certificate.save(self.path)

    def verify(self, changes=None, **options):
        arrays = files.read_arrays(self.path)
        for name, change in (changes or {}).items():
            value = np.array(arrays[name])
            arrays[name] = change(value) if callable(change) else np.asarray(change)
        return verify_certificate_arrays(arrays, self.posterior, **options)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    made = {}

    def find(name):
        if name not in made:
            made[name] = Case(name, tmp_path_factory.mktemp(name))
        return made[name]

    return find


@pytest.mark.parametrize("name", CASES)
def test_every_claim_is_confirmed(case, name):
    own = case(name)
    found = verify_certificate(own.path, own.posterior, threat=own.threat, x=own.x, y=own.y)
    found.check()
    claimed = own.certificate.certified
    np.testing.assert_array_equal(found.confirmed, claimed)
    assert found.certified_accuracy == own.certificate.certified_accuracy > 0.3
    assert not claimed[-1]
    assert not len(found.unconfirmed)
    looked = own.certificate.margin > 0
    np.testing.assert_allclose(found.margin[looked], own.certificate.margin[looked], 1e-8, 1e-10)
    # Two derivations of the same error.
    ratio = found.rounding[looked] / own.certificate.rounding[looked]
    assert ((ratio > 0.2) & (ratio < 1.5)).all(), ratio
    assert "every check passed" in str(found)
    assert "as the caller says" in str(found)


def test_claims_of_later_rounds_need_the_places_that_they_were_made_with(case):
    own = case("linf")
    needs = own.certificate.rounds > 0
    assert needs.any()
    assert (own.certificate.certified & ~needs).any()
    assert own.certificate.points.shape == (own.certificate.rounds.sum(), 3, 4)
    assert own.certificate.points.dtype == np.float16
    without = {"rounds": np.zeros_like(own.certificate.rounds), "points": np.zeros((0, 3, 4))}
    found = own.verify(without)
    claims = needs & own.certificate.certified
    assert not found.confirmed[claims].any() or not found.margin_holds[needs].all()
    assert (found.margin < own.certificate.margin - 1e-6)[needs].all()
    with pytest.raises(VerificationError, match="margin above"):
        found.check()
    # Other places are worse places, never wrong ones.
    garbage = np.random.default_rng(0).uniform(-3, 3, own.certificate.points.shape)
    assert (own.verify({"points": garbage}).margin <= own.certificate.margin + 1e-9)[needs].all()


@pytest.mark.parametrize("name", CASES)
def test_margins_that_were_raised_are_refused(case, name):
    own = case(name)
    number = int(np.flatnonzero(own.certificate.certified)[0])

    def raised(margin):
        margin[number] += 1e-3
        return margin

    found = own.verify({"margin": raised})
    assert not found.ok
    assert not found.margin_holds[number]
    with pytest.raises(VerificationError, match=rf"margin above what is confirmed: {number}\."):
        found.check()


@pytest.mark.parametrize("rule", ["mean_probabilities", "mean_logits"])
def test_margins_may_differ_by_what_float64_rounds(rule, tmp_path):
    # Two halves of a wide layer that cancel: much may round, and each side allows for its own.
    # Whole numbers of quarters and eighths, so that float32 rounds nothing.
    rng = np.random.default_rng(5)
    half = rng.integers(2, 7, (4, 200)).astype(np.float32) / 4
    weights = rng.integers(-4, 5, (200, 3)).astype(np.float32) * 2.0**15
    params = {
        "w": jnp.asarray(np.hstack([half, half]))[None],
        "u": jnp.asarray(np.vstack([weights, -weights]))[None],
        "c": jnp.asarray([[0.3, 0.0, -0.2]]),
    }

    def apply_fn(params, x):
        return jax.nn.relu(x @ params["w"]) @ params["u"] + params["c"]

    posterior = bnn_adv.Posterior(apply_fn, params, decision_rule=rule)
    x = rng.integers(2, 7, (5, 4)).astype(np.float32) / 8
    settings = bnn_adv.CertificationSettings(arithmetic="real")
    threat, labels = bnn_adv.LInf(0.01), np.zeros(5, int)
    certificate = bnn_adv.certify(posterior, x, labels, threat=threat, settings=settings)
    certificate.save(tmp_path / "c.npz")
    found = verify_certificate(tmp_path / "c.npz", posterior)
    looked = certificate.margin > 0
    assert looked.any()
    # More than may be off where nothing rounds.
    assert (np.abs(found.margin - certificate.margin)[looked] > 2e-6).all()
    found.check()
    arrays = files.read_arrays(tmp_path / "c.npz")
    raised = arrays | {"margin": arrays["margin"] + 1e-2}
    assert not verify_certificate_arrays(raised, posterior).margin_holds[looked].any()


@pytest.mark.parametrize("method", ["crown-ibp", "alpha-crown"])
def test_pooling_of_windows_that_see_the_same_is_bounded_alike(method, tmp_path):
    # A black background: neither window is larger, and rounding must not choose one.
    rng = np.random.default_rng(0)
    params = {
        "w": jnp.asarray(rng.normal(size=(2, 3, 3, 1, 4)), jnp.float32),
        "u": jnp.asarray(rng.normal(size=(2, 64, 3)), jnp.float32),
    }

    def apply_fn(params, x):
        order = ("NHWC", "HWIO", "NHWC")
        z = jax.lax.conv_general_dilated(x, params["w"], (1, 1), "VALID", dimension_numbers=order)
        pooled = max_pool(z, stride=2)
        return jax.nn.relu(pooled).reshape(len(x), -1) @ params["u"]

    posterior = bnn_adv.Posterior(apply_fn, params)
    x = np.zeros((6, 10, 10, 1), np.float32)
    x[:, 3:6, 3:6] = rng.uniform(size=(6, 3, 3, 1))
    y = np.asarray(predict_log_probs(posterior, jnp.asarray(x))).argmax(axis=1)
    settings = bnn_adv.CertificationSettings(method=method, num_rounds=2, arithmetic="real")
    threat = bnn_adv.LInf(0.001)
    certificate = bnn_adv.certify(posterior, x, y, threat=threat, settings=settings)
    certificate.save(tmp_path / "c.npz")
    found = verify_certificate(tmp_path / "c.npz", posterior)
    looked = certificate.margin > 0
    assert looked.sum() > 3
    found.check()
    np.testing.assert_allclose(found.margin[looked], certificate.margin[looked], rtol=0, atol=2e-8)


@pytest.mark.parametrize("name", CASES)
def test_claims_that_were_added_are_refused(case, name):
    own = case(name)
    number = int(np.flatnonzero(~own.certificate.certified & own.certificate.clean_correct)[0])

    def put(value):
        def change(array):
            array[number] = value
            return array

        return change

    flipped = own.verify({"certified": put(True)})
    assert number in flipped.unconfirmed
    assert not flipped.consistent[number]
    whole = {"certified": put(True), "margin": put(0.5), "least": put(0.5)}
    whole |= {"radius": put(own.certificate.epsilon[number])}
    found = own.verify(whole)
    assert found.consistent[number]
    assert found.unconfirmed.tolist() == [number]
    with pytest.raises(VerificationError, match=rf"certified and not confirmed: {number}\."):
        found.check()


def test_a_wrong_prediction_is_never_certified(case):
    own = case("linf")

    def put(array):
        array[-1] = 0.5 if array.dtype.kind == "f" else True
        return array

    names = ("certified", "margin", "least", "clean_correct", "radius")
    found = own.verify(dict.fromkeys(names, put))
    assert not found.clean_agrees[-1]
    assert not found.confirmed[-1]
    assert not found.proved[-1]
    with pytest.raises(VerificationError, match="clean_correct differs"):
        found.check()


@pytest.mark.parametrize("name", CASES)
def test_larger_balls_are_refused(case, name):
    own = case(name)

    def larger(value):
        return 6 * value

    changes = {"epsilon": larger, "radius": lambda value: np.maximum(value, 6 * value)}
    assert len(own.verify(changes).unconfirmed)
    with pytest.raises(VerificationError, match=f"claim the epsilon .* {own.threat.epsilon:g}"):
        own.verify(changes, threat=own.threat)
    only_radius = own.verify({"radius": larger})
    assert not only_radius.ok
    assert (only_radius.proved == own.verify().proved).all()
    with pytest.raises(VerificationError, match="radius not confirmed"):
        only_radius.check()


def test_a_radius_below_epsilon_contradicts_a_certificate(case):
    own = case("linf")
    found = own.verify({"radius": 0.9 * own.certificate.epsilon})
    assert not found.consistent[found.claimed].any()


def test_other_inputs_and_labels_are_refused(case):
    own = case("linf")
    moved = {"x": lambda x: x[::-1].copy()}
    assert len(own.verify(moved).unconfirmed)
    with pytest.raises(VerificationError, match="differs from the data set"):
        own.verify(moved, x=own.x).check()
    other = {"y": lambda y: (y + 1) % 3}
    found = own.verify(other)
    assert not found.confirmed.any()
    assert not found.ok
    assert not own.verify(other, y=own.y).matches_data.any()
    assert not own.verify({"y": lambda y: y + 3}).labels_valid.any()
    with pytest.raises(VerificationError, match="outside the box"):
        own.verify({"x": lambda x: x + 2}).check()
    with pytest.raises(VerificationError, match="in their order"):
        own.verify(x=own.x[:3])


def settings_with(**changes):
    return lambda text: json.dumps(json.loads(str(text)) | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"draws_hash": "00"}, "draws with the hash 00"),
        ({"decision_rule": "mean_logits"}, "the decision rule mean_logits"),
        ({"num_samples": 7}, "a number of draws of 7"),
        ({"norm": "linfty"}, "Unknown norm"),
        ({"upper": np.inf}, "the box|upper"),
        ({"lower": 2.0}, "the box"),
        ({"epsilon": lambda value: value + np.inf}, "epsilon"),
        ({"radius": lambda value: -1 - value}, "radius"),
        ({"margin": lambda value: value * np.nan}, "margin"),
        ({"margin": lambda value: value[:3]}, "margin must have shape"),
        ({"rounds": lambda value: value + 1}, "rounds must add up"),
        ({"points": lambda value: value[:, :2]}, "points must have shape"),
        ({"settings": "crown"}, "no JSON"),
        ({"settings": settings_with(method="magic")}, "method='magic'"),
        ({"settings": settings_with(most_rows=-1)}, "most_rows=-1"),
    ],
)
def test_malformed_and_other_certificates_are_refused(case, changes, message):
    with pytest.raises(VerificationError, match=message):
        case("linf").verify(changes)


def test_draws_that_were_changed_are_refused(case):
    own = case("linf")
    samples = jax.tree.map(lambda w: w * 1.0001, own.posterior.samples)
    with pytest.raises(VerificationError, match="draws with the hash"):
        verify_certificate(own.path, bnn_adv.Posterior(own.posterior.apply_fn, samples))


def test_real_arithmetic_is_said_and_can_be_refused(case):
    own, real = case("linf"), settings_with(arithmetic="real")
    with pytest.raises(VerificationError, match="about arithmetic: real; yours is float32"):
        own.verify({"settings": real}, arithmetic="float32")

    # What is lost in float32 is certified in real arithmetic, and by the same file only so.
    def lost(rounding):
        return rounding + 2.0

    assert "in real arithmetic" in str(own.verify({"settings": real}))
    changes = {
        "rounding": lost,
        "certified": lambda value: value & False,
        "radius": lambda r: 0 * r,
    }
    assert own.verify(changes).ok
    assert not own.verify(changes | {"settings": real}).consistent.all()


def test_objects_are_not_unpickled(case, tmp_path):
    own = case("linf")
    arrays = dict(files.read_arrays(own.path), settings=np.array({"method": "crown"}))
    np.savez(tmp_path / "forged.npz", **arrays)
    with pytest.raises(ValueError, match="Python objects"):
        verify_certificate(tmp_path / "forged.npz", own.posterior)
    del arrays["points"]
    with pytest.raises(VerificationError, match="lacks the arrays points"):
        verify_certificate_arrays(arrays, own.posterior)


def test_it_shares_no_code_with_what_it_checks():
    for path in Path(referee_module.__file__).parent.glob("referee*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("bnn_adv.certification."):
                    assert name.split(".")[2].startswith("referee_"), (path, name)


def test_low_precision_is_refused(case):
    own = case("linf")
    half = bnn_adv.Posterior(own.posterior.apply_fn, own.posterior.samples, precision="bfloat16")
    with pytest.raises(VerificationError, match="bfloat16"):
        verify_certificate(own.path, half)


def test_unknown_primitives_are_refused_by_name(case):
    own = case("linf")

    def apply_fn(params, x):
        return jnp.sin(own.posterior.apply_fn(params, x))

    other = bnn_adv.Posterior(apply_fn, own.posterior.samples)
    with pytest.raises(VerificationError, match=r"not confirmed: .* primitive sin"):
        verify_certificate(own.path, other)
