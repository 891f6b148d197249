"""The contest itself, on one small network: conformance of every installed run time, and what happens to bad ones."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.deploy.peers import NAMES, get
from luthier.deploy.peers.contest import LIMITS, Entry, Problem, contest, pose
from luthier.deploy.peers.engine import Engine
from luthier.deploy.peers.peer import DTYPES
from luthier.deploy.precision import DType
from luthier.deploy.results import Contender, Contest
from luthier.errors import InputError, PeerError
from luthier.graph import Graph, fold_norm_into_conv, from_network
from luthier.graph.builder import Builder
from luthier.graph.untrained import random_weights

pytestmark = pytest.mark.xdist_group("peers")
#: distribution -> module
MODULES = {"ai-edge-litert": "ai_edge_litert", "ai-edge-quantizer": "ai_edge_quantizer"}
FAST = ("luthier", "onnxruntime")


def small() -> Graph:
    blocks = (
        Block(kind="mbconv", out_channels=16, kernel_size=3, stride=2, expand_ratio=4, activation="silu",
              attention=Attention(kind="se")),
        Block(kind="mbconv", out_channels=16, kernel_size=5, expand_ratio=4, activation="hard_swish"),
    )  # fmt: skip
    stages = (
        Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),)),
        Stage(name="body", blocks=blocks),
    )
    network = Network(name="small", stages=stages, head=Head(num_classes=7), resolution=32, padding="tf_same")
    return fold_norm_into_conv(from_network(network))


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    graph = small()
    return pose("small", "random", graph, random_weights(graph), tmp_path_factory.mktemp("contest"))


def entries(names: tuple[str, ...] = FAST, **pythons: str) -> list[Entry]:
    return [Entry.parse(name, "fp32", pythons) for name in names]


def installed(name: str) -> bool:
    return name == "luthier" or all(util.find_spec(MODULES.get(one, one)) for one in get(name).packages)


def play(problem: Problem, entered: list[Entry], rounds: int = 0, **options: Any) -> Contest:
    return contest(problem, entered, dtype="fp32", threads=1, rounds=rounds, **options)


@pytest.fixture(scope="module")
def everyone(problem: Problem) -> Contest:
    """All installed run times but torch, two turns each."""
    names = tuple(name for name in ("luthier", *NAMES) if installed(name) and name != "torch")
    return play(problem, entries(names), rounds=2)


@pytest.fixture(scope="module")
def torch_alone(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    """torch on a network of three ops: its compiler takes seconds for each."""
    build = Builder()
    x = build.conv("c", "c", build.input("x", (1, 3, 8, 8)), 16, kernel_size=1)
    graph = build.graph(build.activation("a", x, "silu"))
    folder = tmp_path_factory.mktemp("torch")
    return play(pose("tiny", "random", graph, random_weights(graph), folder), entries(("luthier", "torch")), rounds=2)


class TestConformance:
    """What every run time must do to take part."""

    @pytest.fixture(params=["luthier", *NAMES])
    def contender(self, request: pytest.FixtureRequest) -> Contender:
        if not installed(request.param):
            pytest.skip(f"{get(request.param).title} is not installed")
        found: Contest = request.getfixturevalue("torch_alone" if request.param == "torch" else "everyone")
        assert request.param not in found.absent, found.absent
        return next(one for one in found.contenders if one.name == request.param)

    def test_it_computes_the_network(self, contender: Contender) -> None:
        assert contender.agrees
        assert 0 < contender.max_rel_error <= 1e-5

    def test_it_is_timed_in_every_round(self, contender: Contender) -> None:
        assert len(contender.rounds_s) == 2
        assert contender.calls >= 10
        assert contender.median_s is not None
        assert min(contender.rounds_s) <= contender.median_s <= max(contender.rounds_s)

    def test_memory_and_load_are_measured(self, contender: Contender) -> None:
        assert 0 < contender.peak_rss_bytes < 2 << 30
        assert contender.load_s > 0

    def test_it_says_what_it_is(self, contender: Contender) -> None:
        assert any(character.isdigit() for character in contender.title)


@pytest.mark.parametrize("name", NAMES)
def test_a_number_type_that_a_run_time_lacks_is_refused_before_its_process_starts(name: str, problem: Problem) -> None:
    for dtype in set(DTYPES) - set(get(name).dtypes):
        entry = replace(Entry.parse("luthier", "fp32", {}), peer=get(name), dtype=dtype, name=name)
        assert f"not {dtype}" in play(problem, [*entries(("luthier",)), entry]).absent[name]


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_our_own_reduced_number_types(dtype: DType, problem: Problem) -> None:
    found = contest(problem, [Entry.parse("luthier", dtype, {})], dtype=dtype, threads=1, rounds=0)
    assert found.ours.agrees
    assert 1e-4 < found.ours.max_rel_error < 0.3


@pytest.mark.parametrize("text", ["onnxruntime:int8", "openvino:int8", "openvino:bf16", "litert:int8", "ncnn:bf16"])
def test_reduced_number_types(text: str, problem: Problem) -> None:
    name = text.partition(":")[0]
    if not installed(name):
        pytest.skip(f"{get(name).title} is not installed")
    found = play(problem, entries(("luthier", text)))
    assert found.absent == {}
    other = found.contenders[1]
    assert other.agrees
    # 8 bits and 2^-9 of rounding: not exact, and not fp32 under another name
    assert 1e-4 < other.max_rel_error < 0.2


def test_we_are_first_and_the_best_peer_is_the_fastest(everyone: Contest) -> None:
    assert everyone.ours.name == "luthier"
    best = everyone.best_peer
    assert best is not None
    assert best.median_s == min(one.median_s or 9 for one in everyone.contenders[1:])
    assert everyone.peak_flop_per_s > 1e8
    assert everyone.ours.floor_share == pytest.approx((everyone.floor_s or 0) / (everyone.ours.median_s or 1))


def test_a_wrong_engine_is_named_and_not_ranked(problem: Problem) -> None:
    other = problem.truth.copy()
    other[1, 3] += 2e-3 * np.abs(other).max()  # one number of the second input
    found = play(replace(problem, truth=other), entries(), rounds=1)
    assert [one.agrees for one in found.contenders] == [False, False]
    assert found.best_peer is None
    assert found.ratio_to_best_peer is None


def test_nan_is_wrong(problem: Problem) -> None:
    found = play(replace(problem, truth=np.full_like(problem.truth, np.nan)), entries())
    assert not any(one.agrees for one in found.contenders)


def test_random_numbers_are_wrong_in_every_number_type() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        a, b = generator.standard_normal((2, 10))
        assert np.abs(a - b).max() / np.abs(b).max() > max(LIMITS.values())


@pytest.fixture
def python_without(tmp_path: Path) -> Any:
    """An interpreter that lacks a module."""

    def make(module: str, then: str = "") -> str:
        script = tmp_path / "python"
        script.write_text(
            textwrap.dedent(f"""\
                #!{sys.executable}
                import runpy, sys
                sys.modules[{module!r}] = None
                {then}
                sys.argv = sys.argv[2:]
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
                """)
        )
        script.chmod(0o755)
        return str(script)

    return make


def test_a_missing_peer_is_named_with_the_line_that_installs_it(problem: Problem, python_without: Any) -> None:
    found = play(problem, entries(onnxruntime=python_without("onnxruntime")))
    assert [one.name for one in found.contenders] == ["luthier"]
    assert "pip install onnxruntime" in found.absent["onnxruntime"]
    assert "luthier[peers]" in found.absent["onnxruntime"]


def test_a_process_that_dies_is_named_and_the_others_go_on(problem: Problem, python_without: Any) -> None:
    dying = "import gc, os; gc.disable = lambda: os._exit(3)"  # which the worker calls before the clock starts
    found = play(problem, entries(onnxruntime=python_without("nothing_of_this_name", dying)), rounds=2)
    assert "its process ended during 'time'" in found.absent["onnxruntime"]
    assert found.ours.median_s is not None
    assert found.rounds == 2


def test_without_our_own_engine_there_is_no_contest(problem: Problem, python_without: Any) -> None:
    with pytest.raises(InputError, match=r"Luthier: not installed .*llvmlite"):
        play(problem, entries(luthier=python_without("llvmlite")))


def test_an_interrupt_keeps_whole_rounds(problem: Problem) -> None:
    def say(share: float, what: str) -> None:
        if what.startswith("round 3"):
            raise KeyboardInterrupt

    found = play(problem, entries(), rounds=5, say=say)
    assert found.interrupted
    assert found.rounds == 2
    assert all(len(one.rounds_s) == 2 for one in found.contenders)


def state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Engine]:
    with Engine(get("luthier"), 1, tmp_path) as engine:
        engine.ask("load")
        yield engine


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not show states of processes")
def test_a_process_that_is_not_asked_is_stopped_and_answers_again(worker: Engine) -> None:
    worker.stop()
    end = time.monotonic() + 10
    while state(worker.process_id) != "T" and time.monotonic() < end:
        time.sleep(0.01)
    assert state(worker.process_id) == "T"
    assert "version" in worker.ask("load")


def test_processes_end_with_the_engine(tmp_path: Path) -> None:
    with Engine(get("luthier"), 1, tmp_path) as engine:
        engine.ask("load")
        engine.stop()
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(engine.process_id, 0)


def test_an_error_of_the_run_time_is_one_line(worker: Engine, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 3, 4, 4), np.float32))
    with pytest.raises(PeerError, match=r"^Luthier: PlanError: .*cannot be read") as caught:
        worker.ask("open", path=str(tmp_path / "no.plan"), dtype="fp32", threads=1, inputs=str(tmp_path / "x.npy"))
    assert "\n" not in str(caught.value)


def test_the_same_problem_has_the_same_folder_and_another_has_another(problem: Problem, tmp_path: Path) -> None:
    graph, other = small(), np.load(problem.inputs) + 1
    weights = random_weights(graph)
    again = pose("small", "random", graph, weights, problem.folder.parent)
    assert again.folder == problem.folder
    assert pose("small", "random", graph, weights, tmp_path, other).folder.name != problem.folder.name


def test_networks_of_two_inputs_are_refused(tmp_path: Path) -> None:
    build = Builder()
    graph = build.graph(build.add("s", build.input("a", (1, 2, 3, 3)), build.input("b", (1, 2, 3, 3))))
    with pytest.raises(InputError, match="takes 2 inputs"):
        pose("two", "random", graph, {}, tmp_path)


@pytest.mark.parametrize(
    ("text", "words"), [("tensorrt", "must be one of onnxruntime, "), ("openvino:fp8", "number types are fp32, ")]
)
def test_unknown_names_list_the_known_ones(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Entry.parse(text, "fp32", {})


def contender(name: str, median_s: float | None, rounds_s: tuple[float, ...] = (), agrees: bool = True) -> Contender:
    return Contender(
        name=name, title=name, dtype="fp32", max_abs_error=0.0, max_rel_error=0.0, agrees=agrees, median_s=median_s,
        spread_s=0.0, calls=1, rounds_s=rounds_s, peak_rss_bytes=1, load_s=0.1, floor_share=None,
    )  # fmt: skip


def test_the_ratio_written_out() -> None:
    found = Contest(
        model="m", dtype="fp32", weights="random", batch=1, resolution=(8, 8), threads=1, macs=1_000_000,
        contenders=(
            contender("luthier", 2e-3, (2e-3, 1e-3, 2e-3)), contender("slow", 9e-3, (9e-3,) * 3),
            contender("fast", 3e-3, (3e-3, 3e-3, 4e-3)), contender("wrong", 1e-3, (1e-3,) * 3, agrees=False),
        ),
        absent={}, peak_flop_per_s=4e9, core_distance_s=None, rounds=3, interrupted=False,
    )  # fmt: skip
    assert found.best_peer is not None
    assert found.best_peer.name == "fast"
    assert found.ratio_to_best_peer == pytest.approx(3e-3 / 2e-3)
    assert found.ratio_interval == pytest.approx((1.75, 2.5))  # rounds: 1.5, 3, 2
    assert found.floor_s == pytest.approx(2e6 / 4e9)
