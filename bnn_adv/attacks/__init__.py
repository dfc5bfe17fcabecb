"""Attacks by name. Each file has the same members: Config, State, init, step, build."""

from bnn_adv.attacks import (
    apgd,
    apgd_t,
    bim,
    corner,
    fab,
    fab_t,
    fgsm,
    genetic,
    mi_fgsm,
    nes,
    noise,
    pgd,
    square,
)
from bnn_adv.attacks.base import Attack, Loss, LossFn, Settings
from bnn_adv.attacks.driver import AttackSettings, run_attack

ATTACKS = {
    "fgsm": fgsm,
    "bim": bim,
    "mi_fgsm": mi_fgsm,
    "pgd": pgd,
    "apgd": apgd,
    "apgd_t": apgd_t,
    "fab": fab,
    "fab_t": fab_t,
    "square": square,
    "genetic": genetic,
    "nes": nes,
    "noise": noise,
    "corner": corner,
}

__all__ = ["ATTACKS", "Attack", "AttackSettings", "Loss", "LossFn", "Settings", "run_attack"]
