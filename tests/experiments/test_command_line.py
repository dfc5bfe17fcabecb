"""The command line as a user meets it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def call(*arguments, experiment="compare"):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{experiment}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        check=False,
    )


@pytest.mark.slow
def test_help_shows_this_projects_flags_with_defaults():
    result = call("--help")
    text = result.stdout
    for flag in (
        "--preset",
        "--workdir",
        "--epsilon",
        "--vi.kl_weight",
        "--hmc.prior.scale",
        "--mlp.hidden",
        "--sample_chunk",
    ):
        assert flag in text
    assert "default: '0.2'" in text
    # Flags of libraries belong to --helpfull.
    for other in ("tensorflow", "pdb", "verbosity", "jax_"):
        assert other not in text.split("Try --helpfull")[0].lower().replace("jax_platforms", "")


@pytest.mark.slow
def test_a_wrong_flag_ends_with_a_message_and_no_traceback(tmp_path):
    result = call("--preset=table9", f"--workdir={tmp_path}/run")
    assert result.returncode == 1
    assert "Known: digits, table2_mnist, table3_mnist" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_studies_share_one_command_line(tmp_path):
    text = call("--help", experiment="table2").stdout
    assert text.strip().startswith("Table 2 of the paper")
    for flag in ("--scale", "--workdir", "--preset", "--compilation_cache"):
        assert flag in text
    wrong = call("--scale=huge", f"--workdir={tmp_path}/run", experiment="table2")
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines()[-1] == "error: Unknown scale 'huge'. Known: smoke, cpu, paper."
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("--no_such_flag=1", "error: Unknown command line flag 'no_such_flag'"),
        pytest.param("stray", "error: Unexpected arguments: stray", marks=pytest.mark.slow),
    ],
)
def test_a_flag_that_is_refused_takes_one_line(wrong, said, tmp_path):
    result = call(wrong, f"--workdir={tmp_path}/run")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(said)
    assert not list(tmp_path.iterdir())
