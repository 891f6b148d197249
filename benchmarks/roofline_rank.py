"""How the analytic roofline ranks networks against published measurements, and how MACs alone rank them.

    LUTHIER_DATA=FOLDER python benchmarks/roofline_rank.py            (or: make bench)

FOLDER holds `latency/` with timm's CPU table and the Qualcomm AI Hub rows.  Nothing is fitted: the model knows the
devices' published figures and the networks' shapes.  About ten minutes, most of them spent on tracing timm's networks.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.stats import spearmanr

from luthier.arch import presets
from luthier.arch.block import Precision
from luthier.cost import analyze
from luthier.device import Device, Figure, registry
from luthier.errors import LuthierError
from luthier.graph import Graph, from_network

CPU, NPU = "core_i9_10940x", "qcs8550_npu"
TIMM_TABLE = "timm_benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv"
ASKED_TIMM, ASKED_HUB = 100, 15
#: besides our presets so many networks of timm's table are traced, evenly spaced from the fastest to the slowest
TRACED = 110
#: families of timm that are convolutions, pooling and gates
CONVOLUTIONAL = re.compile(
    r"(tf_)?(efficientnet|efficientnetv2|mobilenet|mnasnet|semnasnet|fbnet|spnasnet|hardcorenas|tinynet|mixnet|lcnet)"
    r"|(se|ese|eca)?(wide_)?(resnet|resnext|regnet|vgg|densenet|dla|ghostnet|rexnet|gernet|repvgg|hrnet|inception)"
    r"|(cs3|c?s?p?)darknet|res2net|xception|selecsls|vovnet|hgnet|cspresne"
)
#: name in the AI Hub's table -> builder in torchvision, by the number of parameters that the table's authors state
HUB = {
    "densenet121": "densenet121", "efficientnet_b0": "efficientnet_b0", "efficientnet_v2_s": "efficientnet_v2_s",
    "googlenet": "googlenet", "inception_v3": "inception_v3", "mnasnet05": "mnasnet0_5", "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3_small": "mobilenet_v3_small", "regnet": "regnet_x_3_2gf", "resnet18": "resnet18",
    "resnet50": "resnet50", "resnet101": "resnet101", "resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d",
    "shufflenet_v2": "shufflenet_v2_x0_5", "squeezenet1_1": "squeezenet1_1", "wideresnet50": "wide_resnet50_2",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One network: what was measured, what the model says, and its MACs."""

    name: str
    measured_s: float
    modelled_s: float
    macs: float


def rank(points: Iterable[Point]) -> str:
    """Cells of a table: networks, Spearman of the roofline and of MACs alone."""
    rows = list(points)
    measured = [row.measured_s for row in rows]
    model = spearmanr(measured, [row.modelled_s for row in rows]).statistic
    macs = spearmanr(measured, [row.macs for row in rows]).statistic
    return f"{len(rows)} | {model:.3f} | {macs:.3f}"


def graph_of(name: str, side: int) -> Graph | None:
    """A network of timm's table: through our preset where there is one, else traced; None = not a graph of ours."""
    if name in presets.names():
        return from_network(presets.get(name), resolution=side)
    from luthier.job.resolve import resolve_graph

    try:
        return resolve_graph(f"timm:{name}", resolution=side)[0]
    except LuthierError:
        return None


def timm_points(table: Path, device: Device, limit: int | None) -> tuple[list[Point], list[Point], int, int]:
    """Points of all covered networks, of the presets among them, and how many fit the families and were tried."""
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["infer_batch_size"] == "1"]
    fitting = [row for row in rows if CONVOLUTIONAL.match(row["model"]) and float(row["param_count"]) < 100]
    fitting = list({row["model"]: row for row in fitting}.values())  # of several sizes the last
    others = [row["model"] for row in fitting if row["model"] not in presets.names()]
    spaced = {others[int(step * len(others) / TRACED)] for step in range(TRACED)}
    tried = [row for row in fitting if row["model"] in presets.names() or row["model"] in spaced][:limit]
    points, ours = [], []
    for index, row in enumerate(tried):
        print(f"\r{index + 1}/{len(tried)} {row['model']:40.40}", end="", file=sys.stderr, flush=True)
        graph = graph_of(row["model"], int(row["infer_img_size"]))
        if graph is None:
            continue
        totals = analyze(graph, device, precision=Precision(), threads=device.cores).totals
        assert totals.attainable_s is not None
        point = Point(row["model"], float(row["infer_step_time"]) / 1e3, totals.attainable_s, totals.macs)
        check_macs(point, float(row["infer_gmacs"]))
        points.append(point)
        if row["model"] in presets.names():
            ours.append(point)
    print(file=sys.stderr)
    return points, ours, len(fitting), len(tried)


def check_macs(point: Point, published_gmacs: float) -> None:
    """A network whose MACs are not those of the table is another network: that would rank apples."""
    if published_gmacs > 0.1 and abs(point.macs / 1e9 / published_gmacs - 1) > 0.05:
        print(f"\n{point.name}: {point.macs / 1e9:.2f} GMAC, the table says {published_gmacs}", file=sys.stderr)


def hub_graphs() -> dict[str, Graph]:
    """torchvision's networks, as the AI Hub compiles them: 224 x 224, batch 1."""
    import torch
    import torchvision

    from luthier.graph.from_torch import from_torch

    found = {}
    for name, builder in HUB.items():
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        make = getattr(torchvision.models, builder)
        try:
            with torch.device("meta"):  # shapes are enough
                module = make(weights=None, **options)
        except NotImplementedError:  # some constructors compute with their weights
            module = make(weights=None, **options)
        found[name] = from_torch(module, (1, 3, 224, 224))[0]
    return found


def with_fp16(npu: Device, share: float) -> Device:
    """The device with an fp16 peak that its maker does not publish: this share of the int8 peak."""
    peak = Figure(npu.peak_flop_per_s["int8"][1].value * share, f"assumed here: {share:g} of the int8 peak", "derived")
    return replace(npu, peak_flop_per_s={**npu.peak_flop_per_s, "fp16": {1: peak}})


def hub_lines(graphs: dict[str, Graph], table: Path, device: Device) -> list[str]:
    """One line per measured device, run time and precision with enough networks."""
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["compute_unit"] == "NPU" and row["model"] in HUB]
    precisions = {"float": "fp16", "w8a8": "int8", "w8a16": "W8A16"}
    lines = []
    modelled = {
        (name, label): analyze(graph, device, precision=Precision.parse(label)).totals
        for name, graph in graphs.items()
        for label in precisions.values()
    }
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for row in rows:
        label = precisions.get(row["precision"])
        if label is None:
            continue
        totals = modelled[row["model"], label]
        point = Point(row["model"], float(row["latency_ms"]) / 1e3, totals.attainable_s, totals.macs)
        groups.setdefault((row["device"], row["runtime"], row["precision"]), []).append(point)
    for (name, runtime, precision), points in sorted(groups.items()):
        if len({point.name for point in points}) >= 8:
            lines.append(f"| {name} | {runtime} | {precision} | {rank(points)} |")
    return lines


def main() -> int:
    """Print the section; 1 if fewer networks are covered than were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("LUTHIER_DATA"))
    parser.add_argument("--limit", type=int, help="networks of timm's table, for a quick look")
    arguments = parser.parse_args()
    print("# Rank of the analytic roofline\n")
    if arguments.data is None:
        print("Not measured: LUTHIER_DATA is not set and no --data FOLDER was given.")
        return 0
    folder = Path(arguments.data) / "latency"
    cpu, npu = registry.get(CPU), registry.get(NPU)
    points, ours, fitting, tried = timm_points(folder / TIMM_TABLE, cpu, arguments.limit)
    small = [point for point in points if point.macs < 1e9]
    print(
        f"Spearman of modelled and published latency; nothing is fitted. timm's table of\n{cpu.title}, PyTorch 2.4 "
        f"compiled, fp32, batch 1: {fitting} of its networks are of convolutional families below 100 M parameters; of "
        f"{tried} of them, evenly spaced from the fastest to the slowest and with Luthier's presets, {len(points)}\n"
        f"become graphs (at least {ASKED_TIMM} asked). Unfused, {cpu.cores} threads.\n"
    )
    print("| networks | number | roofline | MACs alone |\n|---|---|---|---|")
    print(f"| all | {rank(points)} |\n| below 1 GMAC | {rank(small)} |\n| Luthier's presets | {rank(ours)} |")
    graphs = hub_graphs()
    half, quarter = (hub_lines(graphs, folder / "qai_hub_perf.csv", with_fp16(npu, share)) for share in (0.5, 0.25))
    changed = sum(one != other for one, other in zip(half, quarter, strict=True))
    print(
        f"\nQualcomm AI Hub, NPU rows, {len(HUB)} networks of torchvision (at least {ASKED_HUB} asked),\n"
        f"all modelled on {npu.title}.\n"
        "The fp16 peak of that is not published; here, and nowhere else, half of the int8 peak stands for it (float\n"
        "runs as fp16, w8a16 multiplies as fp16). "
        f"With a quarter instead {changed} of the {len(half)} lines below change.\n"
        "Groups of fewer than 8 networks are left out.\n"
    )
    print("| measured on | run time | precision | networks | roofline | MACs alone |\n|---|---|---|---|---|---|")
    print("\n".join(half))
    return int(arguments.limit is None and (len(points) < ASKED_TIMM or len(HUB) < ASKED_HUB))


if __name__ == "__main__":
    sys.exit(main())
