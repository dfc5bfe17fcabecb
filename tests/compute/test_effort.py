"""Programs that run briefly are compiled with low effort, and nothing else is."""

import contextlib
import gc
import threading

import jax
import jax.numpy as jnp
import pytest

from bnn_adv.compute import effort, programs


@contextlib.contextmanager
def jax_lines(limit):
    """Let programs have so many source lines an operation, as they have outside of tests."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, limit)
    try:
        yield
    finally:
        jax.config.update(name, before)


def lowers(fn):
    """Return whether a function of one number is compiled with low effort here."""
    compiled = programs.jit(fn)
    compiled(1.0)
    return compiled._quick is not None and compiled._quick._cache_size() == 1


def test_effort_is_low_within_and_only_there():
    assert not lowers(jnp.sin)
    with effort.lower():
        assert lowers(jnp.sin)
        found = []
        other = threading.Thread(target=lambda: found.append(lowers(jnp.sin)))
        other.start()
        other.join()
        assert found == [False]
        with effort.lower(False):
            assert lowers(jnp.sin)
    with effort.lower(False):
        assert not lowers(jnp.sin)
    with pytest.raises(ZeroDivisionError), effort.lower():
        raise ZeroDivisionError
    assert not lowers(jnp.sin)


@pytest.mark.parametrize("is_on", [True, False])
def test_the_collector_rests_meanwhile_and_is_left_as_it_was(is_on):
    was_on = gc.isenabled()
    try:
        gc.enable() if is_on else gc.disable()
        with effort.lower(False):
            assert gc.isenabled() is is_on
        with effort.lower():
            assert not gc.isenabled()
        assert gc.isenabled() is is_on
        with pytest.raises(ZeroDivisionError), effort.lower():
            raise ZeroDivisionError
        assert gc.isenabled() is is_on
    finally:
        gc.enable() if was_on else gc.disable()


def test_programs_have_no_source_lines_meanwhile():
    def has_lines(text):
        return "test_effort.py" in text

    def lower():
        # Traced anew, or JAX would remember.
        return jax.jit(lambda x: jnp.sin(x)).lower(1.0).as_text(debug_info=True)

    with jax_lines(100):
        assert has_lines(lower())
        with effort.lower():
            assert not has_lines(lower())
            found = []
            other = threading.Thread(target=lambda: found.append(lower()))
            other.start()
            other.join()
            assert has_lines(found[0])
        assert has_lines(lower())


def test_a_program_within_another_is_compiled_with_it():
    """JAX refuses compiler options there."""
    inner = programs.jit(jnp.sin)
    outer = programs.jit(lambda x: 2 * inner(x))
    with effort.lower():
        assert outer(1.0) == 2 * inner(1.0)
        assert jax.vmap(inner)(jnp.ones(3)).shape == (3,)
        assert jax.eval_shape(inner, 1.0).shape == ()


def test_programs_of_both_efforts_are_counted_and_dropped():
    compiled = programs.jit(jnp.sin)
    full = compiled(1.0)
    with effort.lower():
        assert abs(compiled(1.0) - full) <= 1e-6
        assert abs(compiled(1.0) - full) <= 1e-6
    assert compiled._cache_size() == 2
    programs.drop()
    assert compiled._cache_size() == 0


def test_options_that_the_compiler_does_not_know_are_left_out(monkeypatch):
    """It refuses to compile with them, and newer ones have no older emitters."""
    known = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(effort, "_OPTIONS", {**known, "xla_cpu_not_there": True})
    effort.options.cache_clear()
    try:
        assert effort.options() == known
        with effort.lower():
            assert lowers(jnp.sin)
        effort.options.cache_clear()
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        assert effort.options() == {}
        with effort.lower():
            assert not lowers(jnp.sin)
    finally:
        effort.options.cache_clear()
