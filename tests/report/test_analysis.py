"""The page and the tables of an analysis: figures are those found, names cannot act, the unknown is said."""

from __future__ import annotations

import dataclasses
import json
import re
from io import StringIO

import pytest
from rich.console import Console

from luthier.arch.block import Precision
from luthier.cost.analysis import Analysis
from luthier.cost.budget import Budget
from luthier.cost.calibrated import CalibratedLatency, KernelLatency
from luthier.deploy.results import KernelTime, Profile
from luthier.device import Device
from luthier.device.registry import get
from luthier.job.examine import Question, examine
from luthier.job.results import Examination
from luthier.report.analysis import comparison, lines, render
from luthier.report.analysis import tables as grids

MODEL = "mobilenetv3_small_100"


@pytest.fixture(scope="module")
def found() -> Examination:
    question = Question(precision=Precision.parse("int8"), budget=Budget(max_memory_bytes=100 * 1024))
    return examine(MODEL, get("raspberry_pi_4"), question)


def printed(renderable: object) -> str:
    console = Console(file=StringIO(), width=110)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_page_and_terminal_say_the_same(found: Examination) -> None:
    page, text = render(found, "1.2.3"), printed(lines(found, layers=True))
    assert "luthier 1.2.3" in page
    totals = found.analysis.totals
    for figure in ("56.5 M MACs", f"{totals.params:,} parameters", "does not fit"):
        assert figure in page
        assert figure in text
    assert found.advice is not None
    assert all(change.text.split(":")[0] in " ".join(text.split()) for change in found.advice.changes[:1])


def test_sums_of_the_tables_are_the_totals(found: Examination) -> None:
    analysis = found.analysis
    assert sum(group.macs for group in analysis.groups) == analysis.totals.macs
    assert grids.stages(analysis).foot[2] == "56.5 M"  # 56 M published, arXiv:1905.02244, table 3
    assert len(grids.groups(analysis).rows) == len(analysis.groups)
    assert len(grids.ops(analysis).rows) == len(analysis.ops)
    assert len(grids.bottlenecks(analysis).rows) == 11  # Howard et al. 2019, arXiv:1905.02244, table 2


def test_a_point_for_every_group_that_moves_bytes(found: Examination) -> None:
    page = render(found, "1")
    figure = json.loads(re.search(r'id="roofline-data">(.*?)</script>', page, re.DOTALL).group(1))  # type: ignore[union-attr]
    markers = [trace for trace in figure["data"] if trace["mode"] == "markers" and trace["name"] != "unfused"]
    drawn = sum(len(trace["x"]) for trace in markers)
    working = [g for g in found.analysis.groups if g.attainable_s and (g.flop or g.elementwise_ops)]
    assert 0 < drawn <= len(working)
    peak = next(c.value for c in found.analysis.ceilings if c.unit == "FLOP/s")
    assert all(y <= peak / 1e9 * (1 + 1e-9) for trace in markers for y in trace["y"])


def test_names_cannot_act(found: Examination) -> None:
    evil = "<script>alert(1)</script>"
    group = dataclasses.replace(found.analysis.groups[0], name=evil, block=evil)
    analysis = dataclasses.replace(found.analysis, model=evil, groups=(group, *found.analysis.groups[1:]))
    page = render(dataclasses.replace(found, analysis=analysis), "1")
    assert evil not in page
    assert "\x1b" not in printed(lines(dataclasses.replace(found, analysis=analysis)))


def test_a_device_that_states_nothing() -> None:
    nothing = examine(MODEL, Device(name="blank", title="Blank", kind="npu"), Question())
    page, text = render(nothing, "1"), printed(lines(nothing))
    assert "no roofline to draw" in page
    assert "Energy is not known" in page
    assert "no limit was given" in page
    assert nothing.analysis.totals.image_latency_s is None
    assert re.search(r"time of one image +–", text)


def test_a_run_time_modelled_and_measured(found: Examination) -> None:
    first, second = found.analysis.ops[0].name, found.analysis.ops[2].name
    calibrated = CalibratedLatency(
        3e-3, (KernelLatency((first,), "k", 1e-3), KernelLatency((), "layout", 2e-3)), "ORT", 1
    )
    profile = Profile(
        (KernelTime((first,), "Conv", 8, 1e-3), KernelTime((second,), "Conv", 8, 2e-3)), 4e-3, 0.0, 9, "ORT"
    )
    both = dataclasses.replace(found, calibrated=(calibrated,), profile=profile)
    table = grids.kernels(both)
    assert table is not None
    assert table.rows[0][2:] == ("1 ms", "1 ms")
    assert table.rows[-1] == ("the run time itself", "", "2 ms", "1 ms")
    assert table.foot[2:] == ("3 ms", "4 ms")
    page = render(both, "1")
    assert "In ORT: 3 ms" in page
    assert "In ORT: 4 ms" in page
    assert grids.kernels(found) is None


def test_side_by_side(found: Examination) -> None:
    other: Analysis = examine("mobilenetv2_100", get("raspberry_pi_4"), Question()).analysis
    text = printed(comparison([found.analysis, other]))
    assert MODEL in text
    assert "300.8 M MACs" in text
    assert "across DRAM" in text
