"""How the table and the figures are read, in words."""

from __future__ import annotations

from bnn_adv.inference.records import MOST_POINTS
from bnn_adv.report import fields, wording
from bnn_adv.report.fields import Results
from bnn_adv.report.wording import to_dicts

_IMAGES = (
    "Each row is one input; for each model the worst case that was found, the class predicted "
    "before and after with its probability, and the perturbation in a colour scale of its own. "
    "Bold: the prediction is wrong. Small print names the attack that broke it."
)
_POINTS = (
    "Dots are clean inputs, coloured by class; arrows lead to the adversarial ones, black where "
    "the prediction is then wrong and grey where it is right."
)


def legend(results: Results) -> str:
    """Return what the columns mean, in a few sentences that fit the suites that were run."""
    suites = fields.list_suites(results)
    worst = [name for name in suites if fields.is_worst_case(results, name)]
    others = [name for name in suites if name not in worst]
    parts = []
    if worst:
        parts.append(
            "worst: an input counts as correct only if it withstands every attack of the suite."
        )
    if others:
        parts.append(
            f"Under {' and '.join(others)} an accuracy is an upper bound: what those attacks "
            "failed to break."
        )
    if suites:
        parts.append(
            "softmax rob.: 1 - mean softmax difference, in [0, 1]. zero grad.: share of inputs at "
            "which the attack's gradient is exactly zero."
        )
    if any(line.is_fresh for line in fields.list_lines(results)):
        parts.append("fresh draws: the same adversarial inputs, predicted by new posterior draws.")
    by_logits = [
        wording.one_line(row.get("model"))
        for row in to_dicts(results.get("rows"))
        if row.get("decision_rule") == "mean_logits" and row.get("num_samples") != 1
    ]
    if by_logits:
        parts.append(f"Predictions of {', '.join(by_logits)}: by the mean of the draws' logits.")
    return " ".join(parts)


def figure_captions(results: Results, *, has_points: bool = False) -> dict[str, str]:
    """Return what each figure shows and how it is read, as plain text by name of the figure.

    Args:
      results: What the run found.
      has_points: The examples are points of the plane and not images.
    """
    has_fresh = any(line.is_fresh for line in fields.list_lines(results))
    fresh = (
        " Hollow points: the same adversarial inputs, predicted by posterior draws that the "
        "attacker did not know."
        if has_fresh
        else ""
    )
    setting = fields.describe_setting(results)
    return {
        "accuracy": (
            f"Accuracy on clean and on attacked inputs ({setting}). Points are shares of inputs "
            "classified correctly, bars their 95 % Wilson intervals. Read each panel downwards: "
            "an accuracy that is high under one suite and near zero under a stronger one is a "
            f"failure of the attack, not robustness of the model.{fresh}"
        ),
        "examples": f"Attacked test inputs ({setting}). {_POINTS if has_points else _IMAGES}",
        "training": (
            "Training curves. Loss and negative ELBO per epoch should have levelled off; a log "
            "density should wander about one level, without trend, in every chain."
        ),
        "traces": (
            "Traces of Markov chains, one colour a chain: log density, and the log probability of "
            "the label at the held-out points where R-hat is largest and where it is the median, "
            f"among the first {MOST_POINTS}, which alone are kept draw by draw. The R-hats of the "
            "diagnostics are over all held-out points, and their largest may be above that of a "
            "title. Chains that have mixed cannot be told apart, and none drifts."
        ),
        "ranks": (
            "Ranks of each chain's draws among those of all chains, of the quantities above. Of "
            "chains with one law every histogram is flat at its dotted line, but for chance; bars "
            "stop at twice that. A slope is a shifted chain, a U or a hump one that is too wide or "
            "too narrow."
        ),
    }
