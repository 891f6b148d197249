"""The analytic roofline against a published table: how it ranks our presets on a CPU that somebody else measured."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from luthier.arch.block import Precision
from luthier.arch.presets import get, names
from luthier.cost import analyze
from luthier.device import registry
from luthier.graph import from_network

TABLE = "timm_benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv"


def spearman(one: list[float], other: list[float]) -> float:
    """Without ties, which measured latencies and MACs of different networks do not have."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_the_roofline_ranks_presets_as_timm_measured_them(data_dir: Path) -> None:
    device = registry.get("core_i9_10940x")
    with (data_dir / "latency" / TABLE).open(newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file) if row["model"] in names()}
    measured, modelled = [], []
    for name, row in list(rows.items())[::2]:  # every second one is time enough
        graph = from_network(get(name), resolution=int(row["infer_img_size"]))
        found = analyze(graph, device, precision=Precision(), threads=device.cores).totals
        # the table's GMACs are fvcore's: batch norm and pooling counted in, rounded to 0.01
        assert -0.01 <= float(row["infer_gmacs"]) - found.macs / 1e9 < 0.01 + 0.06 * found.macs / 1e9, name
        measured.append(float(row["infer_step_time"]) / 1e3)
        modelled.append(found.attainable_s)
        assert found.attainable_s < measured[-1], f"{name}: nothing runs above the roofline"
    assert len(measured) >= 15
    assert spearman(measured, modelled) > 0.9
