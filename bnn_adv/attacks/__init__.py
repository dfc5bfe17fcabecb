"""Attacks by name. Each file has the same members: Config, State, init, step, build."""

from bnn_adv.attacks import fgsm, pgd
from bnn_adv.attacks.base import Attack, Loss, LossFn
from bnn_adv.attacks.driver import run_attack

ATTACKS = {"fgsm": fgsm, "pgd": pgd}

__all__ = ["ATTACKS", "Attack", "Loss", "LossFn", "run_attack"]
