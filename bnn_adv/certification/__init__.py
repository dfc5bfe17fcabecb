"""Lower bounds of robustness: what no attack can break, beside what attacks have broken."""

from bnn_adv.bounds.graph import CertificationError
from bnn_adv.certification.bracket import Bracket, ContradictionError, bracket
from bnn_adv.certification.certificate import Certificate, load_certificate
from bnn_adv.certification.certify import certify
from bnn_adv.certification.fresh import certify_fresh
from bnn_adv.certification.fresh_certificate import FreshCertificate
from bnn_adv.certification.referee import CertificateVerification, verify_certificate
from bnn_adv.certification.settings import CertificationSettings, FreshCertificationSettings

__all__ = [
    "Bracket",
    "Certificate",
    "CertificateVerification",
    "CertificationError",
    "CertificationSettings",
    "ContradictionError",
    "FreshCertificate",
    "FreshCertificationSettings",
    "bracket",
    "certify",
    "certify_fresh",
    "load_certificate",
    "verify_certificate",
]
