"""Steps that move numbers and compute nothing: padding, slices, shuffles, concatenation, other shapes."""

from __future__ import annotations

from dataclasses import replace

from luthier.engine.kernels.element import FP32, Types
from luthier.engine.kernels.elementwise import elementwise
from luthier.engine.layout import Layout
from luthier.engine.steps import Place, Steps
from luthier.graph.attrs import Slice
from luthier.graph.op import Op


class Moves(Steps):
    """Lowers these ops, one method each."""

    def _zeroed(self, op: Op) -> Place:
        y = self._new(op.outputs[0])
        kernel = elementwise(
            self.target, "zero", y.layout.shape, least_tasks=self.least_tasks, types=Types(FP32, FP32, y.element)
        )
        self._step(kernel, {"y": y.ref}, (op,))
        return y

    def _pad(self, op: Op, before: int, top: int, left: int) -> None:
        x, y = self._padded(op.inputs[0]), self._zeroed(op)
        _, _, down, right = y.layout.strides
        inside = before == 0 and x.layout.strides[3] == right  # else lanes behind C would be copied over zeros
        self._copy(x, y, x.layout.shape, (op,), start=before + top * down + left * right, gaps=inside)

    def _slice(self, op: Op, attrs: Slice) -> None:
        x, y = self._padded(op.inputs[0]), self._new(op.outputs[0])
        first = attrs.start * x.layout.strides[attrs.axis]
        self._copy(x, y, y.layout.shape, (op,), first=first, gaps=first % self.target.lanes == 0)

    def _shuffle(self, op: Op, groups: int) -> None:
        x, y = self._padded(op.inputs[0]), self._new(op.outputs[0])
        n, c, h, w = x.layout.shape
        (a, _, b, d), each = y.layout.strides, c // groups
        spaced = replace(y, layout=Layout(y.layout.shape, (a, groups, b, d)))
        for group in range(groups):
            self._copy(x, spaced, (n, each, h, w), (op,), start=group, first=group * each, gaps=False)

    def _concat(self, op: Op, axis: int) -> None:
        sources = [self._padded(name) for name in op.inputs]
        y, start = self._new(op.outputs[0]), 0
        for x in sources:
            self._copy(x, y, x.layout.shape, (op,), start=start)
            start += x.layout.shape[axis] * y.layout.strides[axis]

    def _reshape(self, op: Op) -> None:
        """A map of one pixel is a list of channels already; else by way of the order in which NCHW counts."""
        x, name = self._padded(op.inputs[0]), op.outputs[0]
        shape = self._shape(name)
        if x.layout.shape == shape:
            self.places[name] = x
            return
        dense = self._buffer(f"{name}/dense", Layout.nchw(x.layout.shape), x.element)
        self._copy(x, dense, x.layout.shape, (op,))
        again = replace(dense, layout=Layout.nchw(shape))
        self._copy(again, self._new(name), shape, (op,))
