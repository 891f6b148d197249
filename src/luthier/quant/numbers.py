"""Which number types an op computes with: a weight type and an activation type for every op of a graph.

    fp32  fp16  bf16             weights and activations alike
    W8A8  W4A8  W4A4             integers on both sides
    W8A16 W4A16                  integer weights, fp16 activations

An op's activation type is that of the tensors it reads.  A tensor is stored once, in the narrowest type that one of its
readers asks for; who asks for more reads those numbers.  Images enter with 8 bits at least, and what the network hands
out is fp32.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from luthier.arch.block import BITS, NumberType, Precision
from luthier.errors import InputError, SpecError
from luthier.graph.integers import INTEGER_TYPES
from luthier.graph.op import Graph, Op

#: what can be asked for by name
OFFERED: Final[dict[str, Precision]] = {
    name: Precision.parse(name) for name in ("fp32", "bf16", "fp16", "W8A8", "W8A16", "W4A8", "W4A16", "W4A4")
}
FP32: Final = OFFERED["fp32"]
W8A8: Final = OFFERED["W8A8"]
#: for all ops, or by the name of the op; those that are not named are W8A8
Numbers = Precision | Mapping[str, Precision]


def parse_numbers(text: str) -> Precision:
    """Read the name of number types, in capitals or not.

    Raises:
        InputError: no such types are offered.
    Example:
        >>> parse_numbers("w4a8")
        Precision(weight='int4', activation='int8')
    """
    for name, precision in OFFERED.items():
        if text.lower() == name.lower():
            return precision
    raise InputError(f"numbers {text!r}: must be one of {', '.join(OFFERED)}")


def name_of(precision: Precision) -> str:
    """The name under which number types are offered; others by their weight and activation type.

    Example:
        >>> name_of(W8A8), name_of(Precision(weight="int8", activation="fp16"))
        ('W8A8', 'W8A16')
    """
    names = (name for name, offered in OFFERED.items() if offered == precision)
    return next(names, f"{precision.weight}/{precision.activation}")


def by_op(graph: Graph, numbers: Numbers = W8A8, keep: Collection[str] = ()) -> dict[str, Precision]:
    """The number types of every op.

    Args:
        keep: names of ops that stay in fp32, whatever `numbers` says.
    Raises:
        SpecError: a name that is no op of the graph.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> graph = build.graph(build.conv("b", "b", build.conv("a", "a", build.input("x", (1, 3, 8, 8)), 4), 4))
        >>> {op: name_of(types) for op, types in by_op(graph, {"b": OFFERED["W4A8"]}, keep=["a"]).items()}
        {'a': 'fp32', 'b': 'W4A8'}
    """
    own = {} if isinstance(numbers, Precision) else numbers
    known = {op.name for op in graph.ops}
    for who, names in (("keep", keep), ("numbers", own)):
        unknown = sorted(set(names) - known)
        if unknown:
            raise SpecError(f"quantize: {who} names {unknown[0]!r}, which is no op of the folded graph")
    rest = numbers if isinstance(numbers, Precision) else W8A8
    found = {op.name: own.get(op.name, rest) for op in graph.ops}
    return found | dict.fromkeys(keep, FP32)


def integers_only(op: Op, precision: Precision) -> bool:
    """Whether all that an op multiplies would be integers."""
    types = {precision.activation}
    if op.kind in ("conv", "linear"):
        types.add(precision.weight)
    return types <= INTEGER_TYPES


def narrowest(types: Iterable[NumberType]) -> NumberType:
    """The type of fewest bits; of two, fp16 before bf16.

    Example:
        >>> narrowest(["fp32", "int8", "fp16"]), narrowest(["bf16", "fp16"]), narrowest([])
        ('int8', 'fp16', 'fp32')
    """
    return min(types, key=lambda kind: (BITS[kind], kind != "fp16"), default="fp32")
