"""Two CPU processes train one network: equal weights, a divided batch, one writer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "LOCAL_", "NODE_"))}
    path = os.pathsep.join([str(SCRIPT.parent), *sys.path])
    env = {**kept, "MASTER_PORT": str(port), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert [rank["world_size"] for rank in ranks] == [2, 2]
    # the same weights, averages and statistics, to the bit
    assert ranks[0]["weights"] == ranks[1]["weights"]
    assert ranks[0]["history"] == ranks[1]["history"]
    assert ranks[0]["evaluation"] == ranks[1]["evaluation"]
    # the global batch of 16 is divided, and no image is seen twice in an epoch
    assert ranks[0]["micro_batch"] == ranks[1]["micro_batch"] == 8
    assert len(ranks[0]["seen"]) == len(ranks[1]["seen"]) == 48
    assert not set(ranks[0]["seen"]) & set(ranks[1]["seen"])
    # metrics are those of the whole validation set, as one process computes them
    assert ranks[0]["evaluation"]["n"] == 45
    assert ranks[0]["evaluation"] == ranks[0]["evaluation_alone"]
    # resumed in both, and only the first process wrote
    assert ranks[0]["epochs"] == ranks[1]["epochs"] == 3
    assert (ranks[0]["wrote"], ranks[1]["wrote"]) == (True, False)
    # gradients are averaged: two processes on halves equal one process on the whole, without norms
    assert ranks[0]["distance_to_one_process"] < 1e-5
