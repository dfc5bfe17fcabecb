"""Run an entry point in this process, with flags as if they were on the command line."""

from absl import flags

from experiments import compare
from experiments.launch import entry


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
        try:
            values(["test", *argv])
        except flags.Error as error:
            # As absl's own main would.
            raise ValueError(f"Flags parsing error: {error}") from None
        return module.main(values)
