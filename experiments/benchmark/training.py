"""SGD and SVI on the ConvNet: steps per second, and share of the ceiling."""

from __future__ import annotations

import functools

from bnn_adv.inference.densities import Data
from experiments.benchmark import flops, workloads
from experiments.benchmark.ceiling import bracket
from experiments.benchmark.epochs import MINIBATCH, time_epochs
from experiments.benchmark.rows import Row, Say, per_second_row, rate_row
from experiments.benchmark.sizes import Size

NAME = "training"


def run(size: Size, say: Say) -> list[Row]:
    """Time epochs of both methods."""
    count = size.epoch_batches * MINIBATCH
    network = workloads.conv_net(size.channels)
    data = Data(workloads.images(count, workloads.MNIST), workloads.labels(count))
    per_epoch = count * flops.weight_gradient(network, workloads.MNIST)
    rows = []
    for name in ("sgd", "svi"):
        work = f"{name.upper()}, ConvNet {size.channels}, minibatches of {MINIBATCH}"
        say(work)
        timed = functools.partial(time_epochs, name, network, data, size.epochs)
        (epoch, _), ceiling = bracket(timed, size)
        rows += [
            per_second_row(NAME, work, epoch, count=size.epoch_batches, unit="steps"),
            rate_row(NAME, work, epoch, flops=per_epoch, ceiling=ceiling),
        ]
    return rows
