"""Run the entry point in this process, with flags as if they were on the command line."""

from absl.testing import flagsaver

from experiments import compare as evaluate

evaluate.define_all_flags()


def arguments(workdir, **flags):
    """Return the command line's arguments; a tuple is a list of values."""
    given = {name: (",".join(v) if isinstance(v, tuple) else v) for name, v in flags.items()}
    return [f"--workdir={workdir}", *(f"--{name}={value}" for name, value in given.items())]


def run_here(workdir, **flags):
    """Run ``experiments.compare`` and leave the flags as they were."""
    if not evaluate.FLAGS.is_parsed():
        evaluate.FLAGS(["test"])
    with flagsaver.flagsaver():
        evaluate.FLAGS.unparse_flags()
        evaluate.FLAGS(["evaluate", *arguments(workdir, **flags)])
        evaluate.main(["evaluate"])
