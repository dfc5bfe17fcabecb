"""What the posteriors say, as a study: tables, figures, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnn_adv.inference.diagnostics import has_mixed
from bnn_adv.report.table import Table
from experiments.bayesian_gain.figures import curve_figure, draws_figure, fresh_figure
from experiments.bayesian_gain.intervals import difference, share
from experiments.bayesian_gain.rows import (
    Row,
    Setting,
    Shown,
    at_radius,
    describe_chains,
    describe_signs,
    list_settings,
    list_shown,
    right,
)
from experiments.bayesian_gain.trainings import TRAININGS
from experiments.bayesian_gain.verdicts import COMPARABLE, judge, list_verdicts
from experiments.launch.tables import Plot, Study

_TITLE = "What averaging over a posterior is worth under attack"
_INTERVALS = (
    "Shares of test images in %: the mean over repetitions with its 95 % interval over images and "
    "repetitions, and the value of each repetition in parentheses. Repetitions differ in the "
    "random keys of training and attack, on the same images."
)
_CURVE = (
    "Accuracy left by the suite against the radius; at 0 that of clean images. Bands (one network "
    "and the sampler) and bars, which stand beside each other: 95 % intervals over images and "
    "repetitions; dots: single repetitions. Chains that have not mixed are drawn as they are."
)
_DRAWS = (
    "Accuracy left against the number of draws of the sampler and of members of the ensemble, the "
    "first of the same ones in a fixed random order. Bands and dots as above. Chains that have "
    "not mixed are drawn as they are; verdicts leave them out."
)
_FRESH = (
    "Accuracy left where the attacker knows the draws that predict (filled), and where every "
    "prediction picks draws anew from a half that it does not know (open); bars: 95 % intervals."
)


def build_study(rows: Sequence[Row], config: Any) -> Study:
    """Return what was found.

    Args:
      rows: From ``measure``, of all cases.
      config: The study's settings.
    """
    settings, shown = list_settings(rows), list_shown(config)
    tables = [_main_table(setting, shown, config) for setting in settings]
    tables.append(_draws_table(settings, config))
    plots = [
        Plot("curve", curve_figure(settings, shown), _CURVE),
        Plot("draws", draws_figure(settings, config.close_epsilons), _DRAWS),
    ]
    if any(row["kind"] == "fresh" for row in rows):
        tables.append(_fresh_table(settings, config))
        plots.append(Plot("fresh", fresh_figure(settings, config.close_epsilons), _FRESH))
    if (warned := _warnings_table(settings)) is not None:
        tables.append(warned)
    return Study(
        _TITLE,
        _summarise(settings, config),
        tuple(tables),
        tuple(plots),
        verdicts=tuple(list_verdicts(settings, config)),
        data={"rows": list(rows)},
    )


def _summarise(settings: Sequence[Setting], config: Any) -> str:
    epsilon, parts = config.close_epsilons[-1], []
    words = TRAININGS[config.sampler].words
    for setting in settings:
        pair = Shown("one network", "sgd", 1), Shown(words, config.sampler, config.num_draws)
        one, own = (right(setting.find(m.training, m.draws), epsilon).mean() for m in pair)
        parts.append(
            f"{setting.words}: {config.num_draws} draws of {words} leave {100 * own:.1f} %, one "
            f"network {100 * one:.1f} %, {judge(setting, *pair, epsilon, config.epsilons)}"
        )
    chains = [row for setting in settings for row in setting.find(config.sampler, config.num_draws)]
    mixed = sum(has_mixed(row["diagnostics"]) is True for row in chains)
    repeats = "1 repetition" if config.num_repeats == 1 else f"{config.num_repeats} repetitions"
    return (
        f"Suite {config.suite!r}, {config.num_test} test images, {repeats}, "
        f"l_inf. Within {epsilon:g}: {'; '.join(parts)}. Chains of {words} have mixed in "
        f"{mixed} of {len(chains)} runs{_describe_source(chains)}. A claim of more holds (yes) "
        "where the interval of the difference, in points and covering all radii of its claim "
        "together to 95 %, is above "
        f"zero, and does not (no) where it is below {100 * COMPARABLE:g} points; a claim is not "
        "judged where chains have not mixed, steps without a Metropolis test are too long, or a "
        "sign of masking was raised."
    )


def _describe_source(chains: Sequence[Row]) -> str:
    """Return whose chains of HMC they are, where another run has sampled some."""
    taken = {row["dataset"] for row in chains if "sampled_by" in row["diagnostics"]}
    words = ", ".join(sorted(taken))
    return (
        f" (on {words} they come from one finished run; each repetition takes its share)"
        if taken
        else ""
    )


def _main_table(setting: Setting, shown: Sequence[Shown], config: Any) -> Table:
    lines = []
    for method in shown:
        rows = setting.find(method.training, method.draws)
        lines.append(
            (
                method.label,
                method.draws,
                *(str(share(right(rows, epsilon))) for epsilon in (None, *config.epsilons)),
                describe_signs(rows) or "not looked for",
                describe_chains(rows) or "no chains",
            )
        )
    header = ("method", "draws", "clean", *(f"within {epsilon:g}" for epsilon in config.epsilons))
    close = ", ".join(f"{epsilon:g}" for epsilon in config.close_epsilons)
    return Table(
        f"{setting.words}: accuracy left by the suite",
        (*header, "signs of masking", "chains"),
        tuple(lines),
        f"{_INTERVALS} The attacker knows all draws that predict. Signs of masking: of 15 that "
        f"were looked for within {close}, in each repetition, those that were raised.",
    )


def _draws_table(settings: Sequence[Setting], config: Any) -> Table:
    lines = [
        (
            setting.words,
            TRAININGS[training].words,
            draws,
            *(str(share(right(rows, epsilon))) for epsilon in (None, *config.close_epsilons)),
            describe_signs(rows) or "not looked for",
            describe_chains(rows) or "no chains",
        )
        for setting in settings
        for training in config.methods
        for draws in setting.list_draws(training)
        if (rows := setting.find(training, draws))
    ]
    header: tuple[str, ...] = ("data, network", "method", "draws", "clean")
    header += tuple(f"within {epsilon:g}" for epsilon in config.close_epsilons)
    return Table(
        "Accuracy left, by number of draws",
        (*header, "signs of masking", "chains"),
        tuple(lines),
        f"{_INTERVALS} Signs of masking are looked for at the sizes that are attacked within every "
        "radius.",
    )


def _fresh_table(settings: Sequence[Setting], config: Any) -> Table:
    lines = []
    for setting in settings:
        names = dict.fromkeys(row["training"] for row in setting.rows if row["kind"] == "fresh")
        for training in names:
            (draws,) = setting.list_draws(training, kind="fresh")
            known = setting.find(training, draws)
            for epsilon in config.close_epsilons:
                fresh = at_radius(setting.find(training, draws, kind="fresh"), epsilon)
                frozen, anew = right(known, epsilon), right(fresh, epsilon)
                shares = (share(right(fresh, None)), share(frozen), share(anew))
                lines.append(
                    (
                        setting.words,
                        TRAININGS[training].words,
                        draws,
                        f"{epsilon:g}",
                        *map(str, shares),
                        str(difference(frozen, anew)),
                        describe_chains(known) or "no chains",
                    )
                )
    header = ("data, network", "method", "draws of a prediction", "radius", "clean, fresh")
    return Table(
        "Known draws against fresh ones",
        (*header, "known", "fresh", "fresh less known, points", "chains"),
        tuple(lines),
        f"{_INTERVALS} known: the attacker knows the draws that predict. fresh: every one of "
        f"{config.num_predictions} predictions of an image picks as many draws anew, from a half "
        "of all draws that the attacker does not know; it picks anew at every step from the other "
        "half, and its images are the worst of what all attacks of the suite and the attack on "
        "known draws found.",
    )


def _warnings_table(settings: Sequence[Setting]) -> Table | None:
    """Return what trainings and samplers warned of; None where they did not."""
    lines = dict.fromkeys(
        (setting.words, TRAININGS[row["training"]].words, row["repeat"], text)
        for setting in settings
        for row in setting.rows
        for text in row["diagnostics"].get("warnings", ())
    )
    if not lines:
        return None
    return Table(
        "Warnings",
        ("data, network", "method", "repetition", "warning"),
        tuple(sorted(lines)),
        "What trainings and samplers warned of. Verdicts leave out chains that have not mixed, as "
        "too few effective draws and an unsettled log density say too; the others forbid none.",
    )
