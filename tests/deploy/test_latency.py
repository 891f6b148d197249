from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from luthier.arch import Block, Head, Network, Stage
from luthier.deploy.latency import measure_latency, open_session
from luthier.deploy.onnx_file import to_onnx
from luthier.errors import DataError
from luthier.graph.from_network import from_network


def model(width: int, side: int) -> bytes:
    blocks = (
        Block(kind="conv", out_channels=width),
        Block(kind="conv", out_channels=width),
    )
    network = Network(name="n", stages=(Stage(name="stem", blocks=blocks),), head=Head(num_classes=2), resolution=side)
    graph = from_network(network)
    generator = np.random.default_rng(0)
    return to_onnx(graph, {k: generator.uniform(0.1, 0.2, t.shape) for k, t in graph.constants.items()})


@pytest.fixture(scope="module")
def small() -> bytes:
    return model(8, 16)


def test_median_and_spread_are_positive(small: bytes) -> None:
    found = measure_latency(small, budget_s=0.05)
    assert 0 < found.median_s < 1
    assert found.spread_s >= 0
    assert found.runtime.startswith("ONNX Runtime ")
    assert found.runtime.endswith("CPU, 1 thread")


def test_at_least_ten_and_at_most_max_repeats(small: bytes) -> None:
    assert measure_latency(small, budget_s=0).repeats == 10
    assert measure_latency(small, budget_s=60, max_repeats=15).repeats == 15


def test_more_work_takes_longer(small: bytes) -> None:
    # 600 times the work: no neighbour on the machine hides that
    assert measure_latency(model(32, 96), budget_s=0.2).median_s > 3 * measure_latency(small, budget_s=0.2).median_s


def test_threads_are_said_and_used(small: bytes) -> None:
    before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None
    session = open_session(small, threads=3)
    if before is not None:
        assert len(os.listdir("/proc/self/task")) == before + 2
    assert session.get_session_options().intra_op_num_threads == 3
    assert measure_latency(small, threads=3, budget_s=0).runtime.endswith("CPU, 3 threads")


def test_one_thread_starts_no_pool(small: bytes) -> None:
    assert open_session(small).get_session_options().intra_op_num_threads == 1


def test_a_file_and_its_bytes_are_the_same_model(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(small)
    x = np.ones((1, 3, 16, 16), np.float32)
    first, second = (open_session(source).run(None, {"input": x})[0] for source in (path, small))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x08\x07" * 40])
def test_a_file_that_is_no_model_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.onnx: ONNX Runtime cannot load it \(") as caught:
        measure_latency(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_model_is_refused(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(small[: len(small) // 2])
    with pytest.raises(DataError, match="cannot load it"):
        open_session(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.onnx: no such file"):
        measure_latency(tmp_path / "none.onnx")
