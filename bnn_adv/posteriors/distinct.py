"""Which draws of a posterior are the same."""

from __future__ import annotations

import hashlib

from bnn_adv.compute.disk import as_arrays
from bnn_adv.posteriors.posterior import Posterior


def count_distinct(posterior: Posterior) -> int:
    """Return how many of the draws differ from one another."""
    return len(set(name_draws(posterior)))


def name_draws(posterior: Posterior) -> list[bytes]:
    """Return a digest of every draw."""
    leaves = as_arrays(posterior.samples)
    found = []
    for index in range(posterior.num_samples):
        digest = hashlib.blake2b()
        for leaf in leaves:
            digest.update(leaf[index].tobytes())
        found.append(digest.digest())
    return found
