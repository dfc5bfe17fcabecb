"""The study as tables, figures and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bnn_adv.data import Dataset
from bnn_adv.theory.gradients import LossGradients
from experiments.launch.tables import Plot, Study
from experiments.loss_gradients import figures
from experiments.loss_gradients import report as gradient_study
from experiments.loss_gradients.config import (
    Config,
)
from experiments.loss_gradients.measure import Measured
from experiments.loss_gradients.report import POSTERIOR, PRIOR, SHUFFLED

_MOST_MAPS = 3
"""Numbers of draws in a figure of pixels."""

_STRIPS_CAPTION = (
    "Every component of the expected loss gradients of all test images, one strip for each number "
    "of draws S. A strip that narrows shows gradients that shrink. Above each strip the share of "
    "components that are exactly zero in float32: gradients of saturated softmaxes. Of a strip "
    "with more than 50,000 components so many are drawn, evenly spaced by rank."
)
_CURVES_CAPTION = (
    "Norm of the expected loss gradient against the number of draws S, median and quartiles over "
    "test images and random orders of the draws, on logarithmic axes. Dotted: the fall as S^(-1/2) "
    "of any mean of independent gradients of zero mean, from where the posterior and the prior "
    "start. No expectation can fall faster. A curve along its dotted line shows Monte-Carlo "
    "averaging, of an expectation that is small beside its error or zero; a curve above it, draws "
    "that agree on a gradient, as those of chains that have not mixed do too. "
    "prior: untrained networks with weights from N(0, 1). shuffled labels: the same posterior at "
    "labels of other images. Norms that are zero are not drawn."
)


def build_study(measured: Sequence[Measured], config: Config) -> Study:
    """Return the study of all its items."""
    records = [own.record for own in measured]
    plots = [plot for own in measured for plot in _maps(config, *own)]
    strips = {
        own.record["title"]: [
            figures.Strip(int(count), mean)
            for count, mean in zip(own.ours.counts, own.ours.means, strict=True)
        ]
        for own in measured
    }
    curves = {
        record["title"]: {
            condition: _curve(record["conditions"][condition])
            for condition in (POSTERIOR, PRIOR, SHUFFLED)
        }
        for record in records
    }
    plots.append(Plot("strips", figures.gradient_strips(strips, seed=config.seed), _STRIPS_CAPTION))
    plots.append(Plot("norms", figures.norm_curves(curves), _CURVES_CAPTION))
    return Study(
        title="Expected loss gradients against the number of draws (Figs 2, 3)",
        summary=gradient_study.summary(records),
        tables=(gradient_study.norms_table(records), gradient_study.cancellation_table(records)),
        plots=tuple(plots),
        claims=gradient_study.claims(records),
        verdicts=gradient_study.verdicts(records),
        data={"items": records},
    )


def _maps(
    config: Config, record: dict[str, Any], dataset: Dataset, ours: LossGradients
) -> list[Plot]:
    """Return the figure of pixels, or none where no image meets the published rule."""
    images = np.asarray(record["images"], int)
    if not len(images):
        return []
    # As the paper: 1, 10 and 100, or what comes next to them.
    wanted = [int(np.argmin(np.abs(np.log(ours.counts / target)))) for target in (1, 10, 100)]
    places = sorted(set(wanted))[:_MOST_MAPS]
    figure = figures.gradient_maps(
        dataset.x_test[images],
        ours.means[places][:, images],
        ours.counts[places].tolist(),
        [f"image {index}, label {dataset.y_test[index]}" for index in images],
    )
    how = {
        "seed": "drawn at random by the seed",
        "published": "the first whose norm is not zero at the smallest S and never rises with S, "
        f"as the published code picks them ({100 * record['falling_share']:.0f} % of all do)",
    }[config.selection]
    caption = (
        f"{record['title']} ({record['note']}): expected loss gradient of every pixel for growing "
        f"numbers S of draws. The images are {how}. Red raises the loss, blue lowers it; the "
        "colours of a row share one scale, so that a pale map is a smaller gradient. Below each "
        "map its l_inf norm."
    )
    return [Plot(f"pixels_{record['name'].replace('-', '_')}", figure, caption)]


def _curve(found: dict[str, Any]) -> figures.Curve:
    return figures.Curve(np.asarray(found["counts"]), *np.asarray(found["quartiles_linf"]))
