"""Blocks, branches and loops of a function in the making."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luthier.engine.emit.types import I1, I64, Index, Type, Value

Carried = Sequence[Value]
#: (index, values carried from the iteration before) -> values for the next one
Body = Callable[[Index, list[Value]], Sequence[Value] | None]


class Control:
    """Keeps the lines of a function and the block that is being written.

    Attributes:
        lines: of text so far.
        block: label of the block that is being written.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0
        self.block = "entry"

    def raw(self, text: str) -> None:
        """Append one instruction that has no result."""
        self.lines.append(f"  {text}")

    def fresh(self, kind: Type) -> Value:
        """A value that a later line defines."""
        self._count += 1
        return Value(kind, f"%v{self._count}")

    def assign(self, kind: Type, text: str) -> Value:
        """Append one instruction with a result."""
        value = self.fresh(kind)
        self.lines.append(f"  {value.text} = {text}")
        return value

    def index(self, value: Index) -> Value:
        """An index as a value."""
        return Value(I64, str(value)) if isinstance(value, int) else value

    def compare(self, relation: str, a: Index, b: Index) -> Value:
        """Signed or unsigned comparison of integers: eq, ne, slt, sge, ..."""
        left, right = self.index(a), self.index(b)
        assert left.type == right.type, f"compare: {left.type} and {right.type}"
        return self.assign(I1, f"icmp {relation} {left}, {right.text}")

    def both(self, a: Value, b: Value) -> Value:
        """Logical and."""
        assert a.type == b.type == I1
        return self.assign(I1, f"and {a}, {b.text}")

    # ---- blocks

    def label(self, hint: str) -> str:
        """A name for a block."""
        self._count += 1
        return f"{hint}{self._count}"

    def begin(self, label: str) -> None:
        """Start a block; the one before must have ended in a branch."""
        self.lines.append(f"{label}:")
        self.block = label

    def jump(self, label: str) -> None:
        """End the block."""
        self.raw(f"br label %{label}")

    def branch(self, condition: Value, yes: str, no: str, loop: bool = False) -> None:
        """End the block, one way or the other."""
        assert condition.type == I1
        self.raw(f"br {condition}, label %{yes}, label %{no}" + (", !llvm.loop !0" if loop else ""))

    def when(self, condition: Value, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """Run `then` if the condition holds, `otherwise` if not; neither hands values out."""
        yes, end = self.label("then"), self.label("end")
        no = self.label("else") if otherwise else end
        self.branch(condition, yes, no)
        self.begin(yes)
        then()
        self.jump(end)
        if otherwise:
            self.begin(no)
            otherwise()
            self.jump(end)
        self.begin(end)

    def loop(self, low: Index, high: Index, body: Body, carried: Carried = (), step: int = 1) -> list[Value]:
        """for index in range(low, high, step), with values carried from one iteration to the next.

        A loop whose bounds are known is rotated (one branch per iteration), and vanishes if it runs once or never.

        Args:
            body: called once, or not at all; returns as many values as it was given.
        Returns:
            The carried values after the last iteration.
        """
        if isinstance(low, int) and isinstance(high, int):
            if low >= high:
                return list(carried)
            if low + step >= high:
                return self._checked(carried, body(low, list(carried)))
            return self._rotated(low, high, body, carried, step)
        return self._tested(low, high, body, carried, step)

    def spin(self, over: Callable[[Value], Value], wait: Callable[[Value], None]) -> None:
        """Run `wait` until `over` holds; both are told how often it was run before."""
        before, test, again, end = self.block, self.label("test"), self.label("again"), self.label("over")
        self.jump(test)
        self.begin(test)
        count, _, at = self._open_phis(())
        self.branch(over(count), end, again)
        self.begin(again)
        wait(count)
        following = self.assign(I64, f"add nuw nsw {count}, 1")
        self.jump(test)
        self._close_phis(at, (count,), before, (self.index(0),), (following,))
        self.begin(end)

    def _checked(self, carried: Carried, result: Sequence[Value] | None) -> list[Value]:
        values = list(result or ())
        assert [v.type for v in values] == [v.type for v in carried], "a loop must hand on what it carries"
        return values

    def _rotated(self, low: int, high: int, body: Body, carried: Carried, step: int) -> list[Value]:
        before, top, end = self.block, self.label("loop"), self.label("end")
        self.jump(top)
        self.begin(top)
        index, inner, at = self._open_phis(carried)
        values = self._checked(carried, body(index, inner))
        following = self.assign(I64, f"add nuw nsw {index}, {step}")
        self.branch(self.compare("slt", following, high), top, end, loop=True)
        self._close_phis(at, (index, *inner), before, (self.index(low), *carried), (following, *values))
        self.begin(end)
        return values

    def _tested(self, low: Index, high: Index, body: Body, carried: Carried, step: int) -> list[Value]:
        before, top, work, end = self.block, self.label("test"), self.label("loop"), self.label("end")
        self.jump(top)
        self.begin(top)
        index, inner, at = self._open_phis(carried)
        self.branch(self.compare("slt", index, high), work, end)
        self.begin(work)
        values = self._checked(carried, body(index, list(inner)))
        following = self.assign(I64, f"add nuw nsw {index}, {step}")
        self.jump(top)
        self._close_phis(at, (index, *inner), before, (self.index(low), *carried), (following, *values))
        self.begin(end)
        return inner

    def _open_phis(self, carried: Carried) -> tuple[Value, list[Value], int]:
        at = len(self.lines)
        self.lines += [""] * (1 + len(carried))
        return self.fresh(I64), [self.fresh(v.type) for v in carried], at

    def _close_phis(
        self, at: int, phis: Sequence[Value], before: str, first: Sequence[Value], again: Sequence[Value]
    ) -> None:
        for row, (phi, a, b) in enumerate(zip(phis, first, again, strict=True)):
            text = f"phi {phi.type.text} [ {a.text}, %{before} ], [ {b.text}, %{self.block} ]"
            self.lines[at + row] = f"  {phi.text} = {text}"
