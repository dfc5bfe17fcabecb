"""Bounds of settings are declared once, and hold for every way to make them."""

import dataclasses
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnn_adv.compute import settings
from bnn_adv.compute.canonical import digest
from bnn_adv.compute.settings import SettingError, Settings, setting


@dataclasses.dataclass(frozen=True)
class Inner(Settings):
    """Inner settings.

    Args:
      scale: Standard deviation, of what goes on
        over two lines.
    """

    scale: float = setting(1.0, above=0)


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Settings of a test.

    Args:
      count: How many.
      rate: One, or one an item.
      kind: ``"a"`` or ``"b"``.
      names: Some.
      share: A part.
      most: May be left open.
      inner: More.

    Returns:
      Not a setting.
    """

    count: int = setting(3, least=1)
    rate: float | tuple[float, ...] = setting(0.1, above=0)
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = setting((), choices=("x", "y"), is_distinct=True)
    share: float = setting(0.5, least=0, below=1)
    most: int | None = setting(None, least=2)
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": 2.0}, "count must be an integer, got 2.0"),
        ({"count": True}, "count must be an integer, got True"),
        ({"count": 2**64}, "count must be below 2"),
        ({"rate": 0.0}, "rate must be above 0, got 0.0"),
        ({"rate": (0.1, -1.0)}, "rate must be above 0, got -1.0"),
        ({"rate": float("nan")}, "rate must be a finite number"),
        ({"rate": 1e308}, "rate must be a finite number"),
        ({"kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"names": ("z",)}, "names must be one of x, y, got 'z'"),
        ({"names": ("x", "x")}, "names must not name anything twice, got x, x"),
        ({"names": "x"}, "names must be a tuple, got 'x'"),
        ({"share": 1.0}, "share must be below 1, got 1.0"),
        ({"most": 1}, "most must be at least 2, got 1"),
        ({"inner": 3}, "inner must be a "),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(given, message):
    with pytest.raises(SettingError, match=message):
        Config(**given)


def test_a_nested_record_is_checked_with_its_path():
    broken = object.__new__(Inner)
    object.__setattr__(broken, "scale", -1.0)
    with pytest.raises(SettingError, match=r"inner\.scale must be above 0, got -1.0"):
        Config(inner=broken)


@given(count=st.integers(1, 1000), share=st.floats(0, 0.999), rates=st.lists(st.floats(0.1, 9)))
def test_what_is_within_bounds_is_taken(count, share, rates):
    config = Config(count=count, share=share, rate=tuple(rates), most=None)
    assert (config.count, config.share, config.rate) == (count, share, tuple(rates))


def test_help_is_what_the_docstring_says():
    assert settings.describe(Inner) == {
        "scale": "Standard deviation, of what goes on over two lines."
    }
    assert settings.describe(Config)["kind"] == '"a" or "b".'
    found = {field.name: field for field in settings.fields(Config)}
    assert list(found) == ["count", "rate", "kind", "names", "share", "most", "inner"]
    assert found["kind"].choices == ("a", "b")
    assert found["most"].is_optional
    assert found["names"].is_tuple


def test_what_is_inherited_is_described_where_it_stands():
    @dataclasses.dataclass(frozen=True)
    class Child(Inner):
        """One more.

        Args:
          own: A count.
        """

        own: int = setting(1)

    assert settings.describe(Child) == {**settings.describe(Inner), "own": "A count."}


def test_equal_records_have_one_identity_and_others_another():
    assert digest(Config()) == digest(Config(inner=Inner(1.0)))
    assert digest(Config()) != digest(Config(inner=Inner(2.0))) != digest(Config(count=4))
