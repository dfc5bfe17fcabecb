"""Predictors that draw anew: attack them, and say what their next predictions are worth.

The attacker knows how parameters are drawn ("fresh"), not which draws will predict. Success is then
a rate: the share of predictions, each the mean of new draws, that are wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.attacks import batches, run_attack
from bnn_adv.attacks.base import Attack, Settings
from bnn_adv.attacks.objectives import Objective
from bnn_adv.attacks.threat import Threat
from bnn_adv.attacks.validation import check_classes, check_settings, open_problem
from bnn_adv.compute import arguments, parallel, programs
from bnn_adv.compute.streaming import fold_samples
from bnn_adv.evaluation import metrics
from bnn_adv.evaluation.cascade import RunContext, SuiteProgress, predict
from bnn_adv.evaluation.suite_run import SuiteResult, intervals
from bnn_adv.posteriors.decision import folding, predicted_class
from bnn_adv.posteriors.posterior import (
    Posterior,
    check_sample_chunk,
    fold_contributions,
    shard_posterior,
)
from bnn_adv.posteriors.sampler import FreshDraws, Sampler, check_num_samples


@dataclasses.dataclass(frozen=True)
class FreshSettings(Settings):
    """How a predictor that draws anew is attacked, beside batch and chunk sizes.

    Args:
      batch_size: Images at once.
      sample_chunk: Draws at once.
      mesh: Devices to split the work over.
      checkpoints: Where to save the attack's progress and to continue from it.
      attacker_samples: New draws that make the gradient of a step, at least 1.
      defender_samples: New draws whose mean is a prediction, at least 1.
      held_out_samples: Draws by which the attack chooses among the points it has visited.
      num_predictions: Predictions an image, at least 1.
      progress: Progress callback.
    """

    attacker_samples: int = 50
    defender_samples: int = 50
    held_out_samples: int = 50
    num_predictions: int = 100
    progress: SuiteProgress | None = None


class FreshResult(NamedTuple):
    """What an attack on a fresh predictor found on N images.

    x_adv: Adversarial images, [N, ...].
    success_rate: Share of the predictions that are wrong, by image, [N].
    accuracy: Expected adversarial accuracy: the mean of ``1 - success_rate``.
    interval: Its 95 % interval, over images and predictions, see ``accuracy_interval``.
    mostly_fooled: Share of images that more than half of the predictions get wrong.
    num_predictions: Predictions an image, P.
    attacker_samples: New draws that made the gradient of a step.
    defender_samples: New draws whose mean is a prediction.
    """

    x_adv: np.ndarray
    success_rate: np.ndarray
    accuracy: float
    interval: tuple[float, float]
    mostly_fooled: float
    num_predictions: int
    attacker_samples: int
    defender_samples: int

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        left_out = ("x_adv", "success_rate", "interval")
        numbers = {k: v for k, v in self._asdict().items() if k not in left_out}
        return {**numbers, "interval": list(self.interval)}


def evaluate_fresh(
    result: SuiteResult, defender: Posterior, y: Any, *, settings: Settings = Settings()
) -> dict[str, Any]:
    """Let other draws predict the adversarial images of an attacker who did not know them.

    Args:
      result: What the attacker found with its own draws.
      defender: Fresh draws.
      y: Labels, [N].
      settings: Batch and chunk sizes.

    Returns:
      Accuracy by name of the attack, with intervals.
    """
    accuracies = {
        name: metrics.accuracy(predict(defender, images, settings), y)
        for name, images in result.adversarial.items()
    }
    return {**accuracies, "intervals": intervals(accuracies, len(np.asarray(y)))}


def success_rates(
    rng_key: jax.Array,
    sampler: Sampler,
    x_adv: Any,
    y: Any,
    *,
    num_samples: int,
    num_predictions: int = 100,
    settings: Settings = Settings(),
) -> np.ndarray:
    """Return how often new predictions of images are wrong.

    The rate of image i is ``(1/P) sum_p [argmax_k (1/S) sum_s softmax(f(x_i, w_ps))_k != y_i]``,
    with all ``w_ps`` new, or by the mean of the logits where that is the decision rule. For all
    images prediction p uses ``sampler.sample(fold_in(rng_key, p), S)``; its draws are made one
    chunk at a time.

    Args:
      rng_key: Typed key; another one than the attack's.
      sampler: The predictor.
      x_adv: Images, [N, ...].
      y: Labels, [N].
      num_samples: The defender's draws, S: a prediction is their mean.
      num_predictions: Predictions an image, P, at least 1.
      settings: Batch and chunk sizes.

    Returns:
      Rates in [0, 1], [N].

    Raises:
      ValueError: A number is below one.
    """
    check_defender(num_samples, num_predictions)
    arguments.check_key(rng_key)
    x_adv, y = np.asarray(x_adv), arguments.as_labels(y, len(x_adv))
    check_classes(sampler.sample(rng_key, 1), x_adv, y)
    found: np.ndarray = predict_wrong(
        rng_key, sampler, x_adv, y, num_samples, num_predictions, settings
    ).mean(axis=0)
    return found


def predict_wrong(
    rng_key: jax.Array,
    sampler: Sampler,
    x: Any,
    y: Any,
    num_samples: int,
    num_predictions: int,
    settings: Settings,
) -> np.ndarray:
    """Return whether prediction p of image i is wrong, [P, N]; arguments as ``success_rates``."""
    programs.note(sampler.apply_fn)
    sampler, x, y = parallel.replicate((sampler, jnp.asarray(x), jnp.asarray(y)), settings.mesh)
    most = settings.sample_chunk and min(settings.sample_chunk, num_samples)
    chunk = check_sample_chunk(sampler.shapes(num_samples), most, x[: settings.batch_size])
    sizes = num_samples, chunk, settings.batch_size
    keys = batches.derive_keys(rng_key, np.arange(num_predictions))
    return np.stack([parallel.to_host(_predict_once(key, sampler, x, y, *sizes)) for key in keys])


@functools.partial(programs.jit, static_argnames=("num_samples", "chunk", "batch_size"))
def _predict_once(
    rng_key: jax.Array,
    sampler: Sampler,
    x: jax.Array,
    y: jax.Array,
    num_samples: int,
    chunk: int,
    batch_size: int,
) -> jax.Array:
    """Return whether the mean of new draws is wrong, [N], holding a chunk of them at a time."""
    rule = sampler.decision_rule

    def one_draw(key: jax.Array) -> jax.Array:
        draw = jax.tree.map(lambda w: w[None], sampler.draw(key))
        alone = Posterior(sampler.apply_fn, draw, precision=sampler.precision, decision_rule=rule)
        return fold_contributions(alone, x, batch_size=batch_size)

    keys = jax.random.split(rng_key, num_samples)
    total = fold_samples(one_draw, keys, folding(rule), chunk=chunk)
    found: jax.Array = predicted_class(total) != y
    return found


def accuracy_interval(wrong: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy over images and predictions, both drawn at random.

    The variance of the mean of a crossed table, ``a / N + b / P - e / (N P)``: a and b are the
    variances of the means of images and of predictions, and e the one of what neither explains
    (Searle, Casella, McCulloch 1992, chapter 4). The interval is Wilson's, of as many independent
    trials as have this variance.

    Args:
      wrong: Whether prediction p of image i is wrong, [P, N].

    Returns:
      Lower and upper end, in [0, 1]; never empty.
    """
    num_predictions, num_images = wrong.shape
    share = float(1 - wrong.mean())
    images, predictions = wrong.mean(axis=0), wrong.mean(axis=1)
    rest = wrong - images - predictions[:, None] + wrong.mean()
    variance = 0.0
    if num_images > 1:
        variance += images.var(ddof=1) / num_images
    if num_predictions > 1:
        variance += predictions.var(ddof=1) / num_predictions
    if num_images > 1 and num_predictions > 1:
        free = (num_images - 1) * (num_predictions - 1)
        variance -= float((rest**2).sum()) / free / wrong.size
    # Where nothing varies, the table says no more than its images do.
    trials = share * (1 - share) / variance if variance > 0 else num_images
    return metrics.wilson_interval(share, round(float(np.clip(trials, 1, wrong.size))))


def attack_fresh(
    rng_key: jax.Array,
    sampler: Sampler,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    attack: Attack,
    objective: Objective,
    settings: FreshSettings,
) -> FreshResult:
    """Attack a predictor that draws anew, and measure by predictions it has not made yet.

    Attack, held-out draws and predictions use independent randomness.

    Args:
      rng_key: Typed key; everything follows from it.
      sampler: The predictor.
      x: Clean images, [N, ...].
      y: Labels, [N].
      threat: Norm, radius and box.
      attack: The attack.
      objective: What it maximises.
      settings: Numbers of draws and predictions, batch and chunk sizes; a chunk larger than a set
        of draws takes all of the set.

    Raises:
      ValueError: A number is below one, or as for ``run_attack``.
    """
    arguments.check_key(rng_key)
    check_settings(settings)
    num_samples, num_predictions = settings.defender_samples, settings.num_predictions
    check_defender(num_samples, num_predictions)
    few = sampler.sample(_derive(rng_key, "look"), 3)
    x, y, threat, _ = open_problem(few, x, y, threat)
    found = find_adversarial(
        rng_key,
        sampler,
        x,
        y,
        threat=threat,
        attack=attack,
        objective=objective,
        settings=settings,
    )
    key = defender_key(rng_key, num_samples)
    wrong = predict_wrong(key, sampler, found, y, num_samples, num_predictions, settings)
    rates = wrong.mean(axis=0)
    return FreshResult(
        x_adv=found,
        success_rate=rates,
        accuracy=float(1 - rates.mean()),
        interval=accuracy_interval(wrong),
        mostly_fooled=float((rates > 0.5).mean()),
        num_predictions=num_predictions,
        attacker_samples=settings.attacker_samples,
        defender_samples=num_samples,
    )


def find_adversarial(
    rng_key: jax.Array,
    sampler: Sampler,
    x: Any,
    y: Any,
    *,
    threat: Threat,
    attack: Attack,
    objective: Objective,
    settings: FreshSettings,
) -> np.ndarray:
    """Return the adversarial images of an attacker, [N, ...]; arguments as ``attack_fresh``."""
    check_num_samples("attacker_samples", settings.attacker_samples)
    check_num_samples("held_out_samples", settings.held_out_samples)
    held_out = shard_posterior(
        sampler.sample(_derive(rng_key, "held out"), settings.held_out_samples), settings.mesh
    )
    label = f"{attack.name}, {settings.attacker_samples} new draws a step"
    context = RunContext(rng_key, settings, settings.progress)
    return run_attack(
        _derive(rng_key, "attack"),
        attack,
        objective,
        FreshDraws(sampler, settings.attacker_samples, held_out),
        x,
        y,
        threat=threat,
        settings=context.attack_settings(label, label),
    )


def defender_key(rng_key: jax.Array, num_samples: int) -> jax.Array:
    """Return the key of a defender's predictions, the same whoever attacks."""
    return _derive(rng_key, f"defender {num_samples}")


def check_defender(num_samples: int, num_predictions: int) -> None:
    """Raise unless a defender draws and predicts once at least.

    Raises:
      ValueError: The message names the setting and its value.
    """
    check_num_samples("the defender's number of draws", num_samples)
    arguments.check_count("num_predictions", num_predictions, 1)


def _derive(rng_key: jax.Array, what: str) -> jax.Array:
    return jax.random.fold_in(rng_key, zlib.crc32(what.encode()))
