"""What every data set promises."""

from __future__ import annotations

import numpy as np
import pytest

from bnn_adv.data import DATASETS, DatasetError, fashion_mnist, load_dataset, mnist


@pytest.fixture
def data_dir(tmp_path, monkeypatch, tiny_named):
    """Return a folder where every set that needs files finds tiny ones."""
    for module, attribute in ((mnist, "MNIST"), (fashion_mnist, "FASHION_MNIST")):
        tiny = tiny_named(getattr(module, attribute).name)
        monkeypatch.setattr(module, attribute, tiny.image_set)
        tiny.write_idx(tmp_path / tiny.image_set.name)
    return tmp_path


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_keeps_the_promises(name, data_dir):
    data = load_dataset(name, data_dir, num_train=30, num_test=15, seed=2)
    assert data.name == name
    for x, y, count in ((data.x_train, data.y_train, 30), (data.x_test, data.y_test, 15)):
        assert x.shape == (count, *data.input_shape)
        assert y.shape == (count,)
        assert len(data.input_shape) in (1, 3)
        assert x.dtype == np.float32
        assert y.dtype == np.int32
        assert x.min() >= 0.0
        assert x.max() <= 1.0
        assert y.min() >= 0
        assert y.max() < data.num_classes


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_reproducible(name, data_dir):
    first = load_dataset(name, data_dir, num_train=20, seed=1)
    again = load_dataset(name, data_dir, num_train=20, seed=1)
    other = load_dataset(name, data_dir, num_train=20, seed=2)
    np.testing.assert_array_equal(first.x_train, again.x_train)
    np.testing.assert_array_equal(first.y_test, again.y_test)
    assert not np.array_equal(first.x_train, other.x_train)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_all_its_classes(name, data_dir):
    data = load_dataset(name, data_dir)
    assert set(data.y_train) == set(range(data.num_classes))


@pytest.mark.parametrize("name", DATASETS)
def test_too_many_examples_are_refused(name, data_dir):
    with pytest.raises(DatasetError, match="num_train=1000000"):
        load_dataset(name, data_dir, num_train=1_000_000)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(DatasetError) as error:
        load_dataset("mnits")
    assert all(word in str(error.value) for word in ("mnits", *DATASETS))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_sets_with_files_say_how_to_get_them(name, tmp_path):
    with pytest.raises(DatasetError, match=f"download_and_prepare\\('{name}'"):
        load_dataset(name, tmp_path)
