"""What uncertainty tells about an attack, in numbers."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from bnn_adv.evaluation import metrics
from bnn_adv.evaluation.uncertainty.measures import MEASURES
from bnn_adv.evaluation.uncertainty.scores import Auroc


class Condition(NamedTuple):
    """What a posterior says on one set of inputs.

    accuracy: In [0, 1].
    calibration_error: Expected calibration error in 15 bins, in [0, 1].
    entropy: Mean predictive entropy in nats.
    mutual_information: Its mean in nats; None for a single draw.
    """

    accuracy: float
    calibration_error: float
    entropy: float
    mutual_information: float | None


class Detector(NamedTuple):
    """How a detector by one measure fares.

    threshold: The clean quantile of the measure, in nats; larger values are refused.
    auroc: Clean inputs against the given adversarial ones.
    evading: Share of given adversarial inputs that are misclassified and accepted.
    aware: What the posterior says on inputs of the attack that knows the detector.
    auroc_aware: Clean inputs against those.
    evading_aware: Share of those that are misclassified and accepted.
    """

    threshold: float
    auroc: Auroc
    evading: float
    aware: Condition
    auroc_aware: Auroc
    evading_aware: float


@dataclasses.dataclass(frozen=True)
class UncertaintyReport:
    """What uncertainty tells about an attack.

    Args:
      num_inputs: N.
      num_samples: Draws, S.
      quantile: Share of clean inputs that detectors accept.
      clean: On clean inputs.
      adversarial: On the given adversarial inputs.
      detectors: By measure; a single draw has no mutual information.
    """

    num_inputs: int
    num_samples: int
    quantile: float
    clean: Condition
    adversarial: Condition
    detectors: dict[str, Detector]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers with 95 % intervals, ready for JSON; None where undefined."""
        return {
            "num_inputs": self.num_inputs,
            "num_samples": self.num_samples,
            "quantile": self.quantile,
            "clean": self.clean._asdict(),
            "adversarial": self.adversarial._asdict(),
            **{name: self._detector(name) for name in MEASURES},
        }

    def _detector(self, name: str) -> dict[str, Any] | None:
        if name not in self.detectors:
            return None
        found = self.detectors[name]
        return {
            **found._asdict(),
            "auroc": found.auroc._asdict(),
            "auroc_aware": found.auroc_aware._asdict(),
            "aware": found.aware._asdict(),
            "intervals": {
                key: list(metrics.wilson_interval(share, self.num_inputs))
                for key, share in (
                    ("evading", found.evading),
                    ("evading_aware", found.evading_aware),
                )
            },
        }

    def __str__(self) -> str:
        """Return two short tables."""
        # On demand, as the report brings matplotlib.
        from bnn_adv.report.table import to_text
        from bnn_adv.report.uncertainty import uncertainty_tables

        return "\n\n".join(map(to_text, uncertainty_tables(self.to_dict())))
