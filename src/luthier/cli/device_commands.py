"""`luthier device list|show|measure`: the catalogue, one device with the source of every figure, and this machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import typer

from luthier import units
from luthier.arch.block import Precision
from luthier.cli import limits, output
from luthier.device import Device, Figure, energy_table, get, host, names
from luthier.errors import InputError

UNKNOWN = "unknown"

app = typer.Typer(
    help="Devices: the targets that networks are designed for.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_devices(as_json: limits.Json = False) -> None:
    """Every device that `--device` knows by name."""
    from rich.table import Table

    devices = [get(name) for name in names()]
    table = Table(box=None, pad_edge=False)
    for title in ("device", "cores", "RAM", "fp32", "int8", "DRAM"):
        table.add_column(title, no_wrap=True, justify="left" if title == "device" else "right")
    console = output.console()
    wide = console.width >= 110
    if wide:
        table.add_column("what it is")
    for device in devices:
        far = next((level for level in device.memory if level.name == "DRAM"), None)
        table.add_row(
            device.name,
            str(device.cores),
            _show(device.ram_bytes, "bytes"),
            *(_show(device.peak(Precision.parse(label), device.cores), "rate") for label in ("fp32", "int8")),
            "none" if far is None else _show(far.bandwidth(device.cores), "bandwidth"),
            *([device.title] if wide else []),
        )
    console.print(table)
    if as_json:
        output.document("device list", {"devices": [{**_head(d), "cores": d.cores} for d in devices]})


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="A name of `luthier device list`, or a .toml file.")],
    as_json: limits.Json = False,
) -> None:
    """Every figure of a device with its unit, its kind and its source; what has no source is unknown."""
    device = get(name)
    _print(device)
    if as_json:
        output.document("device show", _document(device))


@app.command("measure")
def measure(
    budget: Annotated[
        str, typer.Option("--time-limit", help="For the loops together; at least 2s, better 20s or more.")
    ] = "20s",
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Also calibrate the latency models of Luthier's engine and ONNX Runtime: 2 min more.",
        ),
    ] = False,
    as_json: limits.Json = False,
) -> None:
    """Measure this machine: arithmetic by number type, memory by level and threads, the clock; keep its profile."""
    from luthier.device.measure import measure as run

    budget_s = units.parse(budget, "duration", "--time-limit")
    if not 2 <= budget_s <= 600:
        raise InputError(f"device measure: --time-limit must be from 2s to 10m, got {budget}")
    console = output.console()
    with output.progress(console) as say:
        calibrations = []
        if calibrate:
            from luthier.deploy.calibrate import calibrate as calibrate_runtime
            from luthier.deploy.calibrate_engine import calibrate_engine

            calibrations += [partial(calibrate_engine, say=say), partial(calibrate_runtime, say=say)]
        device = run(energy_table, budget_s, say, calibrations)
    path = host.store(device, energy_table)
    _print(device)
    output.say(f"{path}: written")
    if as_json:
        output.document("device measure", {**_document(device), "path": str(path)})


def _head(device: Device) -> dict[str, Any]:
    return {"name": device.name, "title": device.title, "device_kind": device.kind}


def _figures(device: Device, every: bool = True) -> list[tuple[str, Figure | None, str]]:
    """(what, figure, dimension) of everything that can be known of a device, in the order it is printed.

    Of figures by number of threads, all; or the first and the last.
    """

    def counted(what: str, figures: Mapping[int, Figure], dimension: str) -> list[tuple[str, Figure | None, str]]:
        counts = sorted(figures) if every else sorted({*sorted(figures)[:1], *sorted(figures)[-1:]})
        found = [(f"{what}, {n} thread{'s' if n > 1 else ''}", figures[n], dimension) for n in counts]
        return [*found] or [(what, None, dimension)]

    rows: list[tuple[str, Figure | None, str]] = [("clock", device.clock_hz, "frequency")]
    if device.kind == "microcontroller":
        rows += [("RAM", device.ram_bytes, "bytes"), ("flash", device.flash_bytes, "bytes")]
    else:
        rows.append(("RAM", device.ram_bytes, "bytes"))
    for label in dict.fromkeys(("fp32", "bf16", "fp16", "int8", *device.peak_flop_per_s)):
        rows += counted(f"peak {label}", device.peak_flop_per_s.get(label, {}), "rate")
    for level in device.memory:
        rows.append((f"{level.name} size", level.size_bytes, "bytes"))
        rows += counted(f"{level.name} read", level.bandwidth_bytes_per_s, "bandwidth")
        rows.append((f"{level.name} energy", device.energy_per_byte(level), "energy_per_byte"))
    for label in ("fp32", "bf16", "fp16", "int8", "W8A16"):
        mac = None if device.energy is None else device.energy.mac(Precision.parse(label))
        rows.append((f"energy of a MAC, {label}", mac, "energy"))
    return [*rows, ("battery", device.battery_j, "energy")]


def _ridges(device: Device) -> list[tuple[str, str, int, float | None]]:
    """(precision, level, threads, FLOP/byte) for one thread and for all cores."""
    counts = sorted({1, device.cores})
    labels = [label for label in device.peak_flop_per_s if label in ("fp32", "bf16", "fp16", "int8")]
    return [
        (label, level.name, count, device.ridge(level, Precision.parse(label), count))
        for label in labels
        for level in device.memory
        for count in counts
    ]


def _print(device: Device) -> None:
    from rich.table import Table

    console = output.console()
    console.print(
        f"{device.name}: {device.title}, {device.kind}, {device.cores} core{'s' if device.cores > 1 else ''}",
        markup=False,
    )
    table = Table("figure", "value", "kind", "source", box=None, pad_edge=False)
    for what, figure, dimension in _figures(device, every=False):
        kind, source = ("", "") if figure is None else (figure.kind, figure.source)
        table.add_row(what, _show(figure, dimension), kind, source)
    console.print(table, markup=False)
    ridges = Table(
        "precision",
        "level",
        "threads",
        "FLOP/byte",
        title="ridges: compute is the bound from here on",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for label, level, threads, ridge in _ridges(device):
        ridges.add_row(label, level, str(threads), UNKNOWN if ridge is None else f"{ridge:.1f}")
    if ridges.row_count:
        console.print(ridges, markup=False)
    for remark in dict.fromkeys((*device.remarks, *([device.energy.remark] if device.energy else []))):
        output.say(f"- {remark}")


def _document(device: Device) -> dict[str, Any]:
    return {
        **_head(device),
        "cores": device.cores,
        "figures": [
            {
                "figure": what,
                "value": None if figure is None else figure.value,
                "value_kind": None if figure is None else figure.kind,
                "unit": _BASE[dimension],
                "source": None if figure is None else figure.source,
            }
            for what, figure, dimension in _figures(device)
        ],
        "ridges": [
            {"precision": label, "level": level, "threads": threads, "intensity_flop_per_byte": ridge}
            for label, level, threads, ridge in _ridges(device)
        ],
        "calibrations": [{"runtime": c.runtime, "threads": c.threads, "source": c.source} for c in device.calibrations],
        "remarks": list(device.remarks),
    }


_BASE = {
    "rate": "FLOP/s", "bandwidth": "B/s", "bytes": "B", "frequency": "Hz", "energy": "J", "energy_per_byte": "J/B",
}  # fmt: skip


def _show(figure: Figure | None, dimension: str) -> str:
    return UNKNOWN if figure is None else units.show(figure.value, dimension)
