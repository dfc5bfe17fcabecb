"""Run an entry point in this process, with flags as if they were on the command line."""

import pytest
from absl import flags

from experiments import compare
from experiments.launch import entry, study


def arguments(workdir, **given):
    """Return the command line's arguments; a tuple is a list of values."""
    texts = {name: (",".join(v) if isinstance(v, tuple) else v) for name, v in given.items()}
    return [f"--workdir={workdir}", *(f"--{name}={value}" for name, value in texts.items())]


def run_here(workdir, *, module=compare, **given):
    """Run ``experiments.compare``, or another entry point, and return its results."""
    argv = arguments(workdir, **given)
    values = flags.FlagValues()
    with entry.errors_in_one_line():
        module.define_all_flags(argv, values)
        _parse(values, argv)
        return module.main(values)


def run_study_here(workdir, *, module, **given):
    """Run a study, the module ``experiments.<study>.__main__``, and return its results."""
    values, name = flags.FlagValues(), module.__name__.split(".")[1]
    with entry.errors_in_one_line():
        study.define_study_flags(name, module.Config, module.SCALES, values)
        _parse(values, arguments(workdir, **given))
        return study.run_flags(module.Config, module.SCALES, module.run, values)


def refuse(folder, capsys, *, module, **given):
    """Run with a bad value; return the one line that refuses it, where nothing is left behind."""
    run = run_here if hasattr(module, "define_all_flags") else run_study_here
    before = set(folder.rglob("*"))
    with pytest.raises(SystemExit) as exit_info:
        run(folder / "refused", module=module, **given)
    assert exit_info.value.code == 1
    assert set(folder.rglob("*")) == before
    head, *more = capsys.readouterr().err.splitlines()
    assert head.startswith("error: ")
    # Where data are absent, how to get them follows.
    assert not more or "was not found in" in head
    return head.removeprefix("error: ")


def _parse(values, argv):
    try:
        values(["test", *argv])
    except flags.Error as error:
        # As absl's own main would.
        raise ValueError(f"Flags parsing error: {error}") from None
