"""PyTorch AutoAttack (Croce, Hein 2020, arXiv 2003.01690) in a process of its own.

  python experiments/autoattack/torch_child.py DRAWS.npz --norm=linf --epsilon=0.1 --out=FOLDER

Run by its path it imports NumPy, PyTorch and pyautoattack, nothing of this project, so that JAX
and PyTorch share neither memory nor threads. ``autoattack_attackers`` is the other end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

VERSIONS = ("standard", "without_square")
"""As the package runs it by default; the same without the square attack and its 5,000 queries."""

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid")
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_STAGE = re.compile(r"robust accuracy after (\S+): ([\d.]+)%")


class Stages(logging.Handler):
    """Note when and with how many standing images each attack of AutoAttack ended, and say so."""

    def __init__(self, num_images: int) -> None:
        super().__init__()
        self.num_images = num_images
        self.stages: list[dict[str, Any]] = []
        self.warnings: dict[str, None] = {}
        self._last = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Read one message of AutoAttack's log."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING and len(self.warnings) < 10:
            self.warnings[text] = None
        found = _STAGE.match(text)
        if found is None:
            return
        now = time.monotonic()
        attack, seconds, self._last = found[1].lower(), round(now - self._last, 2), now
        standing = round(float(found[2]) / 100 * self.num_images)
        self.stages.append({"attack": attack, "standing": standing, "seconds": seconds})
        print(f"{standing} of {self.num_images} stand after {attack}, {seconds} s", flush=True)


def build_model(arrays: Mapping[str, np.ndarray]) -> tuple[Any, int]:
    """Return the draws' log prediction as a module of [B, C, H, W] inputs, and its classes."""
    torch: Any = importlib.import_module("torch")
    activation = str(arrays["activation"])
    activate = {
        "relu": torch.relu,
        "leaky_relu": lambda h: torch.nn.functional.leaky_relu(h, 0.01),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }[activation]
    depth = sum(name.startswith("w") for name in arrays)
    layers = [tuple(torch.tensor(arrays[f"{kind}{i}"]) for kind in "wb") for i in range(depth)]
    num_draws, _, num_classes = layers[-1][0].shape
    mean_logits = str(arrays["decision_rule"]) == "mean_logits"

    class Predictive(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            # The weights' order of pixels is that of [H, W, C].
            h = images.permute(0, 2, 3, 1).reshape(len(images), -1).expand(num_draws, -1, -1)
            for index, (weight, bias) in enumerate(layers):
                h = torch.baddbmm(bias[:, None], activate(h) if index else h, weight)
            if mean_logits:
                return torch.log_softmax(h.mean(0), -1)
            return torch.logsumexp(torch.log_softmax(h, -1), 0) - float(np.log(num_draws))

    return Predictive(), num_classes


def attack(
    arrays: Mapping[str, np.ndarray], norm: str, epsilon: float, version: str, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Run AutoAttack.

    Args:
      arrays: ``w0, b0, w1, ..`` [S, in, out] and [S, out], ``x`` [N, H, W, C] in [0, 1], ``y`` [N],
        ``activation`` and ``decision_rule``.
      norm: linf, l2 or l1.
      epsilon: Radius.
      version: One of ``VERSIONS``.
      seed: AutoAttack's.

    Returns:
      ``x_adv`` [N, H, W, C], and ``broken`` and ``clean_correct`` [N] as PyTorch predicts; then
      ``stages`` (attack, standing images, seconds), ``seconds`` and AutoAttack's own ``warnings``.
    """
    torch: Any = importlib.import_module("torch")
    # Small matrices: more threads wait for each other.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model, num_classes = build_model(arrays)
    x = torch.tensor(arrays["x"]).permute(0, 3, 1, 2).contiguous()
    y = torch.tensor(arrays["y"]).long()
    adversary = importlib.import_module("pyautoattack").AutoAttack(
        model, norm=_NORMS[norm], eps=epsilon, version="standard", seed=seed
    )
    # Nine targets by default, of which a problem of fewer classes has none.
    for targeted in (adversary.apgd_targeted, adversary.fab):
        targeted.n_target_classes = min(targeted.n_target_classes, num_classes - 1)
    if version == "without_square":
        adversary.attacks_to_run = [a for a in adversary.attacks_to_run if a != "square"]
    stages, started = Stages(len(x)), time.monotonic()
    adversary.logger.handlers, adversary.logger.propagate = [stages], False
    adversary.logger.setLevel(logging.DEBUG)
    x_adv, _ = adversary.run_standard_evaluation(x, y)
    seconds = round(time.monotonic() - started, 2)
    with torch.no_grad():
        clean, broken = (model(images).argmax(1) != y for images in (x, x_adv))
    images = x_adv.permute(0, 2, 3, 1).contiguous().numpy()
    found = {"x_adv": images, "broken": broken.numpy(), "clean_correct": ~clean.numpy()}
    return found, {"stages": stages.stages, "seconds": seconds, "warnings": list(stages.warnings)}


def main() -> None:
    """Read the draws, attack, and write ``images.npz`` and ``record.json``."""
    parser = argparse.ArgumentParser(description="PyTorch AutoAttack on exported draws.")
    parser.add_argument("draws", nargs="?")
    parser.add_argument("--versions", action="store_true")
    parser.add_argument("--norm", choices=tuple(_NORMS))
    parser.add_argument("--epsilon", type=float)
    parser.add_argument("--version", choices=VERSIONS, default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    given = parser.parse_args()
    if given.versions:
        names = ("torch", "pyautoattack")
        versions = {name: str(importlib.import_module(name).__version__) for name in names}
        print(json.dumps({"python": sys.version.split()[0], **versions}))
        return
    with np.load(given.draws, allow_pickle=False) as stored:
        arrays = dict(stored)
    images, record = attack(arrays, given.norm, given.epsilon, given.version, given.seed)
    np.savez(Path(given.out, "images.npz"), **images)  # type: ignore[arg-type]
    Path(given.out, "record.json").write_text(json.dumps(record, allow_nan=False), "utf-8")


if __name__ == "__main__":
    main()
