"""Tables, figures and verdicts of the ablation."""

from __future__ import annotations

from typing import Any

from bnn_adv.report.table import Table
from bnn_adv.report.wording import Measured, format_percent
from experiments.launch.mixed import describe_chains
from experiments.launch.tables import Claim, Plot, Study
from experiments.protocol_ablation import versions_report as versions
from experiments.protocol_ablation import words
from experiments.protocol_ablation.figures import departures_figure, shares_figure
from experiments.protocol_ablation.published_versions import PAPER
from experiments.protocol_ablation.switches import IN_2020, Kind, relevant
from experiments.protocol_ablation.words import Data

_NUMBERS = (
    "clean %",
    "FGSM %",
    "PGD %",
    "strong attack %",
    "softmax robustness",
    "zero gradients %",
    "mean logit size",
    "median logit gap",
    "draws / predictions",
)


def build_study(data: dict[str, Any]) -> Study:
    """Return everything that the ablation reports.

    Args:
      data: The setting; of the part on VI ``versions`` and ``rows``, records with accuracies in
        [0, 1] and what else a row shows, and ``shares``, the switches' Shapley values, or None; of
        the part on HMC ``hmc``, records like those of rows.
    """
    plots, tables = [], []
    if "rows" in data:
        plots.append(Plot("departures", departures_figure(data), _figure_caption(data)))
        tables += [versions.versions_table(data), _main_table(data), _changes_table(data)]
        if data["shares"]:
            plots.append(Plot("shares", shares_figure(data), _shares_caption(data)))
            tables.append(_shares_table(data))
    if "hmc" in data:
        tables.append(_hmc_table(data))
    return Study(
        "What each departure of the published code did",
        words.summarise(data),
        tuple(tables),
        tuple(plots),
        _claims(data),
        words.verdicts(data),
        data,
    )


def _cells(row: Data) -> tuple[Any, ...]:
    accuracies = (
        str(Measured(row[name], tuple(row["intervals"][name])))
        for name in ("accuracy", "fgsm", "pgd", "strong")
    )
    return (
        *accuracies,
        f"{row['softmax_robustness']:.3f}",
        format_percent(row["zero_gradient_share"]),
        f"{row['mean_magnitude']:,.1f}",
        f"{row['median_gap']:,.1f}",
        f"{row['num_draws']} / {row['num_predictions']}",
    )


def _main_table(data: Data) -> Table:
    rows = tuple((words.describe_row(row, data), *_cells(row)) for row in data["rows"])
    return Table(
        "What is as published, and what is left then",
        ("as published", *_NUMBERS),
        rows,
        f"{data['dataset']}, {data['num_test']} test images, l_inf radius {data['epsilon']:g}, "
        f"network {data['network']}. First line: nothing is as published. Then each departure by "
        "itself, the two halves, both versions of the published code, and that of September 2020 "
        f"with one put right. {_describe_columns(data)}",
    )


def _describe_columns(data: Data) -> str:
    return (
        "Accuracies in per cent of the images with "
        "95 % intervals. strong attack: the per-image worst case of the suite "
        f"`{data['suite']}` on the known draws; it depends on the training alone, and rows with "
        "the same training share it. Where PGD leaves far more than the strong attack, the "
        "difference is the attack's failure and no robustness. zero gradients: images at which the "
        "gradient of the known draws is exactly zero in float32, so that FGSM does not move. "
        "Logits: at the clean images; gap: from the largest to the second. draws / predictions: "
        "draws of attacker and defender; where draws are made anew, numbers are means over that "
        "many predictions."
    )


def _changes_table(data: Data) -> Table:
    rows = [
        (
            words.describe_row(row, data),
            "base" if start == "base" else "all of 2020",
            *(_points(row[f"change_from_{start}"][name]) for name in ("fgsm", "pgd", "strong")),
        )
        for start, groups in (("base", ("alone", "half", "version")), ("2020", ("all_but",)))
        for row in data["rows"]
        if row["group"] in groups
    ]
    return Table(
        "Changes on the same images",
        ("as published", "change from", "FGSM, points", "PGD, points", "strong attack, points"),
        tuple(rows),
        "Percentage points of accuracy that a row has more (+) or less (-) than the base, in which "
        "nothing is as published, or than the row as published in 2020, with 95 % intervals for "
        "paired images. An interval that holds zero: no effect can be told from chance in which "
        "images were drawn. How much another training of the same kind would differ is not in it.",
    )


def _points(change: Any) -> str:
    value, low, high = (100 * end for end in change)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _shares_table(data: Data) -> Table:
    shares = data["shares"]["shapley"]
    rows: list[tuple[str, ...]] = [
        (
            words.describe_switch(name, data),
            *(_share_of_accuracy(name, kind, shares) for kind in ("fgsm", "pgd")),
            "{:+.3f} [{:+.3f}, {:+.3f}]".format(*shares["softmax_robustness"][name]),
        )
        for name in words.shared(data)
    ]
    total = {kind: sum(share[0] for share in each.values()) for kind, each in shares.items()}
    rows.append(
        (
            "all together",
            *(f"{100 * total[name]:+.1f}" for name in ("fgsm", "pgd")),
            f"{total['softmax_robustness']:+.3f}",
        )
    )
    return Table(
        "Each departure's share of the whole difference",
        ("departure", "FGSM, points", "PGD, points", "softmax robustness"),
        tuple(rows),
        "Effects interact, so that what a departure does depends on which others are there. Its "
        "share is what it adds, averaged over all orders in which those of 2020 could be turned on "
        "(Shapley value), from attacks on the first "
        f"{data['shares']['num_images']} images under all combinations, with a 95 % interval over "
        "images. The shares add up to the difference between all of 2020 and none on these images, "
        "the last line.",
    )


def _share_of_accuracy(name: str, kind: Kind, shares: Data) -> str:
    if name not in relevant(kind, IN_2020):
        return "0 (changes no image)"
    return _points(shares[kind][name])


def _hmc_table(data: Data) -> Table:
    rows = []
    for row in data["hmc"]:
        found = row["diagnostics"]
        sampled = {
            "hmc-full": "all the data",
            "hmc-minibatch": "one minibatch, resampled",
            "hmc-mixed": "a subset, long trajectories",
        }[row["training"]]
        rows.append(
            (
                f"HMC on {sampled} ({found['num_train']:,} images)",
                row["attack"],
                *_cells(row),
                f"{found['num_distinct_draws']} of {row['num_draws']}",
                found.get("min_ess"),
                found.get("max_rhat"),
                describe_chains(found),
            )
        )
    return Table(
        "HMC on one minibatch (hmc_batches)",
        (
            *("sampler", "attack", *_NUMBERS),
            *("distinct draws", "smallest ESS", "largest R-hat", "chains"),
        ),
        tuple(rows),
        "The published code runs HMC anew on every minibatch, makes int(S / minibatches) + 1 "
        "transitions on each for S draws, and keeps those of the last: the result is HMC on that "
        "minibatch alone; S draws are then taken at random with replacement. As in Pyro, the "
        "trajectory keeps its length while the step size adapts, and masses adapt too. "
        f"{'Columns as above.' if 'rows' in data else _describe_columns(data)} attack: all "
        "switches of attack and score off, or on as in 2020; every version uses "
        "a chain's stored draws. Effective sample size (ESS) and R-hat (rank-normalised, split) "
        "are those of the chains before resampling, on held-out predictions. long trajectories: of "
        "about the prior's scale, on so few images that chains can mix within an hour.",
    )


def _claims(data: Data) -> tuple[Claim, ...]:
    if data["dataset"] != "mnist" or "rows" not in data:
        return ()
    base, everything = words.find(data, "base"), words.find(data, "version", "2020")
    line = versions.find_line(data, "2020")
    note = (
        f"network {data['network']}; published: training, attack and score as published in 2020, "
        f"{line['attacker_draws']} draws attack and {line['defender_draws']} predict, "
        f"{data['num_version_images']} images; corrected: none of it, {data['num_test']} images; "
        f"strong: suite `{data['suite']}` on the posterior with the published training, "
        f"{data['num_test']} images"
    )
    labels = {"accuracy": "accuracy", "fgsm": "FGSM", "pgd": "PGD"}
    return tuple(
        Claim(
            "Table 2, VI (ablation)",
            label,
            round(100 * PAPER[name], 1),
            100 * line[name],
            100 * base[name],
            None if name == "accuracy" else 100 * everything["strong"],
            note=note,
        )
        for name, label in labels.items()
    )


def _figure_caption(data: Data) -> str:
    return (
        "Each line is one way of training and attacking the same network; the text says what in it "
        "is as the published code has it. Filled circle: accuracy that PGD leaves, with its 95 % "
        "interval. Hollow circle: FGSM. Diamond: the strong attack on the same posterior. Grey "
        "tick: accuracy on clean images. The bar from diamond to filled circle is robustness that "
        "is not there: the longer it is, the more the attack of that line has missed. "
        f"{data['num_test']} test images of {data['dataset']}, l_inf radius {data['epsilon']:g}."
    )


def _shares_caption(data: Data) -> str:
    shares = data["shares"]
    total = sum(share[0] for share in shares["shapley"]["pgd"].values())
    return (
        "How much each departure accounts for of the difference in accuracy under PGD between all "
        f"departures of 2020 and none ({100 * total:+.1f} percentage points on the first "
        f"{shares['num_images']} images): its effect averaged over all orders of turning them on, "
        "with 95 % intervals over images. Bars to the right make the network look more robust."
    )
