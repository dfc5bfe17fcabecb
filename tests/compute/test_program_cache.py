"""Compiled programs are kept on disk where somebody asks for it."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

import bnn_adv

NAMES = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def plain(monkeypatch, tmp_path):
    """As a user's process is who has set nothing."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    for name, value in zip(NAMES, (None, 1.0, 0), strict=True):
        jax.config.update(name, value)
    monkeypatch.delenv("BNN_ADV_COMPILATION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_something(number):
    # After other programs of the process, which were not kept.
    jax.jit(lambda x: x * number)(jnp.ones(3))


def test_it_may_begin_late_and_keeps_small_programs(plain, tmp_path):
    compile_something(1.0)
    assert bnn_adv.enable_compilation_cache() == tmp_path / "home" / "bnn_adv" / "programs"
    compile_something(2.0)
    assert list((tmp_path / "home" / "bnn_adv" / "programs").iterdir())


def test_the_folder_is_the_callers_or_the_environments(plain, monkeypatch, tmp_path):
    monkeypatch.setenv("BNN_ADV_COMPILATION_CACHE", str(tmp_path / "theirs"))
    assert bnn_adv.enable_compilation_cache(tmp_path / "mine") == tmp_path / "mine"
    jax.config.update("jax_compilation_cache_dir", None)
    assert bnn_adv.enable_compilation_cache() == tmp_path / "theirs"
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("BNN_ADV_COMPILATION_CACHE", "off")
    assert bnn_adv.enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_cache_that_the_user_has_set_up_stays_as_it_is(plain, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    assert bnn_adv.enable_compilation_cache() == Path(tmp_path / "own")
    assert [getattr(jax.config, name) for name in NAMES] == [str(tmp_path / "own"), 1.0, 0]


@pytest.mark.parametrize("below", ["", "/below"])
def test_a_file_is_no_folder(plain, monkeypatch, tmp_path, below):
    (tmp_path / "file").write_text("")
    path = f"{tmp_path}/file{below}"
    with pytest.raises(ValueError, match="need a folder"):
        bnn_adv.enable_compilation_cache(path)
    monkeypatch.setenv("BNN_ADV_COMPILATION_CACHE", path)
    with pytest.raises(ValueError, match="need a folder"):
        bnn_adv.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None


def test_nobody_is_stopped_by_a_home_in_which_nothing_can_be_made(plain, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert bnn_adv.enable_compilation_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
