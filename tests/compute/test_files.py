"""Atomic files: the old content or the new, nothing else, no pickle."""

import json
import tracemalloc
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn_adv.compute import disk, files
from bnn_adv.compute.checkpoint import Checkpoints


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "results.json"
    files.write_json(path, {"a": 1})

    def interrupted():
        with files.atomic_writer(path) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        interrupted()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert not list(tmp_path.iterdir())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Texts that look like what lists are made of.
    | st.text(alphabet='[]{}"\\\n ,:1a', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(alphabet='[]"\n a', max_size=3), inner, max_size=3)
    ),
)


@given(value=JSON)
def test_json_comes_back_as_it_was(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


def test_a_list_of_numbers_is_one_line(tmp_path):
    value = {"rows": [[1, -2.5e-7, None], ["[\n1\n]", True]], "none": [], "one": [{"a": [3]}]}
    files.write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == value
    assert "\n    [1, -2.5e-07, null],\n" in text
    assert '\n      "a": [3]\n' in text


def test_objects_are_not_pickled(tmp_path):
    with pytest.raises(ValueError, match="'thing' has dtype object"):
        files.write_arrays(tmp_path / "a.npz", {"thing": np.array([{}])})
    np.savez(tmp_path / "b.npz", thing=np.array([{}]))
    with pytest.raises(ValueError, match=r"b\.npz"):
        files.read_arrays(tmp_path / "b.npz")


def test_arrays_come_back_bit_equal(tmp_path):
    arrays = {"a/b": np.arange(3, dtype=np.float32), "text": np.array(["x", "yz"])}
    files.write_arrays(tmp_path / "deep" / "a.npz", arrays)
    back = files.read_arrays(tmp_path / "deep" / "a.npz")
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


def test_damaged_json_names_the_file(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not JSON"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.slow
def test_an_archive_that_unpacks_to_much_more_is_not_read(tmp_path):
    """13 MiB took 3 GiB."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(80 << 20, np.uint8))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    for read in (files.inspect_arrays, files.read_arrays):
        with pytest.raises(ValueError, match=r"bomb.npz .*x.npy would unpack \d+ bytes to 838"):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_header_that_announces_more_than_there_is_is_damaged(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
        )
        file.write(b"1234")
    with pytest.raises(ValueError, match=r"x.npy announces float32\[1099511627776\] and holds"):
        files.read_arrays(path)


def test_headers_are_read_without_the_arrays(tmp_path):
    plain = {"x": np.zeros((2, 3), ">i2"), "t": np.array("text")}
    files.write_arrays(tmp_path / "a.npz", plain)
    wanted = {"x": ((2, 3), np.dtype(">i2"), None), "t": ((), np.dtype("<U4"), None)}
    assert files.inspect_arrays(tmp_path / "a.npz") == wanted
    # What NumPy's format loses is named beside it.
    lost = {"h": jnp.zeros((2, 3), jnp.bfloat16), "k": jax.random.split(jax.random.key(0), 4)}
    files.write_arrays(tmp_path / "b.npz", plain | lost)
    wanted["h"] = (2, 3), np.dtype("<u2"), "bfloat16"
    wanted["k"] = (4, 2), np.dtype("<u4"), "key:threefry2x32"
    assert files.inspect_arrays(tmp_path / "b.npz") == wanted
    found = files.read_arrays(tmp_path / "b.npz")
    assert {name: str(array.dtype) for name, array in found.items()} == {
        "x": ">i2",
        "t": "<U4",
        "h": "bfloat16",
        "k": "key<fry>",
    }


def test_what_is_not_asked_for_is_not_read(tmp_path):
    path = tmp_path / "a.npz"
    files.write_arrays(path, {"x": np.arange(3), "more": np.zeros(20 << 20, np.uint8)})
    tracemalloc.start()
    found = files.read_arrays(path, ("x", "absent"))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert set(found) == {"x"}
    np.testing.assert_array_equal(found["x"], np.arange(3))


@pytest.mark.slow
def test_many_arrays_that_unpack_to_much_more_than_their_file_are_not_read(tmp_path):
    """Each of them is small enough."""
    path = tmp_path / "a.npz"
    np.savez_compressed(
        path, x=np.arange(3), **{f"e{i}": np.zeros(9 << 20, bool) for i in range(8)}
    )
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a.npz .*it would unpack \d+ bytes to 75497\d+"):
        files.read_arrays(path)
    assert set(files.read_arrays(path, ["x"])) == {"x"}
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files.write_arrays("~/some/x.npz", {"x": np.arange(3)})
    files.write_json("~/x.json", [1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some", "x.json"]
    np.testing.assert_array_equal(files.read_arrays("~/some/x.npz")["x"], np.arange(3))
    assert files.read_json("~/x.json") == [1]
    draws = disk.store_in("~/draws")({"w": np.zeros((2, 3))})
    assert draws.folder == tmp_path / "draws"
    checkpoints = Checkpoints("~/checkpoints", every_seconds=None, log=lambda message: None)
    assert checkpoints.directory == tmp_path / "checkpoints"
