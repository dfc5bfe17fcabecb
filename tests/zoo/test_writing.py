"""An entry is written as a whole or not at all, and only what belongs together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bnn_adv import zoo
from bnn_adv.certification import Certificate
from bnn_adv.compute import files
from bnn_adv.posteriors.posterior import Posterior, hash_draws, predict_log_probs
from bnn_adv.zoo import writing
from bnn_adv.zoo.folder import read_draws, write_draws
from tests.zoo.small import RECORD, make_posterior


def bits(leaf):
    return np.asarray(leaf).view(np.uint32)


def test_every_number_of_float16_is_stored_in_half_and_comes_back_bit_for_bit(tmp_path):
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    kernel = every[np.isfinite(every)].astype(np.float32)
    record = dataclasses.replace(RECORD, settings={"hidden": len(kernel)})
    samples = {
        "hidden_0": {"kernel": kernel[None, None], "bias": 0 * kernel[None] + np.float32(0.1)},
        "logits": {"kernel": np.zeros((1, len(kernel), 3), np.float32), "bias": np.ones((1, 3))},
    }
    samples = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), samples)
    posterior = Posterior(lambda params, x: x, samples)
    write_draws(tmp_path / "draws.npz", posterior)
    stored = {name: h.dtype for name, h in files.inspect_arrays(tmp_path / "draws.npz").items()}
    assert stored == {
        "hidden_0/kernel": np.float16,
        "hidden_0/bias": np.float32,
        "logits/kernel": np.float16,
        "logits/bias": np.float16,
    }
    read = read_draws(tmp_path / "draws.npz", record, (1,))
    assert hash_draws(read) == hash_draws(posterior)
    np.testing.assert_array_equal(
        bits(read.samples["hidden_0"]["kernel"]), bits(samples["hidden_0"]["kernel"])
    )


def test_rounded_draws_are_the_nearest_that_float16_has():
    plain = Posterior(lambda params, x: x, {"w": jnp.asarray([[0.1, 1.0, -2049.0]], jnp.float32)})
    rounded = zoo.round_draws(plain)
    assert rounded.samples["w"].dtype == jnp.float32
    np.testing.assert_array_equal(rounded.samples["w"], [[0.0999755859375, 1.0, -2048.0]])
    assert hash_draws(zoo.round_draws(rounded)) == hash_draws(rounded) != hash_draws(plain)
    with pytest.raises(zoo.ZooError, match="65504"):
        zoo.round_draws(dataclasses.replace(plain, samples={"w": jnp.asarray([[7e4]])}))


def test_draws_that_are_no_numbers_are_refused(tmp_path):
    broken = Posterior(lambda params, x: x, {"w": jnp.asarray([[jnp.nan]])})
    with pytest.raises(zoo.ZooError, match="draws of w hold numbers that are not finite"):
        write_draws(tmp_path / "draws.npz", broken)


def wrong(**changes):
    return lambda parts: changes


def other_inputs(parts):
    return {"dataset": dataclasses.replace(parts.dataset, x_test=parts.dataset.x_test[::-1])}


def other_labels(parts):
    return {"dataset": dataclasses.replace(parts.dataset, y_test=parts.dataset.y_test[::-1])}


def other_rule(parts):
    return {"posterior": dataclasses.replace(parts.posterior, decision_rule="mean_logits")}


def record(**changes):
    return {"record": dataclasses.replace(RECORD, **changes)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda _: {"posterior": make_posterior(seed=1)}, "differs: certificate's draws"),
        (other_inputs, "certificate's inputs"),
        (other_labels, "certificate's labels"),
        (other_rule, "decision rule"),
        (lambda _: record(dataset="mnist"), "data set"),
        (lambda _: record(indices=(1, 0, 4, 99)), "8 test inputs"),
        (lambda _: record(settings={"hidden": 4}), "hidden_0/kernel has shape"),
    ],
)
def test_what_does_not_belong_together_is_not_written(parts, tmp_path, changes, message):
    with pytest.raises(zoo.ZooError, match=message):
        parts.write(tmp_path / "entry", **changes(parts))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_network_that_fits_and_computes_otherwise_is_refused(parts, tmp_path):
    """Its certificate claims nothing, and is right where the other network is."""
    other = dataclasses.replace(
        parts.posterior, apply_fn=make_posterior(activation="relu").apply_fn
    )
    x, y = parts.certificate.x, parts.certificate.y
    nothing = dataclasses.replace(
        parts.certificate,
        certified=np.zeros(4, bool),
        radius=np.zeros(4),
        margin=np.full(4, -1.0),
        clean_correct=np.asarray(predict_log_probs(other, x)).argmax(1) == y,
    )
    with pytest.raises(zoo.ZooError, match="predict otherwise than the posterior"):
        parts.write(
            tmp_path / "entry",
            certificate=nothing,
            **record(settings={"hidden": 3, "activation": "relu"}),
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_false_certificate_is_not_written(parts, tmp_path):
    wide = dataclasses.replace(
        parts.certificate,
        epsilon=np.full(4, 0.9, np.float32),
        radius=np.where(parts.certificate.certified, np.float32(0.9), 0),
    )
    with pytest.raises(zoo.ZooError, match="referee does not confirm"):
        parts.write(tmp_path / "entry", certificate=wide)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_entries_together_stay_below_the_limit(parts, written, tmp_path, monkeypatch):
    size = sum(path.stat().st_size for path in written.iterdir())
    monkeypatch.setattr(writing, "MOST_BYTES", 2 * size)
    parts.write(tmp_path / "a")
    # Names differ in length, and so do their records.
    monkeypatch.setattr(writing, "MOST_BYTES", 2 * size - 100)
    with pytest.raises(zoo.ZooError, match=r"draws.npz \d.* those beside it .* exceed"):
        parts.write(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.slow
def test_a_write_that_is_stopped_leaves_nothing(parts, tmp_path, monkeypatch):
    def stop(self, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(Certificate, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        parts.write(tmp_path / "entry")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_exists_is_not_replaced_and_names_are_plain(parts, written, tmp_path):
    with pytest.raises(FileExistsError, match="delete it first"):
        parts.write(written)
    for name in ("Large", "a-b", "0a", "_a", ".a", "ä"):
        with pytest.raises(zoo.ZooError, match="no name of a zoo entry"):
            parts.write(tmp_path / name)


@pytest.mark.slow
def test_others_may_read_what_was_written(written):
    assert written.stat().st_mode & 0o777 == (written / "draws.npz").stat().st_mode & 0o777 | 0o111
