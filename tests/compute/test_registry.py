"""Names of a registry, and paths of what anyone has written."""

import sys

import pytest

from bnn_adv.compute import registry

KNOWN = {"one": 1}


@pytest.fixture
def fork(tmp_path, monkeypatch):
    (tmp_path / "my_fork").mkdir()
    (tmp_path / "my_fork" / "__init__.py").write_text("")
    (tmp_path / "my_fork" / "thing.py").write_text("Config = 1\nrun = 2\nOBJECT = 'mine'\n")
    (tmp_path / "my_fork" / "broken.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("my_fork")]:
        del sys.modules[name]


def test_finds_names_modules_and_objects(fork):
    assert registry.find("thing", "one", KNOWN) == 1
    assert registry.find("thing", "my_fork.thing", KNOWN, members=("Config", "run")).run == 2
    assert registry.find("thing", "my_fork.thing:OBJECT", KNOWN) == "mine"
    assert registry.short_name("my_fork.thing") == "thing"
    assert registry.short_name("my_fork.thing:OBJECT") == "OBJECT"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two", "Unknown thing 'two'. Known: one; or one of your own as package.module"),
        ("my_fork.other", "No module 'my_fork.other' for thing 'my_fork.other'"),
        ("no_fork.other", "No module 'no_fork.other'"),
        ("my_fork.thing:ABSENT", "my_fork.thing has no 'ABSENT'"),
        ("my_fork", "Unknown thing 'my_fork'"),
        (".thing", "is no path of a thing"),
        (":thing", "is no path of a thing"),
    ],
)
def test_says_what_is_wrong_with_a_name(fork, name, message):
    with pytest.raises(ValueError, match=message):
        registry.find("thing", name, KNOWN)


def test_what_lacks_a_member_is_no_such_thing(fork):
    with pytest.raises(ValueError, match=r"my_fork\.thing is no thing: it has no build"):
        registry.find("thing", "my_fork.thing", KNOWN, members=("Config", "build"))


def test_what_a_module_fails_to_import_is_its_own_error(fork):
    with pytest.raises(ModuleNotFoundError, match="no_such_package_anywhere"):
        registry.find("thing", "my_fork.broken", KNOWN)


def test_a_module_that_fails_says_how(fork, tmp_path):
    """Its own ValueError is not a wrong path."""
    (tmp_path / "my_fork" / "wrong.py").write_text("raise ValueError('three at least')\n")
    with pytest.raises(
        ValueError, match=r"my_fork\.wrong, .* imported: ValueError: three at least"
    ):
        registry.find("thing", "my_fork.wrong:THING", KNOWN)
    (tmp_path / "my_fork" / "typo.py").write_text("def\n")
    with pytest.raises(ValueError, match="cannot be imported: SyntaxError"):
        registry.find("thing", "my_fork.typo", KNOWN)
