"""Records of posteriors that do not exist, for tests of the page alone."""

from bnn_adv.evaluation.metrics import wilson_interval
from bnn_adv.report.wording import Measured
from experiments.zoo.record import AurocRecord, PosteriorRecord, RadiusRecord

METHODS = {"sgd": 0.0, "ensemble": 0.006, "vi": 0.01, "mcmc": 0.02}
TRAININGS = {"standard": (0.985, 0.02, 0.0), "adversarial": (0.98, 0.93, 0.1)}
TRAININGS["interval"] = (0.96, 0.9, 0.86)
RADII = {"mnist": (0.1, 0.3), "fashion_mnist": (0.05, 0.1)}


def share(value, count=1000):
    value = round(min(max(value, 0.0), 1.0) * count) / count
    return Measured(value, wilson_interval(value, count))


def make_record(dataset, method, training, place=0):
    clean, attacked, certified = TRAININGS[training]
    lost, more = (0.1 if dataset == "fashion_mnist" else 0.0), METHODS[method]
    radii = tuple(
        RadiusRecord(
            "linf",
            epsilon,
            1000,
            share(attacked - lost + more + 0.04 - 0.1 * number),
            share(attacked - lost + more - 0.1 * number),
            share(certified - lost - 0.2 * number),
            share(attacked - lost + 2 * more - 0.1 * number) if method != "sgd" else Measured(None),
            share(attacked - lost - 0.1 * number) if method == "vi" else Measured(None),
        )
        for number, epsilon in enumerate(RADII[dataset])
    )
    aurocs = tuple(
        AurocRecord(
            task,
            score,
            "" if task == "detection" else "rotated",
            Measured(0.8 + more, (0.78, 0.84)),
            Measured(0.3 + more, (0.28, 0.34)),
        )
        for task in ("detection", "shift")
        for score in ("entropy", "mutual_information")
    )
    name = f"{dataset}_{method}_{training}"
    return PosteriorRecord(
        name=name,
        dataset=dataset,
        method=method,
        training=training,
        network="small_conv, 16 channels, relu",
        num_samples=1 if method == "sgd" else 10,
        num_parameters=20_618,
        command=f"python -m experiments.zoo --scale=cpu --only={name}",
        seed=place,
        hardware="2 CPU cores (made up), Python 3.11, JAX 0.10",
        accuracy=share(clean - lost + more / 2),
        radii=radii,
        aurocs=aurocs,
        masking=("zero_gradients", "black_box_stronger") if training == "standard" else (),
        mixed=True if method == "mcmc" else None,
        training_seconds=40.0 + 90 * place,
        evaluation_seconds=12.5,
        shipped=name if training == "interval" else "",
        remarks=("The chains are short.",) if method == "mcmc" else (),
    )


def make_records():
    found = [
        make_record(dataset, method, training, place)
        for dataset in RADII
        for place, method in enumerate(METHODS)
        for training in TRAININGS
    ]
    return [*found, BARE]


BARE = PosteriorRecord(
    name="digits_bare",
    dataset="digits",
    method="laplace",
    training="standard",
    network="fc, 8 units, tanh",
    num_samples=5,
    num_parameters=602,
    command="python -m experiments.train",
    seed=0,
    hardware="any",
)
"""Nothing was measured of it."""
