from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bnn_adv.compute import files
from bnn_adv.data import cache, idx, images, tfds
from bnn_adv.data.dataset import DatasetError


def assert_is(tiny, data):
    assert data.name == "tiny"
    assert data.num_classes == 10
    for key, array in tiny.arrays.items():
        found = getattr(data, key)
        if key.startswith("x"):
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, (array[..., None] / 255).astype(np.float32))
        else:
            np.testing.assert_array_equal(found, array.astype(np.int32), strict=True)


def refused(tiny, data_dir, *words):
    """Check that loading fails with these words and with both ways to get the set."""
    with pytest.raises(DatasetError) as error:
        images.load(tiny.image_set, data_dir)
    both_ways = ("download_and_prepare('tiny'", ".[tfds]", "train-images-idx3-ubyte")
    assert [word for word in (*words, *both_ways) if word not in str(error.value)] == []


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("subfolder", ["", "tiny"])
def test_idx_files_directly_or_in_a_subfolder(tiny, tmp_path, gzipped, subfolder):
    root = tmp_path / "root"
    tiny.write_idx(root / subfolder, gzipped=gzipped)
    assert_is(tiny, images.load(tiny.image_set, root))


def test_tfds_root(tiny, tmp_path):
    tiny.write_tfds(tmp_path)
    assert_is(tiny, images.load(tiny.image_set, str(tmp_path)))


def test_default_places(tiny, home):
    refused(tiny, None, "tensorflow_datasets", "bnn_adv")
    tiny.write_idx(home / "cache" / "bnn_adv" / "tiny")
    assert_is(tiny, images.load(tiny.image_set))


def test_default_root_of_tfds(tiny, home):
    tiny.write_tfds(home / "tensorflow_datasets")
    assert_is(tiny, images.load(tiny.image_set))


def test_source_is_decoded_once(tiny, tmp_path, monkeypatch):
    tiny.write_tfds(tmp_path / "prepared")
    tiny.write_idx(tmp_path / "published")
    for folder in ("prepared", "published"):
        images.load(tiny.image_set, tmp_path / folder)

    def fail(*args, **options):
        raise AssertionError("decoded again")

    monkeypatch.setattr(tfds, "read_split", fail)
    monkeypatch.setattr(idx, "read", fail)
    for folder in ("prepared", "published"):
        assert_is(tiny, images.load(tiny.image_set, tmp_path / folder))


def test_source_that_changed_after_caching_is_verified_again(tiny, tmp_path):
    folder = tiny.write_idx(tmp_path / "tiny", gzipped=False)
    images.load(tiny.image_set, folder)
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    refused(tiny, folder, str(path), "truncated")


def test_absent_set_names_the_places(tiny, tmp_path):
    refused(tiny, tmp_path / "nowhere", str(tmp_path / "nowhere"), "not found")


def test_incomplete_idx_folder_names_what_is_missing(tiny, tmp_path):
    folder = tiny.write_idx(tmp_path / "tiny")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    refused(tiny, tmp_path, str(folder), "found 3", "missing: t10k-labels-idx1-ubyte")


def test_another_data_set_in_the_folder_is_refused(tiny, tmp_path):
    other = {**tiny.arrays, "x_test": tiny.arrays["x_test"][::-1]}
    folder = tiny._replace(arrays=other).write_idx(tmp_path / "idx")
    refused(tiny, folder, "t10k-images-idx3-ubyte", "checksum", tiny.image_set.x_test.md5)
    tiny._replace(arrays=other).write_tfds(tmp_path / "tfds")
    refused(tiny, tmp_path / "tfds", "'test'", tiny.image_set.x_test.md5)


def test_wrong_shape_is_refused(tiny, tmp_path):
    expected = dataclasses.replace(
        tiny.image_set, x_train=tiny.image_set.x_train._replace(shape=(40, 4, 5))
    )
    folder = tiny.write_idx(tmp_path / "idx")
    refused(tiny._replace(image_set=expected), folder, "(40, 4, 5)", "(40, 5, 4)")


def test_failure_leaves_nothing_behind(tiny, tmp_path, home):
    folder = tiny.write_idx(tmp_path / "tiny")
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    before = sorted(tmp_path.rglob("*"))
    refused(tiny, folder, str(path), "gzip")
    assert sorted(tmp_path.rglob("*")) == before
    assert list(home.iterdir()) == []


def test_other_format_of_tfds_is_named(tiny, tmp_path):
    folder = tiny.write_tfds(tmp_path, file_format="tfrecord")
    refused(tiny, tmp_path, str(folder), "tfrecord", "array_record")


def test_idx_files_serve_where_tfds_has_another_format(tiny, tmp_path):
    tiny.write_tfds(tmp_path, file_format="tfrecord")
    tiny.write_idx(tmp_path / "idx")
    for path in (tmp_path / "idx").iterdir():
        path.rename(tmp_path / path.name)
    assert_is(tiny, images.load(tiny.image_set, tmp_path))


def test_unreadable_file_is_a_dataset_error(tiny, tmp_path, monkeypatch):
    def denied(paths):
        raise PermissionError(13, "Permission denied", "file")

    monkeypatch.setattr(images.cache, "files_digest", denied)
    refused(tiny, tiny.write_idx(tmp_path / "tiny"), "Permission denied")


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_a_forged_cache_is_found_by_the_published_checksum(tiny, tmp_path, caplog, key):
    """Of the right shapes, with its own digest, under the name that its source gives it."""
    folder = tiny.write_idx(tmp_path / "tiny")
    images.load(tiny.image_set, folder)
    (path,) = folder.glob("*.npz")
    forged = tiny.arrays | {key: tiny.arrays[key].copy()}
    forged[key].flat[0] ^= 1
    sound = path.read_bytes()
    path.unlink()
    cache.cached(
        lambda: forged,
        name="tiny",
        digest=cache.files_digest(p for p in folder.iterdir()),
        folders=[folder],
    )
    assert path.is_file()
    assert_is(tiny, images.load(tiny.image_set, folder))
    assert f"holds other data than published: {key}." in caplog.text
    # It was replaced by the right one.
    assert files.read_arrays(path).keys() == {*tiny.arrays, "digest"}
    assert path.stat().st_size == len(sound)
    caplog.clear()
    assert_is(tiny, images.load(tiny.image_set, folder))
    assert not caplog.text
