"""One IR function in the making: integers, memory, vectors; `control` adds loops and branches."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from luthier.engine.emit.control import Control
from luthier.engine.emit.types import F32, I1, I32, I64, PTR, Index, Type, Value, float_text, vector


class Module:
    """Functions and the intrinsics that they call.

    Attributes:
        lanes: of a vector of fp32.
        narrow: whether pointers have 32 bits: indices, 64 bits for the emitters, are then written so too.
    """

    def __init__(self, lanes: int, triple: str = "", data_layout: str = "", *, narrow: bool = False) -> None:
        self.lanes, self.narrow = lanes, narrow
        self._head = f'target triple = "{triple}"\ntarget datalayout = "{data_layout}"\n' if triple else ""
        self._declared: dict[str, str] = {}
        self._functions: list[Function] = []
        self._data: list[str] = []

    def function(self, name: str, parameters: Sequence[tuple[str, Type]], returns: Type | None = None) -> Function:
        """Begin a function that other code can call by name."""
        self._functions.append(Function(self, name, parameters, returns))
        return self._functions[-1]

    def declare(self, name: str, result: str, arguments: Sequence[Type]) -> None:
        """Make an intrinsic known."""
        self._declared[name] = f"declare {result} @{name}({', '.join(t.text for t in arguments)})"

    def declares(self, name: str) -> bool:
        """Whether an intrinsic was made known."""
        return name in self._declared

    def data(self, name: str, values: bytes, align: int) -> None:
        """Bytes that never change, under a name of this module's own."""
        escaped = np.full((len(values), 3), ord("\\"), np.uint8)
        escaped[:, 1:] = np.frombuffer(values.hex().encode(), np.uint8).reshape(-1, 2)
        text = escaped.tobytes().decode()
        self._data.append(f'@{name} = internal constant [{len(values)} x i8] c"{text}", align {align}')

    def text(self) -> str:
        """The whole module."""
        parts = [*self._declared.values(), *(function.text() for function in self._functions)]
        code = "\n".join(parts) + '\n!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}\n'
        return "\n".join([self._head, *self._data, re.sub(r"\bi64\b", "i32", code) if self.narrow else code])


class Function(Control):
    """Instructions, appended one by one.  Byte offsets everywhere; a Python int is a constant and is folded.

    Attributes:
        vector: the fp32 vector of the module.
        parameters: values by name.
        internal: whether other modules cannot see it.

    Example:
        >>> module = Module(lanes=4)
        >>> f = module.function("twice", [("x", PTR)])
        >>> f.store(f.fadd(f.load(f.vector, f["x"]), f.load(f.vector, f["x"])), f["x"])
        >>> print(module.text().splitlines()[3])
          %v1 = load <4 x float>, ptr %x, align 4
    """

    def __init__(self, module: Module, name: str, parameters: Sequence[tuple[str, Type]], returns: Type | None) -> None:
        super().__init__()
        self.module, self.name, self.returns = module, name, returns
        self.internal = False
        self.vector = vector(F32, module.lanes)
        self.parameters = {label: Value(kind, f"%{label}") for label, kind in parameters}

    def __getitem__(self, name: str) -> Value:
        return self.parameters[name]

    def text(self) -> str:
        """The definition; a function without a result returns at its end."""
        head = ", ".join(f"{v.type.text} {v.text}" for v in self.parameters.values())
        result = self.returns.text if self.returns else "void"
        end = "" if self.returns else "  ret void\n"
        body = "\n".join(self.lines)
        linkage = "internal " if self.internal else ""
        return f"define {linkage}{result} @{self.name}({head}) nounwind {{\nentry:\n{body}\n{end}}}\n"

    def give(self, value: Value) -> None:
        """Return a value; the last instruction of a function with a result."""
        assert value.type == self.returns, f"{self.name} returns {self.returns}, got {value.type}"
        self.raw(f"ret {value}")

    # ---- integers

    def add(self, a: Index, b: Index) -> Index:
        """a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0:
            return b
        return a if b == 0 else self._integer("add", a, b)

    def sub(self, a: Index, b: Index) -> Index:
        """a - b."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self._integer("sub", a, b)

    def mul(self, a: Index, b: Index) -> Index:
        """a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if a == 1:
            return b
        return a if b == 1 else self._integer("mul", a, b)

    def div(self, a: Index, b: int) -> Index:
        """floor(a / b) of a >= 0 and b > 0."""
        if isinstance(a, int):
            return a // b
        return a if b == 1 else self._integer("udiv", a, b)

    def rem(self, a: Index, b: int) -> Index:
        """a mod b of a >= 0 and b > 0."""
        if isinstance(a, int):
            return a % b
        return 0 if b == 1 else self._integer("urem", a, b)

    def min(self, a: Index, b: Index) -> Index:
        """The smaller one, signed."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.select(self.compare("slt", a, b), a, b)

    def max(self, a: Index, b: Index) -> Index:
        """The larger one, signed."""
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.select(self.compare("sgt", a, b), a, b)

    def _integer(self, name: str, a: Index, b: Index) -> Value:
        left, right = self.index(a), self.index(b)
        assert left.type == right.type == I64, f"{name}: {left.type} and {right.type}"
        return self.assign(I64, f"{name} i64 {left.text}, {right.text}")

    def select(self, condition: Value, a: Index, b: Index) -> Value:
        """`a` where the condition holds, else `b`; lane by lane for vectors."""
        left, right = self.index(a), self.index(b)
        assert left.type == right.type, f"select: {left.type} and {right.type}"
        return self.assign(left.type, f"select {condition}, {left}, {right}")

    # ---- memory

    def offset(self, pointer: Value, by: Index) -> Value:
        """`by` bytes further."""
        assert pointer.type == PTR, f"offset: not a pointer, {pointer}"
        if isinstance(by, int) and by == 0:
            return pointer
        return self.assign(PTR, f"getelementptr inbounds i8, {pointer}, {self.index(by)}")

    def load(self, kind: Type, pointer: Value, by: Index = 0, align: int = 4) -> Value:
        """A value of type `kind`, `by` bytes behind a pointer."""
        return self.assign(kind, f"load {kind.text}, {self.offset(pointer, by)}, align {align}")

    def store(self, value: Value, pointer: Value, by: Index = 0, align: int = 4) -> None:
        """Write a value `by` bytes behind a pointer."""
        self.raw(f"store {value}, {self.offset(pointer, by)}, align {align}")

    def prefetch(self, pointer: Value, by: Index = 0, locality: int = 2) -> None:
        """Ask for the cache line `by` bytes behind a pointer; never faults.  locality: 3 = nearest cache."""
        numbers = [Value(I32, str(number)) for number in (0, locality, 1)]
        self.perform("llvm.prefetch.p0", (self.offset(pointer, by), *numbers))

    def opaque(self, pointer: Value) -> Value:
        """The same pointer, of which the compiler knows nothing: loads behind it are not hoisted and spilled."""
        return self.assign(PTR, f'call ptr asm sideeffect "", "=r,0"({pointer})')

    # ---- vectors of fp32

    def constant(self, number: float, kind: Type | None = None) -> Value:
        """One fp32 number in every lane."""
        kind = kind or self.vector
        text = float_text(number)
        return Value(kind, f"splat (float {text})" if kind.lanes > 1 else text)

    def splat(self, scalar: Value, lanes: int | None = None) -> Value:
        """A scalar in every lane."""
        kind = vector(scalar.type, lanes or self.vector.lanes)
        one = self.assign(kind, f"insertelement {kind.text} poison, {scalar}, i32 0")
        mask = f"<{kind.lanes} x i32> zeroinitializer"
        return self.assign(kind, f"shufflevector {one}, {kind.text} poison, {mask}")

    def broadcast(self, pointer: Value, by: Index = 0) -> Value:
        """The fp32 number behind a pointer, in every lane."""
        return self.splat(self.load(F32, pointer, by))

    def call(self, name: str, kind: Type, arguments: Sequence[Value]) -> Value:
        """An intrinsic by its full name."""
        self.module.declare(name, kind.text, [a.type for a in arguments])
        return self.assign(kind, f"call {kind.text} @{name}({', '.join(map(str, arguments))})")

    def perform(self, name: str, arguments: Sequence[Value]) -> None:
        """An intrinsic that has no result, by its full name."""
        self.module.declare(name, "void", [a.type for a in arguments])
        self.raw(f"call void @{name}({', '.join(map(str, arguments))})")

    def _float(self, name: str, a: Value, b: Value) -> Value:
        _same_floats(name, a, b)
        return self.assign(a.type, f"{name} {a}, {b.text}")

    def fadd(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self._float("fadd", a, b)

    def fsub(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self._float("fsub", a, b)

    def fmul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self._float("fmul", a, b)

    def fdiv(self, a: Value, b: Value) -> Value:
        """a / b, correctly rounded."""
        return self._float("fdiv", a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, fused where the target has it."""
        _same_floats("fma", a, b, c)
        suffix = f"v{a.type.lanes}f32" if a.type.lanes > 1 else "f32"
        return self.call(f"llvm.fmuladd.{suffix}", a.type, (a, b, c))

    def at_least(self, x: Value, low: Value) -> Value:
        """max(x, low); NaN where x is NaN."""
        return self.select(self._less(x, low), low, x)

    def at_most(self, x: Value, high: Value) -> Value:
        """min(x, high); NaN where x is NaN."""
        return self.select(self._less(high, x), high, x)

    def is_nan(self, x: Value) -> Value:
        """Lane by lane."""
        return self._compare_floats("uno", x, x)

    def _less(self, a: Value, b: Value) -> Value:
        return self._compare_floats("olt", a, b)

    def _compare_floats(self, relation: str, a: Value, b: Value) -> Value:
        _same_floats("fcmp", a, b)
        kind = vector(I1, a.type.lanes) if a.type.lanes > 1 else I1
        return self.assign(kind, f"fcmp {relation} {a}, {b.text}")


def _same_floats(what: str, first: Value, *others: Value) -> None:
    assert first.type.is_float, f"{what}: {first.type}"
    assert all(other.type == first.type for other in others), f"{what}: {[v.type.text for v in (first, *others)]}"
