"""What every kernel is: a frozen description that emits one function.

    void kernel(ptr operands, ptr scratch, i64 task, i64 first)                                       (1)

`operands` is an array of pointers, in the order of the kernel's `operands`.  A kernel cuts its work into `tasks` that
are independent of each other; threads run them in any order.  `scratch` belongs to the thread, and `first` is 1 in the
first task of a step that a thread runs, for work that is done once per thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy

from luthier.engine.emit import F32, I1, I64, PTR, Function, Index, Module, Value, vector
from luthier.engine.kernels.element import FP32, Element
from luthier.engine.target import Target
from luthier.schedule import AUTO, WHOLE, Choice, Tile


class Body:
    """The function of one kernel in the making: its operands, and what its code is made for.

    Attributes:
        f: the function.
        target: the CPU.
        scratch, task, first: the arguments of equation (1).
    """

    def __init__(self, module: Module, target: Target, name: str, operands: tuple[str, ...]) -> None:
        self.f: Function = module.function(name, [("operands", PTR), ("scratch", PTR), ("task", I64), ("first", I64)])
        self.target = target
        self.scratch, self.task, self.first = self.f["scratch"], self.f["task"], self.f["first"]
        self._pointers = {
            operand: self.f.load(PTR, self.f["operands"], 8 * index, align=8) for index, operand in enumerate(operands)
        }

    def within(self, scratch: Value, **pointers: Value) -> Body:
        """The same function, for a part of a kernel that has other operands and its own place in the scratch."""
        inner = copy(self)
        inner.scratch, inner._pointers = scratch, {**self._pointers, **pointers}
        return inner

    def __getitem__(self, operand: str) -> Value:
        return self._pointers[operand]

    def at(self, operand: str | Value, *terms: tuple[Index, int]) -> Value:
        """A pointer moved by the sum of index * stride bytes."""
        pointer = self[operand] if isinstance(operand, str) else operand
        total: Index = 0
        for index, stride in terms:
            total = self.f.add(total, self.f.mul(index, stride))
        return self.f.offset(pointer, total)

    def width(self, element: Element) -> int:
        """Bytes of a vector's numbers in memory."""
        return self.target.lanes * element.bytes

    def load(self, pointer: Value, by: Index = 0, element: Element = FP32) -> Value:
        """A vector of fp32 from numbers that lie on a whole vector's address."""
        return element.load(self.f, self.f.vector, pointer, by, self.width(element))

    def store(self, value: Value, pointer: Value, by: Index = 0, element: Element = FP32) -> None:
        """Write a vector of fp32 to a whole vector's address."""
        element.store(self.f, self.target, value, pointer, by, self.width(element))

    def broadcast(self, pointer: Value, by: Index = 0, element: Element = FP32) -> Value:
        """One number in every lane of a vector of fp32."""
        return self.f.splat(element.load(self.f, F32, pointer, by, element.bytes))

    def first_lanes(self, count: int) -> Value:
        """A mask of a vector's first lanes."""
        lanes = self.target.lanes
        return Value(vector(I1, lanes), f"<{', '.join(f'i1 {int(lane < count)}' for lane in range(lanes))}>")


class Kernel(ABC):
    """One kind of work on fixed shapes.  Subclasses are frozen dataclasses: equal kernels share their code.

    Attributes:
        operands: roles of the pointers, in order.
        tasks: independent parts, at least 1.
        scratch_bytes: that each thread needs.
    """

    operands: tuple[str, ...]
    scratch_bytes: int = 0

    @property
    @abstractmethod
    def tasks(self) -> int: ...

    @property
    @abstractmethod
    def title(self) -> str:
        """`<dtype>_<op>[_<activation>]_<tile>`; the instruction set is added to it."""

    @property
    def tile(self) -> Tile:
        """Rows and channels that it goes through at a time, where it has such a choice."""
        return WHOLE

    @property
    def choice(self) -> Choice:
        """All else that could be chosen otherwise; the kernel's function makes this kernel of it again."""
        return AUTO

    @abstractmethod
    def emit(self, body: Body) -> None:
        """Write the code of one task."""
