"""Progress: a bar with time left on a terminal, plain lines elsewhere."""

import io
import sys
from types import SimpleNamespace

import pytest
import tqdm.auto

from bnn_adv.compute import progress as module


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_counts_metrics_and_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_BARS", 0.0)
    monkeypatch.setenv("COLUMNS", "120")
    with module.progress("vi: training", "epochs") as report:
        report(1, 4, {"elbo": -12.5})
        report(4, 4, {"elbo": -3.0})
    text = terminal.getvalue()
    assert "vi: training" in text
    assert "1/4" in text
    assert "elbo=-12.5" in text
    assert "<" in text.split("1/4")[1]


def test_a_pipe_gets_lines_now_and_then(monkeypatch):
    pipe = io.StringIO()
    clock = [0.0]
    monkeypatch.setattr(sys, "stderr", pipe)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with module.progress("vi: strong", "image-steps") as report:
        for done in range(1, 11):
            clock[0] += 6.0
            report(done, 10, {"loss": 0.5}, label="pgd")
    lines = pipe.getvalue().splitlines()
    assert lines[0] == "vi: strong pgd: 3 of 10 image-steps, loss 0.5, 42 s left"
    assert len(lines) == 3
    assert "\r" not in pipe.getvalue()


def test_the_time_left_of_a_sub_task_is_its_own(monkeypatch):
    """Also where the one before it was too short for a line."""
    pipe = io.StringIO()
    clock = [0.0]
    monkeypatch.setattr(sys, "stderr", pipe)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with module.progress("vi: strong", "image-steps") as report:
        for label in ("pgd", "apgd"):
            for done in range(1, 11):
                clock[0] += 1.0 if label == "pgd" else 6.0
                report(done, 10, label=label)
    assert pipe.getvalue().splitlines()[0] == "vi: strong apgd: 1 of 10 image-steps, 54 s left"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_an_error_inside_passes_through(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    with pytest.raises(KeyError), module.progress("task", "units"):
        raise KeyError("inside")


class Bar:
    """What a notebook's bar is asked for."""

    def __init__(self, **options):
        self.shown, self.n, self.total = [], 0, None

    def reset(self, total):
        self.total = total

    def set_description(self, text, refresh):
        self.shown.append(text)

    def refresh(self):
        self.shown.append((self.n, self.total))

    def close(self):
        self.shown.append("closed")


def test_a_notebook_gets_a_bar(monkeypatch):
    """A kernel's standard error is no terminal."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bars = []
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda **options: bars.append(Bar(**options)) or bars[0])
    with module.progress("vi: strong", "image-steps") as report:
        report(3, 3, label="pgd")
    assert bars[0].shown == ["vi: strong pgd", (3, 3), "closed"]
    assert sys.stderr.getvalue() == ""


def test_a_shell_of_ipython_is_no_notebook(monkeypatch):
    shell = SimpleNamespace(get_ipython=lambda: object())
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert not module.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not module.in_notebook()
