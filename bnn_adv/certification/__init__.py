"""Lower bounds of robustness: what no attack can break, beside what attacks have broken."""

from bnn_adv.certification.affine import AFFINE, Affine, register_affine
from bnn_adv.certification.bracket import Bracket, ContradictionError, bracket
from bnn_adv.certification.certificate import Certificate
from bnn_adv.certification.certify import certify
from bnn_adv.certification.fresh import certify_fresh
from bnn_adv.certification.fresh_certificate import FreshCertificate
from bnn_adv.certification.graph import CertificationError
from bnn_adv.certification.referee import CertificateVerification, verify_certificate
from bnn_adv.certification.relaxations import (
    RELAXATIONS,
    Relaxation,
    convex,
    register_activation,
    s_shaped,
)
from bnn_adv.certification.settings import CertificationSettings, FreshCertificationSettings

__all__ = [
    "AFFINE",
    "RELAXATIONS",
    "Affine",
    "Bracket",
    "Certificate",
    "CertificateVerification",
    "CertificationError",
    "CertificationSettings",
    "ContradictionError",
    "FreshCertificate",
    "FreshCertificationSettings",
    "Relaxation",
    "bracket",
    "certify",
    "certify_fresh",
    "convex",
    "register_activation",
    "register_affine",
    "s_shaped",
    "verify_certificate",
]
