"""A posterior that ships with the package, with inputs, their certificate, and its record."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from bnn_adv.attacks.threat import THREATS
from bnn_adv.certification import Certificate
from bnn_adv.networks import find_network
from bnn_adv.posteriors.posterior import Posterior
from bnn_adv.zoo.record import EntryRecord


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Entry:
    """A posterior with N inputs of its data set, their certificate, and what is known of it.

    Args:
      name: Of its folder.
      posterior: The draws, float32 whatever they are stored in: those that were evaluated and
        certified.
      x: Test inputs of its data set, float32 [N, ...] in [0, 1].
      y: Their labels, [N].
      certificate: Of ``posterior`` at ``x``.
      record: Network, data, training, and what was measured on more inputs than these.
    """

    name: str
    posterior: Posterior
    x: np.ndarray
    y: np.ndarray
    certificate: Certificate
    record: EntryRecord

    @property
    def threat(self) -> Any:
        """The threat model of the certificate, for ``evaluate`` and ``certify``."""
        radii = np.unique(self.certificate.epsilon.astype(np.float32))
        # The shortest decimal of float32: what was asked for, and the same number in float32.
        epsilon: Any = float(str(radii[0])) if len(radii) == 1 else self.certificate.epsilon
        return THREATS[self.certificate.norm](epsilon, *self.certificate.box)

    @property
    def citation(self) -> str:
        """Say in a sentence what it is, and what was measured."""
        record, training = self.record, self.record.training
        network = find_network(record.network)
        described = network.describe(make_settings(record))
        measured = "; ".join(map(str, record.brackets)) or "nothing was measured"
        count = self.posterior.num_samples
        draws = "1 draw" if count == 1 else f"{count:,} draws"
        return (
            f"{self.name}, a posterior of the bnn_adv zoo: {record.method}, {draws} of "
            f"{described}, {training['likelihood']} likelihood, on {record.dataset} "
            f"(`{training['command']}`, seed {training['seed']}, {training['hardware']}); "
            f"{measured}."
        )

    def __repr__(self) -> str:
        """Return in one line what it is."""
        radius, certificate = self.certificate.epsilon.max(), self.certificate
        return (
            f"Entry({self.name}: {self.posterior!r}, {self.record.method} on "
            f"{self.record.dataset}; "
            f"{certificate.certified.sum()} of {len(self.y)} test inputs certified within "
            f"{certificate.norm} {radius:g})"
        )

    def __str__(self) -> str:
        """Return the citation."""
        return self.citation


def make_settings(record: EntryRecord) -> Any:
    """Return the settings of an entry's network.

    Raises:
      ValueError: One is unknown or out of range.
    """
    config_class = find_network(record.network).Config
    known = {field.name for field in dataclasses.fields(config_class)}
    if unknown := set(record.settings) - known:
        raise ValueError(
            f"the network {record.network} has no settings {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(known))}"
        )
    listed = {k: tuple(v) if isinstance(v, list) else v for k, v in record.settings.items()}
    return config_class(**listed)
