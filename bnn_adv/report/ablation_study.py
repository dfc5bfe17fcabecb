"""Tables, figures and verdicts of the ablation."""

from __future__ import annotations

from typing import Any

from bnn_adv.ablation import SWITCHES
from bnn_adv.report import ablation_words as words
from bnn_adv.report.ablation import departures_figure, shares_figure
from bnn_adv.report.ablation_words import Data
from bnn_adv.report.study import Claim, Plot, Study, Table
from bnn_adv.report.wording import Measured, format_percent

_NUMBERS = (
    "clean %",
    "FGSM %",
    "PGD %",
    "strong attack %",
    "softmax robustness",
    "zero gradients %",
    "mean logit size",
    "median logit gap",
    "attacker / defender draws",
)


def build_study(data: dict[str, Any]) -> Study:
    """Return everything that the ablation reports.

    Args:
      data: ``rows`` and ``hmc``, lists of records with accuracies in [0, 1] and what else a row
        shows; ``shares``, the switches' Shapley values, or None; and the setting.
    """
    plots = [Plot("departures", departures_figure(data), _figure_caption(data))]
    tables = [_main_table(data), _changes_table(data), _hmc_table(data)]
    if data["shares"]:
        plots.append(Plot("shares", shares_figure(data), _shares_caption(data)))
        tables.insert(2, _shares_table(data))
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
        f"{row['attacker_draws']} / {row['defender_draws']}",
    )


def _main_table(data: Data) -> Table:
    rows = tuple((words.describe_row(row, data), *_cells(row)) for row in data["rows"])
    return Table(
        "What is as published, and what is left then",
        ("as published", *_NUMBERS),
        rows,
        f"{data['dataset']}, {data['num_test']} test images, l_inf radius {data['epsilon']:g}, "
        f"network {data['network']}. First line: nothing is as published. Then each departure by "
        "itself, the two halves, all, and all but one. Accuracies in per cent of the images with "
        "95 % intervals. strong attack: the per-image worst case of the suite "
        f"`{data['suite']}`; it depends on the training alone, and rows with the same training "
        "share it. Where PGD leaves far more than the strong attack, the difference is the "
        "attack's failure and no robustness. zero gradients: images at which the attacker's "
        "gradient is exactly zero in float32, so that FGSM does not move. Logits: at the clean "
        "images; gap: from the largest to the second. With one draw that is attacked, the loss of "
        "the average is the average of the losses: `attack_objective` then changes nothing.",
    )


def _changes_table(data: Data) -> Table:
    rows = [
        (
            words.describe_row(row, data),
            start,
            *(_points(row[f"change_from_{start}"][name]) for name in ("fgsm", "pgd", "strong")),
        )
        for start, groups in (("base", ("alone", "half", "all")), ("all", ("all_but",)))
        for row in data["rows"]
        if row["group"] in groups
    ]
    return Table(
        "Changes on the same images",
        ("as published", "change from", "FGSM, points", "PGD, points", "strong attack, points"),
        tuple(rows),
        "Percentage points of accuracy that a row has more (+) or less (-) than the base, in which "
        "nothing is as published, or than the row in which all is, with 95 % intervals for paired "
        "images. An interval that holds zero: no effect can be told from chance in which images "
        "were drawn. How much another training of the same kind would differ is not in it.",
    )


def _points(change: Any) -> str:
    value, low, high = (100 * end for end in change)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _shares_table(data: Data) -> Table:
    shares = data["shares"]["shapley"]
    rows: list[tuple[str, ...]] = [
        (
            words.describe_switch(name, data),
            f"{100 * shares['fgsm'][name]:+.1f}",
            f"{100 * shares['pgd'][name]:+.1f}",
            f"{shares['softmax_robustness'][name]:+.3f}",
        )
        for name in SWITCHES
    ]
    total = {name: sum(each.values()) for name, each in shares.items()}
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
        "share is what it adds, averaged over all orders in which the seven could be turned on "
        "(Shapley value), from attacks on the first "
        f"{data['shares']['num_images']} images under all combinations. The shares add up to the "
        "difference between all and none on these images, the last line.",
    )


def _hmc_table(data: Data) -> Table:
    rows = []
    for row in data["hmc"]:
        found = row["diagnostics"]
        sampled = "all the data" if row["training"] == "hmc-full" else "one minibatch, resampled"
        rows.append(
            (
                f"HMC on {sampled} ({found['num_train']:,} images)",
                row["attack"],
                *_cells(row),
                f"{found['num_distinct_draws']} of {row['defender_draws']}",
                found.get("median_ess"),
                found.get("median_rhat"),
            )
        )
    return Table(
        "HMC on one minibatch (hmc_batches)",
        ("sampler", "attack", *_NUMBERS, "distinct draws", "median ESS", "median split R-hat"),
        tuple(rows),
        "The published code runs HMC anew on every minibatch and keeps the draws of the last, "
        "so that the result is HMC on that minibatch alone; predictions then take draws at random "
        "with replacement. Columns as above. attack: all switches of attack and score off, or on "
        "but `seeds`, for a chain has no fresh draws. Effective sample size (ESS) and split R-hat "
        "are those of the chains before resampling, on held-out predictions; an R-hat above 1.1 "
        "says that the draws do not represent the posterior.",
    )


def _claims(data: Data) -> tuple[Claim, ...]:
    if data["dataset"] != "mnist":
        return ()
    base, everything = words.find(data, "base"), words.find(data, "all")
    known = words.find(data, "all_but", "seeds")
    fgsm, pgd = (format_percent(known[kind]) for kind in ("fgsm", "pgd"))
    note = (
        f"network {data['network']}; published: training, attack and score as published, the "
        f"attacker knows {everything['attacker_draws']} of the draws (with all "
        f"{known['attacker_draws']} that predict FGSM and PGD leave {fgsm} and {pgd} %); "
        "corrected: none of it; strong: on the posterior with the published training"
    )
    # Carbone et al. 2020, supplement, section 11, table 2, last line.
    paper = {"accuracy": ("accuracy", 96.1), "fgsm": ("FGSM", 90.0), "pgd": ("PGD", 89.8)}
    return tuple(
        Claim(
            "Table 2, VI (ablation)",
            label,
            number,
            100 * everything[name],
            100 * base[name],
            None if name == "accuracy" else 100 * everything["strong"],
            note=note,
        )
        for name, (label, number) in paper.items()
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
    return (
        "How much each departure accounts for of the difference in accuracy under PGD between all "
        f"departures and none ({100 * sum(shares['shapley']['pgd'].values()):+.1f} percentage "
        f"points on the first {shares['num_images']} images): its effect averaged over all orders "
        "of turning the seven on. Bars to the right make the network look more robust."
    )
