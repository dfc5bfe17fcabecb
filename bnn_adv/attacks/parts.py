"""Attacks that ask for one loss a step, in parts: the network then stands in a program once.

``init`` and ``step`` are made of the same parts; each of them traces and compiles the network's
gradient for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bnn_adv.attacks import apgd, pgd
from bnn_adv.attacks.base import Attack, Loss
from bnn_adv.attacks.threat import Threat
from bnn_adv.compute.types import Images, RngKeys


class Parts(NamedTuple):
    """What an attack does between two losses.

    start_at: Where it begins, [B, ...].
    begin: The first state, given the loss there.
    propose: Where the next step leads, [B, ...].
    take_in: The state after the step, given the loss there.
    """

    start_at: Callable[[RngKeys, Images, Threat, Any], Images]
    begin: Callable[[Images, Loss, Threat], Any]
    propose: Callable[[Any, Images, Threat, Any], Images]
    take_in: Callable[[Any, Images, Loss, Images, Threat, Any], Any]


# By both functions: an attack that wraps one of them is another.
_KNOWN = {
    (module.init, module.step): Parts(module.start_at, module.begin, module.propose, module.take_in)
    for module in (pgd, apgd)
}


def parts_of(attack: Attack) -> Parts | None:
    """Return the parts that an attack's two functions are made of, where they are known."""
    return _KNOWN.get((attack.init, attack.step))
