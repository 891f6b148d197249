"""What of a network is stored in integers, and which of its tensors have one scale: by structure alone.

which ops run in integers        by kind; moves behind the last sum stay in fp32               `Plan.integer`
which tensors share a scale      those that an op keeping its scale connects                   `Plan.shared`
what is counted in each set      the tensors that other ops make; but not what relu alone reads, since the sum
                                 in front of it may be clamped as relu clamps                  `Plan.counted`
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Final

from luthier.graph.attrs import Activation
from luthier.graph.integers import INTEGER_KINDS, MOVES, keeps_scale
from luthier.graph.op import Graph, Op
from luthier.quant.affine import MOST_PRODUCTS

#: what a function's values cannot leave, whatever it is given
KNOWN_RANGES: Final = {"sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


class Plan:
    """What of a folded fp32 graph runs in integers, by structure alone.

    Args:
        keep: names of ops that are to stay in fp32.
    Attributes:
        integer: names of the ops.
        scaled: names of the tensors that get a scale: read by such an op, or made by one that is not a product.
    """

    def __init__(self, graph: Graph, keep: Collection[str] = ()) -> None:
        self.graph = graph
        self.readers = graph.consumers()
        self._maker = {op.outputs[0]: op for op in graph.ops}
        self._possible = {op.name for op in graph.ops if op.kind in INTEGER_KINDS and self._fits(op)}.difference(keep)
        self.integer: set[str] = set()
        for op in reversed(graph.ops):
            if op.name in self._possible and not self._stays_real(op):
                self.integer.add(op.name)
        self.scaled = {name for op in graph.ops if op.name in self.integer for name in op.inputs}
        self.scaled |= {
            op.outputs[0] for op in graph.ops if op.name in self.integer and op.kind not in ("conv", "linear")
        }

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
        return maker is None or maker.kind in ("conv", "linear") or maker.name not in self._possible

    def shared(self) -> list[list[str]]:
        """The scaled tensors, in sets that have one scale each."""
        sets = {name: [name] for name in self.graph.tensors if name in self.scaled}
        for op in self.graph.ops:
            if op.name in self.integer and keeps_scale(op):
                for name in op.inputs:
                    mine, other = sets[op.outputs[0]], sets[name]
                    if mine is not other:
                        mine += other
                        sets.update(dict.fromkeys(other, mine))
        return list({id(members): members for members in sets.values()}.values())

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
