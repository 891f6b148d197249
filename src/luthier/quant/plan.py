"""What of a network is stored in integers, and which of its tensors have one scale, by structure and number types.

how a tensor is stored           as the narrowest type that a reader asks for (`quant.numbers`)       `Plan.stored`
which ops run in integers        by kind; moves behind the last sum stay in fp32                      `Plan.integer`
what is never stored             the argument of a function that is computed from the sum in front    `from_sums`
which tensors share a scale      those that an op keeping its scale connects                          `Plan.shared`
what is counted in each set      the tensors that other ops make; but not what relu alone reads, since
                                 the sum in front of it may be clamped as relu clamps                 `Plan.counted`
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Final

from luthier.arch.block import NumberType
from luthier.graph.attrs import Activation, GraphFunction
from luthier.graph.integers import INTEGER_KINDS, INTEGER_TYPES, MOVES, keeps_scale, scale_sets
from luthier.graph.op import Graph, Op
from luthier.quant.affine import MOST_PRODUCTS
from luthier.quant.numbers import W8A8, Numbers, by_op, integers_only, narrowest

#: what a function's values cannot leave, whatever it is given
KNOWN_RANGES: Final = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
#: functions that are computed from a 32-bit sum without rounding it to integers first; the others look it up by 8 bits
FROM_SUMS: Final[frozenset[GraphFunction]] = frozenset({"hard_swish"})


class Plan:
    """What of a folded fp32 graph runs in integers, by structure and number types alone.

    Args:
        keep: names of ops that are to stay in fp32.
        numbers: see `luthier.quant.numbers`.
        from_sums: functions whose argument is not stored where a product makes it for them alone.
    Attributes:
        numbers: by op.
        integer: names of the ops.
        stored: how every tensor is stored; integers have a scale, also where they are handed out as fp32.
        scaled: names of the tensors that get one: read by such an op, or made by one that is not a product.
    """

    def __init__(
        self, graph: Graph, keep: Collection[str] = (), numbers: Numbers = W8A8,
        from_sums: Collection[GraphFunction] = FROM_SUMS,
    ) -> None:  # fmt: skip
        self.graph, self.from_sums = graph, from_sums
        self.numbers = by_op(graph, numbers, keep)
        self.readers = graph.consumers()
        self._maker = {op.outputs[0]: op for op in graph.ops}
        self._possible = {
            op.name
            for op in graph.ops
            if op.kind in INTEGER_KINDS and self._fits(op) and integers_only(op, self.numbers[op.name])
        }
        self.integer: set[str] = set()
        self.stored: dict[str, NumberType] = {}
        asked: dict[str, list[NumberType]] = {name: [] for name in graph.tensors}
        for op in reversed(graph.ops):
            out = op.outputs[0]
            if self._in_integers(op, asked[out]):
                self.integer.add(op.name)
            made: NumberType = "int8" if op.name in self.integer and not is_product(op) else "fp32"
            self.stored[out] = narrowest(asked[out] or [made])
            if out in graph.outputs and self.stored[out] not in INTEGER_TYPES:
                self.stored[out] = "fp32"
            if (wanted := self._asks(op)) is not None:
                for name in op.inputs:
                    asked[name].append(wanted)
        for name in graph.inputs:
            wanted = narrowest(asked[name])
            self.stored[name] = "int8" if wanted == "int4" else wanted
        self.scaled = {name for name, kind in self.stored.items() if kind in INTEGER_TYPES}
        # who asked for more but is given integers throughout computes with them
        self.integer |= {op.name for op in graph.ops if self._given_integers(op)}
        for members in self.shared():
            least = narrowest(self.stored[name] for name in members)
            images = not set(members).isdisjoint(graph.inputs)
            self.stored.update(dict.fromkeys(members, "int8" if images else least))

    def _in_integers(self, op: Op, asked: Collection[NumberType]) -> bool:
        if op.name not in self._possible or self._stays_real(op) or self.from_sum(op):
            return False
        return is_product(op) or not asked or narrowest(asked) in INTEGER_TYPES

    def _asks(self, op: Op) -> NumberType | None:
        """The type in which an op wants what it reads; None = whatever there is."""
        wanted = self.numbers[op.name].activation
        if op.name in self.integer or wanted not in INTEGER_TYPES:
            return wanted
        if op.name not in self._possible or self._stays_real(op) or self.from_sum(op):
            return None
        # it writes real numbers, and so one that combines none reads such
        return self.stored[op.outputs[0]] if op.kind == "activation" or op.kind in MOVES else wanted

    def _given_integers(self, op: Op) -> bool:
        if op.kind not in INTEGER_KINDS or not self.scaled.issuperset(op.inputs):
            return False
        if is_product(op):
            return self.numbers[op.name].weight in INTEGER_TYPES and self._fits(op)
        return op.outputs[0] in self.scaled

    def from_sum(self, op: Op) -> bool:
        """Whether an activation is computed from the sum of the product in front of it, which nobody else reads."""
        if not isinstance(op.attrs, Activation) or op.attrs.function not in self.from_sums:
            return False
        source = op.inputs[0]
        alone = len(self.readers[source]) == 1 and source not in self.graph.outputs
        return alone and source in self._maker and is_product(self._maker[source])

    def quantised(self, op: Op) -> bool:
        """Whether the weights of a product are stored in its number type: not where integers could overflow."""
        return op.name in self.integer or self.numbers[op.name].activation not in INTEGER_TYPES

    def _fits(self, op: Op) -> bool:
        """Whether a sum cannot overflow 32 bits."""
        shapes = self.graph.constant_shapes(op)
        return "weight" not in shapes or prod(shapes["weight"][1:]) <= MOST_PRODUCTS

    def _stays_real(self, op: Op) -> bool:
        """A move of sums that no op in integers reads: nothing is gained by rounding them."""
        if op.kind not in MOVES or any(r.name in self.integer for r in self.readers[op.outputs[0]]):
            return False
        return all(self._is_sum(name) for name in op.inputs)

    def _is_sum(self, tensor: str) -> bool:
        maker = self._maker.get(tensor)
        if maker is not None and maker.kind in MOVES:
            return all(self._is_sum(name) for name in maker.inputs)
        return maker is None or is_product(maker) or maker.name not in self._possible

    def shared(self) -> list[list[str]]:
        """The scaled tensors, in sets that have one scale each."""
        ops = (op for op in self.graph.ops if op.name in self.integer)
        return scale_sets(ops, (name for name in self.graph.tensors if name in self.scaled))

    def counted(self, tensor: str) -> bool:
        """Whether the values of a tensor say what its set must cover."""
        maker = self._maker.get(tensor)
        if maker is not None and maker.name in self.integer and keeps_scale(maker):
            return _clips(maker) and self.clipped(maker.inputs[0]) and not self.clipped(tensor)
        return not self.clipped(tensor)

    def clipped(self, tensor: str) -> bool:
        """Whether relu or relu6 alone reads a tensor."""
        readers = self.readers[tensor]
        return tensor not in self.graph.outputs and len(readers) == 1 and _clips(readers[0])

    def function_op(self, tensor: str) -> Op | None:
        """The activation that alone reads a tensor and does not keep its scale."""
        readers = self.readers[tensor]
        if tensor in self.graph.outputs or len(readers) != 1 or keeps_scale(readers[0]):
            return None
        return readers[0] if readers[0].kind == "activation" else None

    def known_range(self, tensor: str) -> tuple[float, float] | None:
        """What the function that makes a tensor cannot leave."""
        maker = self._maker.get(tensor)
        if maker is not None and maker.kind == "softmax":
            return 0.0, 1.0
        attrs = maker.attrs if maker is not None else None
        return KNOWN_RANGES.get(attrs.function) if isinstance(attrs, Activation) else None


def _clips(op: Op) -> bool:
    return isinstance(op.attrs, Activation) and op.attrs.function in ("relu", "relu6")


def is_product(op: Op) -> bool:
    """Whether an op sums products with weights: a convolution or a linear layer."""
    return op.kind in ("conv", "linear")
