"""A network as affine steps and activations, read from what JAX traces of it.

Every equation of the traced function falls into one of four kinds. What does not depend on the
input is computed as it stands. Affine primitives become steps, activations nodes; the maximum of
two, pooling, absolute values and leaky units are made of steps and relu, each by an identity that
holds for all real numbers:

    max(a, b) = b + relu(a - b),    |a| = 2 relu(a) - a,    leaky(a) = s a + (1 - s) relu(a)

Any other primitive is refused by name. Functions inside functions (``jit``, custom derivatives,
rematerialisation) are read through; rules of differentiation are not looked at, since bounds are of
the function itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bnn_adv.bounds.affine import AFFINE, Affine, as_wide
from bnn_adv.bounds.relaxations import RELU, Relaxation


class CertificationError(ValueError):
    """A network or posterior for which nothing can be certified; the message says what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """What does not depend on the input."""

    value: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """What depends on the input: its number and shape."""

    number: int
    shape: tuple[int, ...]


Operand = Constant | Variable


class Step(NamedTuple):
    """``output = rule(*inputs)``, affine."""

    rule: Affine
    params: dict[str, Any]
    inputs: tuple[Operand, ...]
    output: Variable


class Node(NamedTuple):
    """``output = relaxation.fn(input)``, element by element."""

    relaxation: Relaxation
    input: Variable
    output: Variable


@dataclasses.dataclass(frozen=True, eq=False)
class Predicate:
    """Where ``variable`` is positive (``is_above``) or negative, whatever holds at zero."""

    variable: Variable
    is_above: bool


class Graph:
    """Steps and nodes in the order in which they are computed.

    Attributes:
      source: The input.
      items: Steps and nodes.
      maxima: By the number of a result that is the larger of two: these two.
      output: The logits, [1, C].
      dtype: Of its constants: float64, or float32 where nothing is certified.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any = jnp.float64) -> None:
        """Start with the input alone."""
        self._count = 0
        self.dtype = dtype
        self.items: list[Step | Node] = []
        self.maxima: dict[int, tuple[Operand, Operand]] = {}
        self.source = self._new(shape)
        self.output = self.source

    @property
    def nodes(self) -> list[Node]:
        """The activations, in order."""
        return [item for item in self.items if isinstance(item, Node)]

    def _new(self, shape: tuple[int, ...]) -> Variable:
        self._count += 1
        return Variable(self._count - 1, tuple(shape))

    def _widen(self, operand: Operand) -> Operand:
        if isinstance(operand, Variable):
            return operand
        return Constant(as_wide(operand.value, self.dtype))

    def step(self, name: str, inputs: Sequence[Operand], params: Any, shape: Any) -> Variable:
        """Add an affine step and return its result.

        Raises:
          CertificationError: Operands depend on the input that may not.
        """
        rule, wide = AFFINE[name], [self._widen(operand) for operand in inputs]
        moving = [i for i, operand in enumerate(wide) if isinstance(operand, Variable)]
        if set(moving) & set(rule.constants) or (rule.is_product and len(moving) > 1):
            raise CertificationError(
                f"The network's {name} takes more than one operand that depends on its input (a "
                "product of activations, or an index or divisor that moves with the input), for "
                "which no bound is known. Attention, gated units and normalisation by the input's "
                "own statistics are of this kind; a network without them can be certified."
            )
        output = self._new(shape)
        self.items.append(Step(rule, dict(params), tuple(wide), output))
        return output

    def node(self, relaxation: Relaxation, variable: Variable) -> Variable:
        """Add an activation and return its result."""
        output = self._new(variable.shape)
        self.items.append(Node(relaxation, variable, output))
        return output

    def combine(self, scales: Sequence[Any], operands: Sequence[Operand]) -> Variable:
        """Return the sum of operands of one shape, each times a constant."""
        shape = next(o.shape for o in operands if isinstance(o, Variable))
        scaled: list[Operand] = []
        for scale, operand in zip(scales, operands, strict=True):
            if isinstance(operand, Constant):
                value = jnp.broadcast_to(as_wide(operand.value, self.dtype), shape)
                scaled.append(Constant(scale * value))
            elif isinstance(scale, float) and scale == 1.0:
                scaled.append(operand)
            else:
                factor = Constant(jnp.asarray(scale, self.dtype))
                scaled.append(self.step("mul", (operand, factor), {}, shape))
        return self.step("add", scaled, {}, shape)

    def maximum(self, a: Operand, b: Operand) -> Variable:
        """Return the larger of two, element by element; one of them depends on the input."""
        if isinstance(b, Variable) and not isinstance(a, Variable):
            a, b = b, a
        if isinstance(b, Constant) and is_zero(b.value):
            assert isinstance(a, Variable)
            return self.node(RELU, a)
        gap = self.combine((1.0, -1.0), (a, b))
        found = self.combine((1.0, 1.0), (b, self.node(RELU, gap)))
        self.maxima[found.number] = (a, b)
        return found


def is_zero(value: Any) -> bool:
    """Return whether a constant is known to be zero while the network is traced."""
    return not isinstance(value, jax.core.Tracer) and bool(np.all(np.asarray(value) == 0))


def unknown_primitive(name: str) -> CertificationError:
    """Return the error that names a primitive through which bounds do not pass."""
    return CertificationError(
        f"The network applies the primitive {name!r} to what depends on its input, and no bound "
        "of it is known. If it is affine, register it by "
        "bnn_adv.bounds.register_affine; if it acts element by element and rises, by "
        "bnn_adv.bounds.register_activation."
    )
