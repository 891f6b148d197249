"""The code that runs a whole plan: one thread alone, or several that claim tasks from each other.

Every step is a record of 64-bit words: the kernel's address, its number of tasks, its operands.  Of every step there
are two counters that only grow, over all runs: tasks claimed and done.  In run r a step of n tasks has r n claimed
before it begins and (r + 1) n done when it has ended.  A thread claims a task by compare-and-swap, so a thread that the
system has put to sleep holds up no more than the one task it is in; one that comes late finds nothing left to claim.
"""

from __future__ import annotations

from typing import Final

from luthier.engine.emit import I1, I32, I64, PTR, Function, Index, Module, Value
from luthier.engine.target import Target

#: words of a record before the operands
HEAD_WORDS: Final = 2
#: bytes between the counters of two steps; `done` is half-way, in a cache line of its own
COUNTER_BYTES: Final = 256
#: waits after which the processor is offered to others
_PATIENCE: Final = 256

_PARAMETERS: Final = (
    ("table", PTR), ("record_bytes", I64), ("steps", I64), ("counters", PTR), ("scratch", PTR),
)  # fmt: skip


def emit_driver(module: Module, target: Target) -> None:
    """Emit `run_alone`, `run_together`, `announce` and `await_run`."""
    _run_alone(module)
    _run_together(module, target)
    _announce(module)
    _await_run(module, target)


def _kernel(f: Function, record: Value, scratch: Value, task: Index, first: Value) -> None:
    address = f.load(PTR, record, align=8)
    operands = f.offset(record, 8 * HEAD_WORDS)
    f.raw(f"call void {address.text}({operands}, {scratch}, {f.index(task)}, {first})")


def _record(f: Function, step: Index) -> tuple[Value, Value]:
    record = f.offset(f["table"], f.mul(step, f["record_bytes"]))
    return record, f.load(I64, record, 8, align=8)


def _run_alone(module: Module) -> None:
    """void run_alone(table, record_bytes, steps, counters, scratch)"""
    f = module.function("run_alone", _PARAMETERS)

    def step(index: Index, _: object) -> None:
        record, tasks = _record(f, index)

        def task(number: Index, _: object) -> None:
            first = f.assign(I64, f"zext {f.compare('eq', number, 0)} to i64")
            _kernel(f, record, f["scratch"], number, first)

        f.loop(0, tasks, task)

    f.loop(0, f["steps"], step)


def _pause(f: Function, target: Target) -> None:
    if target.is_x86:
        f.module.declare("llvm.x86.sse2.pause", "void", ())
        f.raw("call void @llvm.x86.sse2.pause()")
    else:
        f.module.declare("llvm.aarch64.hint", "void", (I32,))
        f.raw("call void @llvm.aarch64.hint(i32 1)")


def _load_shared(f: Function, pointer: Value) -> Value:
    return f.assign(I64, f"load atomic i64, {pointer} acquire, align 8")


def _claim(f: Function, counter: Value, low: Value, limit: Value) -> Value:
    """The number of a task that nobody else has, or -1."""
    look, grab, end = f.label("look"), f.label("grab"), f.label("claimed")
    f.jump(look)
    f.begin(look)
    current = _load_shared(f, counter)
    f.branch(f.compare("slt", current, limit), grab, end)
    f.begin(grab)
    following = f.index(f.add(current, 1))
    pair = f.fresh(PTR)
    f.raw(f"{pair.text} = cmpxchg {counter}, {current}, {following} acq_rel monotonic")
    won = f.fresh(I1)
    f.raw(f"{won.text} = extractvalue {{i64, i1}} {pair.text}, 1")
    task = f.index(f.sub(current, low))
    f.branch(won, end, look)
    f.begin(end)
    return f.assign(I64, f"phi i64 [ -1, %{look} ], [ {task.text}, %{grab} ]")


def _run_together(module: Module, target: Target) -> None:
    """void run_together(table, record_bytes, steps, counters, scratch, run, yield)"""
    f = module.function("run_together", (*_PARAMETERS, ("run", I64), ("give_way", PTR)))

    def step(index: Index, _: object) -> None:
        record, tasks = _record(f, index)
        claimed = f.offset(f["counters"], f.mul(index, COUNTER_BYTES))
        done = f.offset(claimed, COUNTER_BYTES // 2)
        low = f.index(f.mul(tasks, f["run"]))
        limit = f.index(f.add(low, tasks))
        more, work, rest = f.label("more"), f.label("work"), f.label("rest")
        before = f.block
        f.jump(more)
        f.begin(more)
        first = f.fresh(I64)
        f.lines.append(f"  {first.text} = phi i64 [ 1, %{before} ], [ 0, %{work} ]")
        task = _claim(f, claimed, low, limit)
        f.branch(f.compare("sge", task, 0), work, rest)
        f.begin(work)
        _kernel(f, record, f["scratch"], task, first)
        f.assign(I64, f"atomicrmw add {done}, i64 1 acq_rel")
        f.jump(more)
        f.begin(rest)

        def wait(count: Value) -> None:
            _pause(f, target)
            late = f.compare("sgt", count, _PATIENCE)
            f.when(late, lambda: f.raw(f"call void {f['give_way'].text}()"))

        f.spin(lambda _: f.compare("sge", _load_shared(f, done), limit), wait)

    f.loop(0, f["steps"], step)


def _announce(module: Module) -> None:
    """i64 announce(runs): one more run; its number, from 0."""
    f = module.function("announce", (("runs", PTR),), returns=I64)
    f.give(f.assign(I64, f"atomicrmw add {f['runs']}, i64 1 seq_cst"))


def _await_run(module: Module, target: Target) -> None:
    """i64 await_run(runs, seen, spins): the number of runs announced, as soon as it is not `seen` or patience ends."""
    f = module.function("await_run", (("runs", PTR), ("seen", I64), ("spins", I64)), returns=I64)

    def over(count: Value) -> Value:
        news = f.compare("ne", _load_shared(f, f["runs"]), f["seen"])
        return f.assign(I1, f"or {news}, {f.compare('sge', count, f['spins']).text}")

    f.spin(over, lambda _: _pause(f, target))
    f.give(_load_shared(f, f["runs"]))
