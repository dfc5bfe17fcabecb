"""Attacks by name. Each file has the same members: Config, State, init, step, build."""

from bnn_adv.attacks import apgd, bim, fgsm, mi_fgsm, pgd, square
from bnn_adv.attacks.base import Attack, Loss, LossFn
from bnn_adv.attacks.driver import run_attack

ATTACKS = {
    "fgsm": fgsm,
    "bim": bim,
    "mi_fgsm": mi_fgsm,
    "pgd": pgd,
    "apgd": apgd,
    "square": square,
}

__all__ = ["ATTACKS", "Attack", "Loss", "LossFn", "run_attack"]
