"""How certificates are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from jax.sharding import Mesh

from bnn_adv.compute import arguments
from bnn_adv.compute.checkpoint import Checkpoints

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
RULES = ("predictive", "every_draw")

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class _BoundSettings:
    """What all certificates have in common."""

    method: Literal["ibp", "crown-ibp", "crown", "alpha-crown"] = "crown"
    arithmetic: Literal["float32", "real"] = "float32"
    num_rounds: int = 8
    most_rows: int = 1024
    batch_size: int = 64
    mesh: Mesh | None = None
    checkpoints: Checkpoints | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        for name, known in (("method", METHODS), ("arithmetic", ("float32", "real"))):
            check_choice(name, getattr(self, name), known)
        for name, least in (("num_rounds", 1), ("most_rows", 0), ("batch_size", 1)):
            arguments.check_count(name, getattr(self, name), least)
        parts = 1 if self.mesh is None else self.mesh.shape["data"]
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be split evenly over data:{parts} of the "
                f"mesh. Give a multiple of {parts}."
            )

    def _leave_out(self, *names: str) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in names}


def check_choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raise unless a setting has one of its values.

    Raises:
      ValueError: The message names the setting, its value and what is known.
    """
    if value not in known:
        raise ValueError(f"Unknown {name} {value!r}. Known: {', '.join(known)}.")


@dataclasses.dataclass(frozen=True)
class CertificationSettings(_BoundSettings):
    """How bounds are made.

    Args:
      method: ``"crown"``: linear bounds of every layer; ``"alpha-crown"``: the same, and lines of
        activations and of softmax that are made tight where the bound is smallest, again and again;
        ``"crown-ibp"``: intervals for the layers between, linear bounds of the logits; ``"ibp"``:
        intervals alone.
      rule: ``"predictive"``: the posterior's own decision rule; ``"every_draw"``: each draw by
        itself must be right, which certifies any average of them.
      arithmetic: ``"float32"``: of the network as float32 evaluates it, in any order of sums;
        ``"real"``: of the function that its weights define in real arithmetic.
      num_rounds: Times that lines are chosen anew by ``"alpha-crown"``, each about one and a half
        times as dear as ``"crown"``.
      num_halvings: Steps of the bisection for the largest certified radius; 0 looks at the threat
        model's alone.
      most_rows: Units of a layer up to which it has linear bounds; larger ones have intervals.
      batch_size: Inputs at once.
      mesh: Devices to split the inputs over (its axis ``data``); the draws are split over them by
        ``shard_posterior``.
      checkpoints: Where to save finished batches and to continue from them.
    """

    rule: Literal["predictive", "every_draw"] = "predictive"
    num_halvings: int = 0

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        check_choice("rule", self.rule, RULES)
        arguments.check_count("num_halvings", self.num_halvings, 0)

    def to_json(self) -> dict[str, Any]:
        """Return what is certified by, without where it runs."""
        return self._leave_out("mesh", "checkpoints")


@dataclasses.dataclass(frozen=True)
class FreshCertificationSettings(_BoundSettings):
    """How bounds of fresh draws are made; see ``CertificationSettings``.

    Args:
      method: ``"ibp"``, ``"crown-ibp"``, ``"crown"`` or ``"alpha-crown"``.
      arithmetic: ``"float32"`` or ``"real"``.
      num_rounds: Times that ``"alpha-crown"`` chooses a draw's lines anew.
      most_rows: Units of a layer up to which it has linear bounds.
      batch_size: Inputs at once.
      mesh: Devices to split the inputs over (its axis ``data``).
      checkpoints: Where to save finished batches of inputs and to continue from them.
      sample_chunk: Draws that are made by one call of a compiled program; they are bounded one by
        one, and results do not depend on it.
      progress: Called with the pairs of draw and input done, and all.
    """

    num_rounds: int = 4
    sample_chunk: int = 8
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        arguments.check_count("sample_chunk", self.sample_chunk, 1)

    def to_json(self) -> dict[str, Any]:
        """Return what results depend on."""
        return self._leave_out("mesh", "checkpoints", "progress", "sample_chunk")
