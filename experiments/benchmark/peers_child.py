"""One public attack tool on exported draws; run by an interpreter that has it, not imported.

  python -P peers_child.py foolbox --describe
  python -P peers_child.py foolbox problem.npz attacked.npz --epsilon=0.1 --steps=40 --budget=1

It needs NumPy, PyTorch and the tool, nothing of this project. ``problem.npz`` holds weights ``w0``
[S, in, out] and ``b0`` [S, out], ``w1``, ... of fully connected relu networks, images ``x``
[N, H, W, C] in [0, 1] and labels ``y`` [N]. The tool attacks the log of the draws' mean
probabilities on the CPU, in the form (threads, way of multiplying, images at once) in which a few
steps of it are fastest. What is written: ``x_adv`` and ``log_probs`` of the clean images.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

DISTRIBUTIONS = {
    "pyautoattack": "pyautoattack",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
}
"""The tools, by the name under which they are imported, and the package that installs each."""

PGD_TOOLS = ("foolbox", "art")
"""Run PGD for a number of steps; the others run AutoAttack as it is by default."""

PRODUCTS = ("batched", "joint", "loop")
"""Ways to write the draws' layers.

One batched product a layer; the same with the first layer, whose input is one for all draws, as one
product; or draw after draw.
"""

_FEW_IMAGES, _TRIALS, _PRODUCT = 32, 3, 1024


class Form(NamedTuple):
    """How the tool computes.

    threads: Of PyTorch.
    product: One of ``PRODUCTS``.
    batch: Images at once.
    """

    threads: int
    product: str
    batch: int


def list_forms(tool: str, cores: int, num_images: int) -> list[Form]:
    """Return what is tried; AutoAttack is given all images, of which it drops those that fell."""
    batches = {num_images, *((min(_FEW_IMAGES, num_images),) if tool in PGD_TOOLS else ())}
    tried = itertools.product(sorted({1, cores}), PRODUCTS, sorted(batches))
    return [Form(*form) for form in tried]


def choose_form(forms: Iterable[Form], prepare: Callable[[Form], Callable[[], Any]]) -> Form:
    """Return the form whose call is fastest, each by its best of several after a warm-up."""
    best: dict[Form, float] = {}
    for form in forms:
        call = prepare(form)
        call()
        best[form] = min(time_call(call)[0] for _ in range(_TRIALS))
    return min(best, key=best.__getitem__)


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and what it returned."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def build_model(arrays: Mapping[str, np.ndarray], product: str) -> Any:
    """Return the log of the draws' mean probabilities as a module of [B, C, H, W] inputs."""
    torch: Any = importlib.import_module("torch")
    functional = torch.nn.functional
    depth = sum(name.startswith("w") for name in arrays)
    num_draws, num_inputs, width = arrays["w0"].shape

    def parameter(array: np.ndarray) -> Any:
        tensor = torch.tensor(np.ascontiguousarray(array))
        return torch.nn.Parameter(tensor, requires_grad=False)

    class Predictive(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            transpose = (0, 2, 1) if product == "loop" else (0, 1, 2)
            weights = [arrays[f"w{i}"].transpose(transpose) for i in range(depth)]
            biases = [arrays[f"b{i}"] for i in range(depth)]
            if product == "joint":
                weights[0] = np.moveaxis(weights[0], 1, 2).reshape(-1, num_inputs)
                biases[0] = biases[0].reshape(-1)
            # Tools ask the first parameter where to compute.
            self.weights = torch.nn.ParameterList(map(parameter, weights))
            self.biases = torch.nn.ParameterList(map(parameter, biases))

        def forward(self, images: Any) -> Any:
            # The weights' order of pixels is that of [H, W, C].
            x = images.permute(0, 2, 3, 1).flatten(1)
            log_probs = torch.log_softmax(self.logits(x), -1)
            return torch.logsumexp(log_probs, 0) - float(np.log(num_draws))

        def logits(self, x: Any) -> Any:
            layers = list(zip(self.weights, self.biases, strict=True))
            if product == "loop":
                return torch.stack([self.draw(x, layers, draw) for draw in range(num_draws)])
            h = x.expand(num_draws, -1, -1)
            for index, (weight, bias) in enumerate(layers):
                if product == "joint" and index == 0:
                    h = functional.linear(x, weight, bias)
                    h = h.view(len(x), num_draws, width).transpose(0, 1)
                else:
                    h = torch.baddbmm(bias[:, None], torch.relu(h) if index else h, weight)
            return h

        def draw(self, x: Any, layers: Sequence[tuple[Any, Any]], draw: int) -> Any:
            for index, (weight, bias) in enumerate(layers):
                x = functional.linear(torch.relu(x) if index else x, weight[draw], bias[draw])
            return x

    return Predictive().eval()


class Asked(NamedTuple):
    """What a tool is asked for.

    epsilon: Radius of the l_inf ball.
    steps: Of PGD, each of 2.5 epsilon / steps from a random start; 0: AutoAttack by the book.
    batch: Images at once.
    """

    epsilon: float
    steps: int
    batch: int


def build_attack(tool: str, model: Any, x: Any, y: Any, asked: Asked) -> Callable[[], Any]:
    """Return a call that attacks all images, [N, C, H, W].

    A tool of AutoAttack that is asked for steps runs its first attack, Auto-PGD, for so many.
    """
    torch: Any = importlib.import_module("torch")
    module = importlib.import_module(tool)
    epsilon, steps, batch = asked
    num_classes = model.biases[-1].shape[1]
    if tool == "pyautoattack":
        adversary = module.AutoAttack(model, norm="Linf", eps=epsilon, version="standard", seed=0)
        adversary.logger.handlers, adversary.logger.propagate = [], False
        for targeted in (adversary.apgd_targeted, adversary.fab):
            targeted.n_target_classes = min(targeted.n_target_classes, num_classes - 1)
        if steps:
            adversary.attacks_to_run, adversary.apgd.n_iter = ["apgd-ce"], steps
        return lambda: adversary.run_standard_evaluation(x, y, batch_size=batch)[0]
    if tool == "torchattacks":
        if steps:
            attack = module.APGD(model, norm="Linf", eps=epsilon, steps=steps, seed=0)
        else:
            attack = module.AutoAttack(model, eps=epsilon, n_classes=num_classes, seed=0)
        return lambda: attack(x, y)
    if tool == "foolbox":
        bounded = module.PyTorchModel(model, bounds=(0, 1), device="cpu")
        attack = module.attacks.LinfPGD(rel_stepsize=2.5 / steps, steps=steps)
        parts = list(zip(x.split(batch), y.split(batch), strict=True))
        return lambda: torch.cat([attack(bounded, *part, epsilons=epsilon)[1] for part in parts])
    estimators = importlib.import_module("art.estimators.classification")
    classifier = estimators.PyTorchClassifier(
        model,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=num_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = importlib.import_module("art.attacks.evasion").ProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=epsilon,
        eps_step=2.5 * epsilon / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=batch,
        verbose=False,
    )
    images, labels = x.numpy(), y.numpy()
    return lambda: attack.generate(images, labels)


def attack_timed(
    tool: str, arrays: Mapping[str, np.ndarray], *, epsilon: float, steps: int, budget: float
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Choose the form, attack until ``budget`` seconds are spent, at least once."""
    torch: Any = importlib.import_module("torch")
    x = torch.tensor(arrays["x"]).permute(0, 3, 1, 2).contiguous()
    y = torch.tensor(arrays["y"]).long()

    def prepare(form: Form, steps: int = 3) -> Callable[[], Any]:
        torch.set_num_threads(form.threads)
        torch.manual_seed(0)
        # From which ART draws its start.
        np.random.seed(0)  # noqa: NPY002
        model = build_model(arrays, form.product)
        return build_attack(tool, model, x, y, Asked(epsilon, steps, form.batch))

    form = choose_form(list_forms(tool, count_cores(), len(x)), prepare)
    call = prepare(form, steps)
    rate = measure_product()
    seconds: list[float] = []
    while not seconds or sum(seconds) < budget:
        taken, x_adv = time_call(call)
        seconds.append(taken)
    with torch.no_grad():
        log_probs = build_model(arrays, form.product)(x).numpy()
    images = np.moveaxis(torch.as_tensor(x_adv).detach().numpy(), 1, -1)
    record = {"seconds": seconds, **form._asdict(), "product_gflops_per_second": rate}
    return {"x_adv": images, "log_probs": log_probs}, record


def measure_product() -> float:
    """Return the rate of a large matrix product in float32 with the threads that are set."""
    torch: Any = importlib.import_module("torch")
    matrix = torch.rand(_PRODUCT, _PRODUCT)
    best = min(time_call(lambda: matrix @ matrix)[0] for _ in range(5))
    return 2e-9 * _PRODUCT**3 / best


def count_cores() -> int:
    """Return how many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def describe(tool: str) -> dict[str, Any]:
    """Return versions, and how this PyTorch was built and computes."""
    torch: Any = importlib.import_module("torch")
    importlib.import_module(tool)
    return {
        "version": importlib.metadata.version(DISTRIBUTIONS[tool]),
        "torch": str(torch.__version__),
        "config": torch.__config__.show(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def main() -> None:
    """Read the draws, attack, write, and print a record."""
    parser = argparse.ArgumentParser(description="A public attack tool on exported draws.")
    parser.add_argument("tool", choices=tuple(DISTRIBUTIONS))
    parser.add_argument("problem", nargs="?")
    parser.add_argument("attacked", nargs="?")
    parser.add_argument("--describe", action="store_true")
    parser.add_argument("--epsilon", type=float)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--budget", type=float, default=0.0)
    given = parser.parse_args()
    if given.describe:
        print(json.dumps(describe(given.tool)))
        return
    with np.load(given.problem, allow_pickle=False) as stored:
        arrays = dict(stored)
    images, record = attack_timed(
        given.tool, arrays, epsilon=given.epsilon, steps=given.steps, budget=given.budget
    )
    np.savez(given.attacked, **images)  # type: ignore[arg-type]
    print(json.dumps(record, allow_nan=False))


if __name__ == "__main__":
    main()
