from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnn_adv.data import tfds
from bnn_adv.data.dataset import DatasetError


@pytest.mark.slow
def test_importing_the_package_does_not_import_tfds():
    code = "import sys, bnn_adv.data; sys.exit('tensorflow_datasets' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_default_root_follows_the_environment(home, monkeypatch):
    assert tfds.default_root() == home / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/elsewhere")
    assert tfds.default_root() == home / "elsewhere"


def test_prepared_folders_are_found_newest_first(tiny, tmp_path):
    assert tfds.prepared_folders(tmp_path, "tiny") == {}
    old = tiny.write_tfds(tmp_path)
    newer = old.with_name("3.0.10")
    newest = old.with_name("10.0.0")
    for folder in (newer, newest):
        folder.mkdir()
        (folder / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    found = tfds.prepared_folders(tmp_path, "tiny")
    assert list(found.items()) == [
        (newest, "tfrecord"),
        (newer, "tfrecord"),
        (old, "array_record"),
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"name": "tiny"}'])
def test_damaged_info_has_an_unknown_format(tmp_path, content):
    folder = tmp_path / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(content)
    assert tfds.prepared_folders(tmp_path, "tiny") == {folder: "unknown"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_split_is_read_and_put_in_the_published_order(tiny, tmp_path, split):
    folder = tiny.write_tfds(tmp_path)
    x, y = tiny.arrays[f"x_{split}"], tiny.arrays[f"y_{split}"]
    images, labels = tfds.read_split(folder, split, (*x.shape, 1))
    assert not np.array_equal(labels, y), "TFDS shuffles; this set would not show it"
    order = tfds.published_order(split, len(y))
    np.testing.assert_array_equal(images[order][..., 0], x, strict=True)
    np.testing.assert_array_equal(labels[order], y, strict=True)


def test_published_order_inverts_the_hash_of_tfds():
    """10,000 test images: the order in which TFDS 3.0.1 of MNIST stores them, measured."""
    stored = np.argsort(tfds.published_order("test", 10_000))
    np.testing.assert_array_equal(stored[:6], [9933, 5669, 163, 6686, 4747, 131])


def _file(folder: Path) -> Path:
    return next(folder.glob("*-train.array_record*"))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # The first block holds the examples; the middle of the file is padding.
    content[200] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "missing file": lambda folder: _file(folder).unlink(),
    "empty file": lambda folder: _file(folder).write_bytes(b""),
    "truncated file": lambda folder: _file(folder).write_bytes(_file(folder).read_bytes()[:70_000]),
    "flipped byte": lambda folder: _flip(_file(folder)),
    "missing features": lambda folder: (folder / "features.json").unlink(),
    "broken info": lambda folder: (folder / "dataset_info.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_split_is_refused(tiny, tmp_path, damage):
    folder = tiny.write_tfds(tmp_path)
    damage(folder)
    with pytest.raises(DatasetError) as error:
        tfds.read_split(folder, "train", (40, 5, 4, 1))
    assert str(folder) in str(error.value)
    assert "'train'" in str(error.value)


@pytest.mark.parametrize("count", [39, 41])
def test_another_number_of_examples_is_refused(tiny, tmp_path, count):
    folder = tiny.write_tfds(tmp_path)
    with pytest.raises(DatasetError, match=f"expected {count} examples .* found 40"):
        tfds.read_split(folder, "train", (count, 5, 4, 1))


def test_images_of_another_size_are_refused(tiny, tmp_path):
    with pytest.raises(DatasetError, match="expected to decode 40 images"):
        tfds.read_split(tiny.write_tfds(tmp_path), "train", (40, 6, 6, 1))


class FakeBuilder:
    """Prepare a tiny set, as a builder of TFDS would with TensorFlow and a network."""

    def __init__(self, tiny, data_dir, *, fail=False):
        self.tiny, self.root, self.fail = tiny, Path(data_dir), fail
        self.data_dir = str(self.root / tiny.image_set.name / "3.0.1")

    def download_and_prepare(self):
        self.tiny.write_tfds(self.root)
        if self.fail:
            raise ConnectionError("no network")


@pytest.fixture
def with_tensorflow(monkeypatch, tiny):
    """Pretend that TensorFlow is installed; returns how to make preparation fail."""
    import tensorflow_datasets

    fail: list[bool] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(
        tensorflow_datasets,
        "builder",
        lambda name, *, data_dir, file_format: FakeBuilder(tiny, data_dir, fail=bool(fail)),
    )
    return lambda: fail.append(True)


def test_download_moves_a_finished_set_into_place(with_tensorflow, tiny, tmp_path):
    folder = tfds.download_and_prepare("tiny", tmp_path / "root")
    assert folder == tmp_path / "root" / "tiny" / "3.0.1"
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["tiny"]
    tfds.read_split(folder, "test", (17, 5, 4, 1))


def test_download_keeps_what_is_there(with_tensorflow, tiny, tmp_path):
    folder = tiny.write_tfds(tmp_path)
    with_tensorflow()
    assert tfds.download_and_prepare("tiny", tmp_path) == folder


def test_failed_download_leaves_nothing(with_tensorflow, tmp_path):
    with_tensorflow()
    with pytest.raises(ConnectionError):
        tfds.download_and_prepare("tiny", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_does_not_mix_formats(with_tensorflow, tiny, tmp_path):
    tiny.write_tfds(tmp_path, file_format="tfrecord")
    with pytest.raises(DatasetError, match="tfrecord"):
        tfds.download_and_prepare("tiny", tmp_path)


def test_download_without_tensorflow_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match=r"\.\[tfds\]"):
        tfds.download_and_prepare("tiny", tmp_path)
    assert list(tmp_path.iterdir()) == []
