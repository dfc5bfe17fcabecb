"""Settings of one attack, from the arguments of its build."""

import dataclasses
import sys

from experiments.launch.one_attack import find_settings


def test_a_module_that_is_loaded_anew_has_its_own_settings(tmp_path, monkeypatch):
    """Two forks in one process, or one whose attack was edited in a notebook."""
    for name in ("share", "radius"):
        folder = tmp_path / name / "one_fork"
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        (folder / "attack.py").write_text(f"def build(*, {name}: float = 0.5):\n  ...\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / name))
            (own,) = dataclasses.fields(find_settings("one_fork.attack"))
        assert own.name == name
        for module in ("one_fork", "one_fork.attack"):
            del sys.modules[module]
