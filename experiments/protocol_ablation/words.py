"""Rows of the ablation in words, and what follows from their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.report.wording import Measured, format_percent
from experiments.launch.mixed import describe_chains
from experiments.launch.tables import Verdict
from experiments.protocol_ablation import versions_report as versions
from experiments.protocol_ablation.switches import SWITCHES

Data = Mapping[str, Any]
"""What ``experiments.protocol_ablation`` hands over, see ``report.build_study``."""

_HALF = 0.5
_BLIND = 0.05


def describe_switch(name: str, data: Data) -> str:
    """Return a switch as published, in words."""
    words = SWITCHES[name].published
    return f"{words}: {data['minibatches']} times too much" if name == "kl_weight" else words


def describe_row(row: Data, data: Data) -> str:
    """Return what is as published in a row, in words."""
    if row["group"] == "base":
        return "none: training, attack and score as the mathematics says"
    if row["group"] == "version":
        return {
            "2020": "all departures but the draws: as published in September 2020",
            "today": "all departures: as published today",
        }[row["switch"]]
    if row["group"] == "half":
        return {
            "training": "both training departures; attack and score put right",
            "attack": "all of 2020's departures of attack and score; training put right",
        }[row["switch"]]
    words = describe_switch(row["switch"], data)
    return words if row["group"] == "alone" else f"2020 but this one: {words}"


def shared(data: Data) -> list[str]:
    """Return the switches among which the difference is shared out, in their order."""
    return [name for name in SWITCHES if name in data["shares"]["shapley"]["pgd"]]


def find(data: Data, group: str, switch: str = "") -> Data:
    """Return a row by its group and switch."""
    return next(r for r in data["rows"] if r["group"] == group and r["switch"] == switch)


def percent(row: Data, name: str) -> str:
    """Return an accuracy in per cent with its interval."""
    return f"{Measured(row[name], tuple(row['intervals'][name]))} %"


def summarise(data: Data) -> str:
    """Return the answer in a few sentences."""
    if "rows" not in data:
        return _summarise_hmc(data)
    base, everything = find(data, "base"), find(data, "version", "2020")
    today = find(data, "version", "today")
    trained, attacked = find(data, "half", "training"), find(data, "half", "attack")
    return (
        f"{versions.summarise(data)} "
        f"On the first {data['num_test']} images: as published in 2020 PGD leaves "
        f"{percent(everything, 'pgd')}, as published today {percent(today, 'pgd')}, with no "
        f"departure {percent(base, 'pgd')}. The suite `{data['suite']}` leaves "
        f"{percent(everything, 'strong')} on the posterior with the published training and "
        f"{percent(base, 'strong')} on the corrected one. "
        f"The published training under a sound PGD keeps {percent(trained, 'pgd')}; the "
        f"corrected training under the published attack keeps {percent(attacked, 'pgd')}. "
        f"{explain(data)} "
        "Adversarial images of the row as published in 2020 are those of the suite `published`, "
        "and of the row with no departure those of `corrected`, to the last bit."
    )


def _summarise_hmc(data: Data) -> str:
    found = [row for row in data["hmc"] if row["attack"] == "published"]
    names = {"hmc-full": "on all the data", "hmc-minibatch": "on one minibatch"}
    return (
        f"Accuracy on the first {data['num_test']} images of {data['dataset']} within "
        f"{data['epsilon']:g}, clean, under PGD as published in 2020 and under the suite "
        f"`{data['suite']}`: "
        + "; ".join(
            f"HMC {names.get(row['training'], 'of long trajectories')} {percent(row, 'accuracy')}, "
            f"{percent(row, 'pgd')}, {percent(row, 'strong')} "
            f"({describe_chains(row['diagnostics'])})"
            for row in found
        )
        + "."
    )


def explain(data: Data) -> str:
    """Return why the published number is what it is, as far as the rows show it."""
    row = find(data, "version", "2020")
    if row["pgd"] - row["strong"] <= _HALF / 5:
        return (
            "Here the published attack leaves little more than the strong one: nothing is hidden."
        )
    sound = find(data, "half", "training")
    if row["zero_gradient_share"] > _BLIND:
        why = (
            f"the attack does not move: its gradient is exactly zero in float32 at "
            f"{format_percent(row['zero_gradient_share'])} % of the images, for the softmax of "
            f"logits with a mean size of {row['mean_magnitude']:,.0f} is exactly 0 or 1"
        )
    else:
        why = (
            "its gradients, though not zero, point where few of the predicting draws can be fooled"
        )
    return (
        f"2020's {format_percent(row['pgd'])} % stand because {why}; what remains where "
        "only the training is as published is "
        f"{format_percent(sound['pgd'])} % under a sound PGD and "
        f"{format_percent(row['strong'])} % under an attack that does not saturate "
        f"({format_percent(row['strong_fresh'])} % where fresh draws predict its images)."
    )


def verdicts(data: Data) -> tuple[Verdict, ...]:
    """Return the claims that the ablation tests."""
    published = _published_verdicts(data) if "rows" in data else ()
    return (*published, *(_hmc_verdict(data["hmc"], data["suite"]) if "hmc" in data else ()))


def _published_verdicts(data: Data) -> tuple[Verdict, ...]:
    base, everything = find(data, "base"), find(data, "version", "2020")
    alone = _above(data, "alone")
    fixed = [row for row in data["rows"] if row["group"] == "all_but" and row["pgd"] < _HALF]
    judged = base["pgd"] < _HALF
    return (
        Verdict(
            "The Bayesian network keeps about 90 % under attack (Table 2)",
            f"as published in 2020 {percent(everything, 'pgd')} under PGD; the same draws under "
            f"the suite `{data['suite']}` {percent(everything, 'strong')}",
            bool(everything["strong"] > _HALF),
        ),
        *versions.verdicts(data),
        Verdict(
            "One departure alone keeps the accuracy under PGD above 50 %",
            f"base {percent(base, 'pgd')}; above 50 %: {_list(alone)}",
            bool(alone) if judged else None,
        ),
        Verdict(
            "Putting one departure right brings the accuracy under PGD below 50 %",
            f"2020 {percent(everything, 'pgd')}; below 50 %: {_list(fixed)}",
            bool(fixed) if everything["pgd"] > _HALF else None,
        ),
        Verdict(
            "The published score tells a robust network from one that is not",
            _score(data),
            False if _floor(data) > 0.5 else None,
        ),
    )


def _above(data: Data, group: str) -> list[Data]:
    return [row for row in data["rows"] if row["group"] == group and row["pgd"] > _HALF]


def _list(rows: Sequence[Data]) -> str:
    return ", ".join(f"{row['switch']} ({format_percent(row['pgd'])} %)" for row in rows) or "none"


def _floor(data: Data) -> float:
    """Return the lowest published score: one-hot predictions that all change their class.

    ``1 - (e - 1) / (e + C - 1)`` for C classes.
    """
    e = 2.718281828459045
    return 1 - (e - 1) / (e + data["num_classes"] - 1)


def _score(data: Data) -> str:
    base, scored = find(data, "base"), find(data, "alone", "metric_softmax")
    return (
        f"the same images of the same network, accuracy {percent(base, 'pgd')}: score "
        f"{base['softmax_robustness']:.3f} on probabilities, {scored['softmax_robustness']:.3f} as "
        f"published, which cannot fall below {_floor(data):.3f}"
    )


def _hmc_verdict(rows: Sequence[Data], suite: str) -> tuple[Verdict, ...]:
    full, part = (
        next(r for r in rows if r["training"] == name and r["attack"] == "corrected")
        for name in ("hmc-full", "hmc-minibatch")
    )
    return (
        Verdict(
            "HMC on one minibatch, its draws resampled, stands for HMC on all the data",
            f"trained on {part['diagnostics']['num_train']:,} of "
            f"{full['diagnostics']['num_train']:,} images; clean {percent(part, 'accuracy')} "
            f"against {percent(full, 'accuracy')}; "
            f"{part['diagnostics']['num_distinct_draws']} of {part['num_draws']} draws are "
            f"distinct; suite `{suite}` {percent(part, 'strong')} against "
            f"{percent(full, 'strong')}; the chains: {describe_chains(full['diagnostics'])}, "
            f"{describe_chains(part['diagnostics'])}",
            None,
        ),
        *_mixed_verdict([row for row in rows if row["training"] == "hmc-mixed"], suite),
    )


def _mixed_verdict(rows: Sequence[Data], suite: str) -> tuple[Verdict, ...]:
    """Return whether the published attack finds of a mixed posterior what the suite finds."""
    found = [row for row in rows if row["attack"] == "published"]
    if not found:
        return ()
    (row,) = found
    chains = describe_chains(row["diagnostics"])
    apart = row["intervals"]["pgd"][0] > row["intervals"]["strong"][1]
    return (
        Verdict(
            "Of a posterior by HMC the published PGD leaves no more than the strong suite",
            f"{row['diagnostics']['num_train']:,} images, {row['num_draws']} draws; clean "
            f"{percent(row, 'accuracy')}; PGD as published {percent(row, 'pgd')}, suite `{suite}` "
            f"{percent(row, 'strong')}; chains: {chains}",
            # Overlapping intervals show no equality.
            False if apart and has_mixed(row["diagnostics"]) else None,
        ),
    )
