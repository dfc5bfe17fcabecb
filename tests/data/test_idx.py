from __future__ import annotations

import gzip
import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnn_adv.data import idx
from bnn_adv.data.dataset import DatasetError

ARRAY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
# Written out by hand from the published description of the format.
BYTES = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, *range(24)])
MD5 = hashlib.md5(BYTES).hexdigest()


@pytest.fixture
def write(tmp_path):
    def write(content: bytes, name: str = "file-idx3-ubyte"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def refused(path, *words, **options):
    """Check that reading fails with the file's name and these words in the message."""
    with pytest.raises(DatasetError) as error:
        idx.read(path, **options)
    assert str(path) in str(error.value)
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize("gzipped", [False, True])
def test_reads_plain_and_gzipped(write, gzipped):
    path = write(gzip.compress(BYTES) if gzipped else BYTES)
    found = idx.read(path, shape=(2, 3, 4), md5=MD5)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, ARRAY)


def test_encode_and_checksum_follow_the_format():
    assert idx.encode(ARRAY) == BYTES
    assert idx.checksum(ARRAY) == MD5


# A shared machine may need longer than any deadline for one small file.
@settings(deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_every_shape_survives_the_round_trip(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(idx.encode(array))
    found = idx.read(path, shape=array.shape, md5=idx.checksum(array))
    np.testing.assert_array_equal(found, array, strict=True)


@settings(deadline=None)
@given(st.integers(0, len(BYTES) - 1))
def test_every_truncation_is_refused(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(BYTES[:length])
    refused(path)


@settings(deadline=None)
@given(st.integers(0, len(BYTES) - 1), st.integers(1, 255))
def test_every_changed_byte_is_refused(tmp_path_factory, position, change):
    damaged = bytearray(BYTES)
    damaged[position] ^= change
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(damaged)
    refused(path, shape=(2, 3, 4), md5=MD5)


def test_truncated_says_expected_and_found(write):
    refused(write(BYTES[:-5]), "truncated", "40", "35")


def test_too_long_is_refused(write):
    refused(write(BYTES + b"x"), "too long", "40", "41")


def test_wrong_shape_says_expected_and_found(write):
    refused(write(BYTES), "(5, 3, 4)", "(2, 3, 4)", shape=(5, 3, 4))


def test_wrong_checksum_says_expected_and_found(write):
    refused(write(BYTES), "f" * 32, MD5, md5="f" * 32)


def test_wrong_type_says_expected_and_found(write):
    refused(write(bytes([0, 0, 0x0D, 1, 0, 0, 0, 0])), "00 00 08", "00 00 0d")


def test_huge_announced_shape_is_refused_without_allocating_it(write):
    refused(write(bytes([0, 0, 8, 3]) + b"\xff" * 12), "truncated")


@pytest.mark.parametrize("damage", [lambda c: c[:-12], lambda c: c[:12] + b"\xff\xff" + c[14:]])
def test_damaged_gzip_is_refused(write, damage):
    refused(write(damage(gzip.compress(BYTES)), "file.gz"), "gzip")


def test_absent_file_is_refused(tmp_path):
    refused(tmp_path / "absent", "cannot be read")


def test_other_types_are_not_encoded():
    with pytest.raises(DatasetError, match="float64"):
        idx.encode(np.zeros(3))


def test_find_prefers_the_plain_file(write, tmp_path):
    assert idx.find(tmp_path, "stem") is None
    packed = write(b"", "stem.gz")
    assert idx.find(tmp_path, "stem") == packed
    plain = write(b"", "stem")
    assert idx.find(tmp_path, "stem") == plain


def test_a_gzip_file_is_unpacked_up_to_the_expected_size(tmp_path):
    """13 MiB took 6 GiB."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = idx.encode(np.zeros((10, 28, 28), np.uint8)) + bytes(64 << 20)
    path.write_bytes(gzip.compress(content, 6))
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"too long.* 7856 bytes .* holds 7857 or more"):
        idx.read(path, shape=(10, 28, 28))
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
