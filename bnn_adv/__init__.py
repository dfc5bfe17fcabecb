"""Train Bayesian neural networks, attack them in expectation, report honestly how robust."""

from bnn_adv.posterior import Posterior

__all__ = ["Posterior"]
