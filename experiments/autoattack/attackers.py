"""A suite of this library and AutoAttack on the same draws and images, judged by one referee."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bnn_adv.attacks.base import Settings
from bnn_adv.attacks.threat import THREATS
from bnn_adv.evaluation.cascade import RunContext, Subject, predict, run_cascade
from bnn_adv.evaluation.confirmation import state_claims
from bnn_adv.evaluation.suites import get_suite
from bnn_adv.evaluation.verification import verify_arrays
from bnn_adv.posteriors.decision import predicted_class
from bnn_adv.posteriors.posterior import hash_draws
from experiments.autoattack import torch_child as autoattack_torch
from experiments.autoattack.posteriors import Target, export

_BATCH = 128


class Asked(NamedTuple):
    """What both sides are asked for.

    norm: linf, l2 or l1.
    epsilon: Radius.
    seed: Seed of the attacks.
    """

    norm: str
    epsilon: float
    seed: int


def describe(python: str) -> dict[str, str]:
    """Return the versions of Python, PyTorch and pyautoattack of an interpreter.

    Raises:
      ValueError: It cannot be started, or lacks one of them.
    """
    try:
        command = [*_command(python), "--versions"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, json.JSONDecodeError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise ValueError(
            f"--torch_python={python} cannot run AutoAttack ({said}). Install the extra "
            "'autoattack' of this project, or give an interpreter that has torch and pyautoattack."
        ) from error


def run_autoattack(
    target: Target, asked: Asked, *, version: str, python: str, say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Attack by AutoAttack in a process of PyTorch.

    Args:
      target: Draws, images and labels.
      asked: Threat and seed.
      version: One of ``autoattack_torch.VERSIONS``.
      python: Interpreter that has PyTorch and pyautoattack.
      say: Called with every line that the process prints.

    Returns:
      What ``judge`` returns, the record with AutoAttack's own ``warnings``.

    Raises:
      ValueError: The process failed, or predicts other classes at the clean images.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/draws.npz", **export(target))  # type: ignore[arg-type]
        command = [*_command(python), f"{folder}/draws.npz", f"--out={folder}"]
        command += [f"--norm={asked.norm}", f"--epsilon={asked.epsilon!r}"]
        command += [f"--version={version}", f"--seed={asked.seed}"]
        last = ""
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                for line in process.stdout or ():
                    last = line.strip() or last
                    say(line.rstrip())
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise ValueError(f"AutoAttack's process ended with status {process.returncode}: {last}")
        with np.load(f"{folder}/images.npz", allow_pickle=False) as stored:
            found = dict(stored)
        record = json.loads(Path(folder, "record.json").read_text("utf-8"))
    judged, arrays = judge(target, asked, found["x_adv"], found["broken"], found["clean_correct"])
    return {**judged, **record}, arrays


def run_suite(
    target: Target, asked: Asked, name: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Attack by a suite; returns what ``judge`` does.

    Args:
      target: Draws, images and labels.
      asked: Threat and seed.
      name: A suite that reports the worst case of its attacks.
    """
    suite, settings = get_suite(name), Settings(min(_BATCH, len(target.x)))
    y = np.asarray(target.y, np.int32)
    threat = THREATS[asked.norm](asked.epsilon)
    started = time.monotonic()
    clean = predict(target.posterior, target.x, settings)
    cascade = run_cascade(
        suite.entries,
        suite.restarts,
        Subject(target.posterior, target.x, y, threat),
        clean,
        RunContext(jax.random.key(asked.seed), settings),
    )
    seconds = round(time.monotonic() - started, 2)
    correct, broken = predicted_class(clean) == y, cascade.attack_of != ""
    judged, arrays = judge(target, asked, cascade.worst, broken, correct)
    stages = [
        {"attack": attack, "standing": round(share * len(y))}
        for attack, share in cascade.after.items()
    ]
    return {**judged, "stages": stages, "seconds": seconds}, arrays


def judge(
    target: Target, asked: Asked, x_adv: np.ndarray, broken: np.ndarray, correct: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Predict adversarial images anew and measure them, by NumPy in float64.

    An image that an attacker says it broke counts if it lies within ball and box, up to the
    rounding of float32, and the posterior misclassifies it.

    Args:
      target: Draws, clean images and labels.
      asked: The threat.
      x_adv: Adversarial images, [N, ...].
      broken: Which of them the attacker says to be misclassified, [N].
      correct: Which clean images it says to be classified correctly, [N].

    Returns:
      ``clean`` and ``standing``: numbers of the images that are classified correctly, and of those
      that no counted image fools; ``outside``: those that lie outside ball or box;
      ``unconfirmed``: those that are said to be broken and are classified correctly. Then the
      arrays that ``bnn_adv.verify_adversarial`` reads.

    Raises:
      ValueError: The attacker predicts other classes at the clean images.
    """
    threat = THREATS[asked.norm](asked.epsilon)
    arrays = state_claims(
        target.posterior,
        target.x,
        np.asarray(target.y),
        threat,
        np.asarray(x_adv, target.x.dtype),
        clean_correct=correct,
        broken=broken & correct,
        draws_hash=hash_draws(target.posterior),
    )
    seen = verify_arrays(arrays, target.posterior, threat=threat, batch_size=_BATCH)
    if not seen.clean_agrees.all():
        raise ValueError(
            f"The attacker predicts other classes at the clean images {_list(~seen.clean_agrees)}: "
            "it does not attack these draws."
        )
    claimed, allowed = seen.claimed & seen.correct, seen.is_allowed
    record = {
        "clean": _list(seen.correct),
        "standing": _list(seen.correct & ~(claimed & allowed & seen.fooled)),
        "outside": _list(~allowed),
        "unconfirmed": _list(claimed & allowed & ~seen.fooled),
    }
    return record, arrays


def _command(python: str) -> list[str]:
    # -P: the folder of the script, whose modules have common names, stays out of the path.
    return [python, "-P", str(Path(autoattack_torch.__file__).resolve())]


def _list(chosen: np.ndarray) -> list[int]:
    return np.flatnonzero(chosen).tolist()
