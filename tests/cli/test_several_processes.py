"""`luthier train --devices 2`: two processes train together, one of them writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from luthier.job.result import read

Begin = Callable[..., Popen[str]]


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_two_processes_train_one_run(begin: Begin, data: Path, tmp_path: Path) -> None:
    arguments = ("train", "mbconv_thumbnail", data, "--resolution", 16, "--epochs", 3, "--accelerator", "cpu")
    process = begin([*arguments, "--devices", 2, "--run-dir", tmp_path / "pair", "--json"])
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    document: dict[str, Any] = json.loads(out)  # two documents would not parse: only the first process speaks
    result = read(tmp_path / "pair" / "result.json")
    assert document["result"]["accuracy"] == result.winner.test_accuracy > 0.5
    assert [epoch.epoch for epoch in result.winner.history] == [1, 2, 3]
    assert len((tmp_path / "pair" / "metrics.jsonl").read_text().splitlines()) == 3


def test_several_processes_need_a_length(luthier: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    ended = luthier("train", "mbconv_thumbnail", data, "--devices", 2, "--run-dir", tmp_path / "pair")
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("luthier: --devices, --num-nodes: several processes need --epochs")
    assert not (tmp_path / "pair").exists()
