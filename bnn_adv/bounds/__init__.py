"""Bounds of what a network computes while its input moves: of no posterior, and no certificate."""

from bnn_adv.bounds.affine import AFFINE, Affine, register_affine
from bnn_adv.bounds.graph import CertificationError
from bnn_adv.bounds.relaxations import (
    RELAXATIONS,
    Relaxation,
    convex,
    register_activation,
    s_shaped,
)

__all__ = [
    "AFFINE",
    "RELAXATIONS",
    "Affine",
    "CertificationError",
    "Relaxation",
    "convex",
    "register_activation",
    "register_affine",
    "s_shaped",
]
