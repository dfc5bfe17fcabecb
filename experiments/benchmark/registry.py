"""The cases by name, in the order in which they run."""

from experiments.benchmark import (
    attacks,
    ceiling,
    compiling,
    devices,
    gradients,
    hmc,
    margins,
    memory,
    peer,
    peers,
    pieces,
    scaling,
    starting,
    training,
)

CASES = {
    case.NAME: case
    for case in (
        ceiling,
        gradients,
        margins,
        pieces,
        scaling,
        attacks,
        hmc,
        training,
        memory,
        compiling,
        starting,
        devices,
        peer,
        peers,
    )
}
