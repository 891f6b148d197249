"""Threads of plans: right under every disturbance, gone when they should be; with futexes and without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.engine.numbers import graph_with_numbers

from luthier.arch.presets import get
from luthier.engine import Plan, compile, workers
from luthier.engine.plan import load

SRC = Path(__file__).parents[2] / "src"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for CPUs")
Array = np.ndarray


@pytest.fixture(scope="module")
def graph() -> tuple:
    return graph_with_numbers(get("mbconv_thumbnail"))


@pytest.fixture(params=["native", "portable"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to sleep, on one machine."""
    if request.param == "portable":
        words = workers.system_words(portable=True)
        monkeypatch.setattr(workers, "system_words", lambda: words)
    return str(request.param)


@pytest.fixture
def x(graph: tuple) -> Array:
    return np.random.default_rng(0).normal(size=graph[0].tensors["input"].shape).astype(np.float32)


@pytest.fixture
def want(graph: tuple, x: Array) -> Array:
    return compile(*graph)(x)


@pytest.fixture
def spinner() -> Iterator[None]:
    """Another process that takes one CPU for itself."""
    program = "import os\nos.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\nprint(flush=True)\nwhile True: pass"
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    yield
    other.kill()
    other.wait()
    other.stdout.close()


def test_the_portable_words_have_no_linux_in_them() -> None:
    assert set(workers.system_words(portable=True)) == {workers.Word.GIVE_WAY}


@pytest.mark.parametrize("threads", [2, 4, 8, 70])
def test_any_number_of_threads(graph: tuple, x: Array, want: Array, threads: int, system: str) -> None:
    """Sums are made in one order however the tasks are dealt: equal, not close."""
    plan = compile(*graph, threads=threads)
    alone = plan._workers
    for _ in range(8):
        got = plan(x)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(np.abs(want).max()))
    plan.close()
    np.testing.assert_array_equal(plan(x), got)
    assert not alone.close.alive


@LINUX
def test_a_run_ends_while_another_process_spins(graph: tuple, x: Array, system: str, spinner: None) -> None:
    plan = compile(*graph, threads=2)
    want = plan(x)
    for _ in range(300):
        np.testing.assert_array_equal(plan(x), want)
    plan.close()


@LINUX
def test_all_threads_on_one_cpu(graph: tuple, x: Array) -> None:
    """A helper that cannot leave the caller's CPU stays there, with the CPUs that it had."""
    plan = compile(*graph, threads=3)
    want, before = plan(x), os.sched_getaffinity(0)
    while plan._workers.asleep < 2:  # nobody is about to step aside
        time.sleep(0.001)
    try:
        for thread in [0, *(thread.native_id for thread in plan._workers._threads)]:
            os.sched_setaffinity(thread or 0, {min(before)})
        for _ in range(10):
            np.testing.assert_array_equal(plan(x), want)
        assert {frozenset(os.sched_getaffinity(t.native_id or 0)) for t in plan._workers._threads} == {
            frozenset({min(before)})
        }
    finally:
        os.sched_setaffinity(0, before)
    plan.close()


@LINUX
def test_helpers_may_use_the_same_cpus_after_they_stepped_aside(graph: tuple, x: Array) -> None:
    plan, cpus = compile(*graph, threads=2), os.sched_getaffinity(0)
    for _ in range(500):
        plan(x)
    assert os.sched_getaffinity(plan._workers._threads[0].native_id or 0) == cpus
    plan.close()


def test_two_plans_at_once_and_one_closed_while_in_use(graph: tuple, x: Array, system: str) -> None:
    plans = [compile(*graph, threads=2) for _ in range(2)]
    want, wrong = plans[0](x), []

    def work(plan: Plan) -> None:
        for _ in range(100):
            if not np.array_equal(plan(x), want):
                wrong.append(plan)

    threads = [threading.Thread(target=work, args=(plan,)) for plan in plans * 2]
    for thread in threads:
        thread.start()
    plans[0].close()
    plans[0].close()
    for thread in threads:
        thread.join()
    plans[1].close()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_runs_alone_and_disturbs_nobody(graph: tuple, x: Array, want: Array) -> None:
    plan = compile(*graph, threads=2)
    want = plan(x)
    with plan._lock:  # as if another thread were in the middle of a run
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            right = all(np.array_equal(plan(x), want) for _ in range(50)) and not np.array_equal(plan(2 * x), want)
            os._exit(0 if right else 1)
    for _ in range(50):  # memory is not shared with the child
        np.testing.assert_array_equal(plan(x), want)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    plan.close()


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.parametrize("portable", [False, True])
def test_ctrl_c_and_exit_with_sleepers(graph: tuple, tmp_path: Path, portable: bool) -> None:
    """A process that is interrupted again and again counts right afterwards, and ends without a word."""
    compile(*graph, threads=2).save(tmp_path / "p.plan")
    program = f"""
import os, signal, sys, time
import numpy as np
from pathlib import Path
from luthier.engine import load, workers
words = workers.system_words(portable={portable})
workers.system_words = lambda: words
plan = load(Path(sys.argv[1]))
x = np.random.default_rng(0).normal(size=plan.inputs[0].shape).astype(np.float32)
want, interrupted = plan(x), 0
signal.signal(signal.SIGALRM, signal.default_int_handler)
for i in range(40):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.0001 * (i % 7))
        while True:
            plan(x)
    except KeyboardInterrupt:
        interrupted += 1
    assert np.array_equal(plan(x), want)
assert interrupted == 40
time.sleep(0.01)
other = load(Path(sys.argv[1]))
print("done")
"""
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "p.plan")], env=env, timeout=120, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_loaded_plan_helps_itself(graph: tuple, x: Array, tmp_path: Path) -> None:
    plan = compile(*graph, threads=2)
    plan.save(tmp_path / "p.plan")
    again = load(tmp_path / "p.plan")
    assert len(again._workers._threads) == 1
    np.testing.assert_array_equal(again(x), plan(x))
