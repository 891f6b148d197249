"""The code that runs a whole plan: one thread alone, or several that claim tasks from each other.

Every step is a record of 64-bit words: the kernel's address, its number of tasks, its operands.  Of every step there
are two counters that only grow, over all runs: tasks claimed and done.  In run r a step of n tasks has r n claimed
before it begins and (r + 1) n done when it has ended.  A thread claims a task by compare-and-swap, so a thread that the
system has put to sleep holds up no more than the one task it is in; one that comes late finds nothing left to claim.

A helper lives in `serve`.  Between two runs it spins for a while and then sleeps until the next one is announced: in a
futex on Linux; elsewhere `serve` returns, and the thread sleeps as the system can.  A sleeper counts itself before the
system compares the number of runs with the one it has seen, a caller announces before it looks for sleepers: one of
the two sees the other.  A helper that finds itself on the CPU of the caller (systems put two threads that share data
onto one) steps off it.

Inside a run a thread that waits long for another's task naps (elsewhere than on Linux: offers its CPU to others): the
other one may have lost its CPU to another process, and an idle CPU is what the system moves it to.  Whoever ends the
last task wakes those that are counted in `waiting`.  Naps are short, since only a CPU that falls idle looks for work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

from luthier.engine.emit import I1, I32, I64, PTR, Function, Index, Module, Type, Value
from luthier.engine.target import Target

#: words of a record before the operands
HEAD_WORDS: Final = 2
#: bytes between the counters of two steps; `done` is half-way, in a cache line of its own
COUNTER_BYTES: Final = 256
#: the functions that Python calls
FUNCTIONS: Final = ("run_alone", "run_together", "serve", "stop")
#: pauses inside a run, some 50 microseconds, before a thread leaves its CPU to others
_PATIENCE: Final = 1000
#: CPUs that a mask has room for, as Linux itself
_MOST_CPUS: Final = 8192
_FUTEX_WAIT, _FUTEX_WAKE, _EVERYBODY = 128, 129, (1 << 31) - 1


class Word(IntEnum):
    """What the threads of a plan have in common: offsets in bytes into one block; what changes has its cache lines.

    `runs` were announced; `asleep` counts sleepers between runs, `waiting` those inside one; `cpu` is the caller's.
    `stopped` is not 0 at the end.  `spins` are pauses of 40 to 140 cycles before a helper sleeps, `nap` is the longest
    sleep inside a run.  The others are the plan's table of records, and the system's functions, 0 where there are none:
    `give_way()`, `syscall(futex, ...)`, and those of CPUs and their masks.
    """

    RUNS = 0
    ASLEEP = 128
    WAITING = 256
    CPU = 384
    STOPPED = 512
    SPINS = 520
    TABLE = 528
    RECORD_BYTES = 536
    STEPS = 544
    COUNTERS = 552
    GIVE_WAY = 560
    SYSCALL = 568
    FUTEX = 576
    GET_CPU = 584
    GET_MASK = 592
    SET_MASK = 600
    NAP_S = 608
    NAP_NS = 616
    BYTES = 640


_TEAM: Final = (("team", PTR), ("scratch", PTR))
#: of x86's control word: results flushed to zero, operands taken as zero
_FLUSH: Final = 0x8040


def emit_driver(module: Module, target: Target) -> None:
    """Emit `FUNCTIONS`; all take the block of `Word`, those that run also the thread's scratch."""
    _run_alone(module, target)
    _work(module, target)
    _run_together(module)
    _step_aside(module)
    _serve(module, target)
    _stop(module)


def _word(f: Function, word: Word, kind: Type = I64) -> Value:
    return f.load(kind, f["team"], word, align=8)


def _shared(f: Function, word: Word) -> Value:
    return _load_shared(f, f.offset(f["team"], word))


def _load_shared(f: Function, pointer: Value) -> Value:
    return f.assign(I64, f"load atomic i64, {pointer} seq_cst, align 8")


def _count(f: Function, word: Word, by: int) -> Value:
    """Add to a word; what it was before."""
    return f.assign(I64, f"atomicrmw add {f.offset(f['team'], word)}, i64 {by} seq_cst")


def _pause(f: Function, target: Target) -> None:
    if target.is_x86:
        f.module.declare("llvm.x86.sse2.pause", "void", ())
        f.raw("call void @llvm.x86.sse2.pause()")
    elif target.isa == "neon":  # `yield` takes no time at all on most; this one as long as a pause
        f.module.declare("llvm.aarch64.isb", "void", (I32,))
        f.raw("call void @llvm.aarch64.isb(i32 15)")


def _where_known(f: Function, word: Word, then: Callable[[Value], None]) -> None:
    """Code that calls a function of the system, where there is one."""
    function = _word(f, word, PTR)
    known = f.assign(I1, f"icmp ne {function}, null")
    f.when(known, lambda: then(function))


def _runs(f: Function) -> Value:
    return f.offset(f["team"], Word.RUNS)


def _futex(f: Function, word: Value, what: int, value: Value | int, limit: Value | None = None) -> None:
    """Sleep while the word is what it was, and not longer than the limit; or wake those who do."""

    def call(function: Value) -> None:
        until = "ptr null" if limit is None else str(limit)
        arguments = f"{_word(f, Word.FUTEX)}, {word}, i64 {what}, {f.index(value)}, {until}, ptr null, i64 0"
        f.raw(f"call i64 (i64, ...) {function.text}({arguments})")

    _where_known(f, Word.SYSCALL, call)


# ---- one run


def _kernel(f: Function, record: Value, scratch: Value, task: Index, first: Value) -> None:
    address = f.load(PTR, record, align=8)
    operands = f.offset(record, 8 * HEAD_WORDS)
    f.raw(f"call void {address.text}({operands}, {scratch}, {f.index(task)}, {first})")


def _record(f: Function, step: Index) -> tuple[Value, Value]:
    record = f.offset(_word(f, Word.TABLE, PTR), f.mul(step, _word(f, Word.RECORD_BYTES)))
    return record, f.load(I64, record, 8, align=8)


@contextmanager
def flushing(f: Function, target: Target) -> Iterator[None]:
    """Code in which subnormal numbers are zero, read or written; behind it the thread has its own way again.

    They are below 2^-126, nothing beside what they are added to, and each costs an x86 core some 150 cycles: the gates
    and activations of a network far from zero make whole maps of them.
    """
    if not target.is_x86:
        yield
        return
    own, ours = (f.assign(PTR, "alloca i32, align 4") for _ in range(2))
    for name in ("stmxcsr", "ldmxcsr"):
        f.module.declare(f"llvm.x86.sse.{name}", "void", (PTR,))
    f.raw(f"call void @llvm.x86.sse.stmxcsr({own})")
    f.store(f.assign(I32, f"or {f.load(I32, own, align=4)}, {_FLUSH}"), ours, align=4)
    f.raw(f"call void @llvm.x86.sse.ldmxcsr({ours})")
    yield
    f.raw(f"call void @llvm.x86.sse.ldmxcsr({own})")


def _run_alone(module: Module, target: Target) -> None:
    """void run_alone(team, scratch)"""
    f = module.function("run_alone", _TEAM)

    def step(index: Index, _: object) -> None:
        record, tasks = _record(f, index)

        def task(number: Index, _: object) -> None:
            first = f.assign(I64, f"zext {f.compare('eq', number, 0)} to i64")
            _kernel(f, record, f["scratch"], number, first)

        f.loop(0, tasks, task)

    with flushing(f, target):
        f.loop(0, _word(f, Word.STEPS), step)


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


def _work(module: Module, target: Target) -> None:
    """void work(team, scratch, run): what one thread does of a run"""
    f = module.function("work", (*_TEAM, ("run", I64)))

    def wait(count: Value, done: Value, limit: Value) -> None:
        def nap() -> None:
            _count(f, Word.WAITING, 1)
            seen = _load_shared(f, done)
            nap = f.offset(f["team"], Word.NAP_S)
            f.when(f.compare("slt", seen, limit), lambda: _futex(f, done, _FUTEX_WAIT, seen, nap))
            _count(f, Word.WAITING, -1)

        def give_way() -> None:
            f.raw(f"call void {_word(f, Word.GIVE_WAY, PTR).text}()")

        _pause(f, target)
        can_nap = f.assign(I1, f"icmp ne {_word(f, Word.SYSCALL, PTR)}, null")
        f.when(f.compare("sgt", count, _PATIENCE), lambda: f.when(can_nap, nap, give_way))

    def step(index: Index, _: object) -> None:
        record, tasks = _record(f, index)
        claimed = f.offset(_word(f, Word.COUNTERS, PTR), f.mul(index, COUNTER_BYTES))
        done = f.offset(claimed, COUNTER_BYTES // 2)
        low = f.index(f.mul(tasks, f["run"]))
        limit = f.index(f.add(low, tasks))
        more, work, rest = f.label("more"), f.label("work"), f.label("rest")
        before = f.block
        f.jump(more)
        f.begin(more)
        first, at, worked = f.fresh(I64), len(f.lines), list[str]()
        f.lines.append("")
        task = _claim(f, claimed, low, limit)
        f.branch(f.compare("sge", task, 0), work, rest)
        f.begin(work)
        _kernel(f, record, f["scratch"], task, first)
        before_this = f.assign(I64, f"atomicrmw add {done}, i64 1 seq_cst")
        last = f.compare("eq", f.add(before_this, 1), limit)
        anybody = f.compare("ne", _shared(f, Word.WAITING), 0)
        f.when(f.both(last, anybody), lambda: _futex(f, done, _FUTEX_WAKE, _EVERYBODY))
        worked.append(f.block)
        f.jump(more)
        f.begin(rest)
        f.lines[at] = f"  {first.text} = phi i64 [ 1, %{before} ], [ 0, %{worked[0]} ]"
        f.spin(lambda _: f.compare("sge", _load_shared(f, done), limit), lambda count: wait(count, done, limit))

    with flushing(f, target):
        f.loop(0, _word(f, Word.STEPS), step)


def _run_together(module: Module) -> None:
    """void run_together(team, scratch): announce a run and do it, the caller's part"""
    f = module.function("run_together", _TEAM)

    def note(function: Value) -> None:
        cpu = f.assign(I64, f"sext {f.assign(I32, f'call i32 {function.text}()')} to i64")
        f.raw(f"store atomic {cpu}, {f.offset(f['team'], Word.CPU)} seq_cst, align 8")

    _where_known(f, Word.GET_CPU, note)
    run = _count(f, Word.RUNS, 1)
    f.when(
        f.compare("ne", _shared(f, Word.ASLEEP), 0),
        lambda: _futex(f, _runs(f), _FUTEX_WAKE, _EVERYBODY),
    )
    f.raw(f"call void @work({f['team']}, {f['scratch']}, {run})")


# ---- helpers


def _step_aside(module: Module) -> None:
    """void step_aside(team): leave the caller's CPU, if there is another one that this thread may use

    A mask without that CPU moves the thread at once; the old one after it leaves it free to be anywhere again.
    """
    f = module.function("step_aside", (("team", PTR),))

    def look(get_cpu: Value) -> None:
        mine = f.assign(I64, f"sext {f.assign(I32, f'call i32 {get_cpu.text}()')} to i64")
        same = f.compare("eq", mine, _shared(f, Word.CPU))
        f.when(f.both(same, f.compare("ult", mine, _MOST_CPUS)), lambda: leave(mine))

    def leave(cpu: Value) -> None:
        mask = f.assign(PTR, f"alloca [{_MOST_CPUS // 64} x i64], align 8")
        get_mask, set_mask = _word(f, Word.GET_MASK, PTR), _word(f, Word.SET_MASK, PTR)

        def moved() -> None:
            word = f.offset(mask, f.mul(f.div(cpu, 64), 8))
            bit = f.assign(I64, f"shl i64 1, {f.index(f.rem(cpu, 64)).text}")
            f.raw(f"store {f.assign(I64, f'xor {f.load(I64, word, align=8)}, {bit.text}')}, {word}, align 8")
            call(set_mask)
            f.raw(f"store {f.assign(I64, f'or {f.load(I64, word, align=8)}, {bit.text}')}, {word}, align 8")
            call(set_mask)

        def call(function: Value) -> Value:
            return f.assign(I32, f"call i32 {function.text}(i32 0, i64 {_MOST_CPUS // 8}, {mask})")

        f.when(f.assign(I1, f"icmp eq {call(get_mask)}, 0"), moved)

    _where_known(f, Word.GET_CPU, look)


def _serve(module: Module, target: Target) -> None:
    """i64 serve(team, scratch, seen): help with all runs after the first `seen`; returns how many it has seen

    It returns when the team is stopped, and where there is no futex also when patience ends.
    """
    f = module.function("serve", (*_TEAM, ("seen", I64)), returns=I64)
    top, idle, sleep, work, end = (f.label(name) for name in ("top", "idle", "sleep", "work", "end"))
    before = f.block
    f.jump(top)
    f.begin(top)
    seen, at = f.fresh(I64), len(f.lines)
    f.lines.append("")

    def over(count: Value) -> Value:
        news = f.compare("ne", _shared(f, Word.RUNS), seen)
        return f.assign(I1, f"or {news}, {f.compare('sge', count, _word(f, Word.SPINS)).text}")

    f.spin(over, lambda _: _pause(f, target))
    runs = _shared(f, Word.RUNS)
    stopped = f.compare("ne", _shared(f, Word.STOPPED), 0)
    f.branch(f.compare("eq", runs, seen), idle, work)
    f.begin(idle)
    portable = f.assign(I1, f"icmp eq {_word(f, Word.SYSCALL, PTR)}, null")
    f.branch(portable, end, sleep)
    f.begin(sleep)
    _count(f, Word.ASLEEP, 1)
    _futex(f, _runs(f), _FUTEX_WAIT, seen)
    _count(f, Word.ASLEEP, -1)
    slept = f.block
    f.jump(top)
    f.begin(work)

    def help_() -> None:
        f.raw(f"call void @step_aside({f['team']})")
        f.raw(f"call void @work({f['team']}, {f['scratch']}, {f.index(f.sub(runs, 1))})")

    f.when(f.assign(I1, f"xor {stopped}, true"), help_)
    worked = f.block
    f.branch(stopped, end, top)
    f.begin(end)
    ways = ((f["seen"], before), (seen, slept), (runs, worked))
    f.lines[at] = f"  {seen.text} = phi i64 " + ", ".join(f"[ {value.text}, %{block} ]" for value, block in ways)
    f.give(f.assign(I64, f"phi i64 [ {seen.text}, %{idle} ], [ {runs.text}, %{worked} ]"))


def _stop(module: Module) -> None:
    """void stop(team): let all helpers return from `serve`; no run may be announced after it"""
    f = module.function("stop", (("team", PTR),))
    f.raw(f"store atomic i64 1, {f.offset(f['team'], Word.STOPPED)} seq_cst, align 8")
    _count(f, Word.RUNS, 1)
    _futex(f, _runs(f), _FUTEX_WAKE, _EVERYBODY)
