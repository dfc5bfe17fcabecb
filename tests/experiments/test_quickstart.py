"""The notebook runs from beginning to end, and was committed as it ran."""

import asyncio
import contextlib
import warnings

import nbformat
import pytest

from experiments.readme.__main__ import ROOT

PATH = ROOT / "experiments" / "quickstart.ipynb"


def outputs(notebook):
    return [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        # What a library logs at its start is of that machine.
        if output.get("name") != "stderr"
    ]


def text_of(notebook):
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in outputs(notebook)
    )


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(PATH, as_version=4)


def test_it_was_committed_with_its_outputs(committed):
    nbformat.validate(committed)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    text = text_of(committed)
    assert "every check passed" in text
    assert "Traceback" not in text
    assert "/" not in text.replace("/ ", "")  # no path of a machine
    assert any("image/png" in output.get("data", {}) for output in outputs(committed))


@pytest.mark.slow
def test_it_runs(committed, monkeypatch):
    # ipykernel's own warnings are not ours.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nbclient import NotebookClient

        notebook = nbformat.from_dict(committed)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        folder = {"metadata": {"path": str(PATH.parent)}}
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder)
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            loop.run_until_complete(client.async_execute())
    text = text_of(notebook)
    assert "every check passed" in text
    for name in ("NNX", "Equinox"):
        assert f"{name}: 0.9" in text
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
