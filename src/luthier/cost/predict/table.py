"""Measurements as people write them down: a CSV file with a header, one line per measured network.

column          meaning
latency_ms      of one inference; `latency_ns`, `_us`, `_ms` or `_s`, or `latency` with the unit in each cell
spread_ms       standard deviation of a repeat, optional; units as above
device          what ran it, optional; the lines of other devices help to predict this one
network         a preset's name, or a `network.json` beside the table, optional
resolution      in pixels, optional; with `network` only: instead of the network's own
any other       a feature: a number if all its cells are numbers, else words

Lines that agree in all but latency and spread are repeats of one network: their mean counts, and their standard
deviation where no spread is given.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Final

from luthier import units
from luthier.arch import encode, presets
from luthier.cost.predict.encoder import Features
from luthier.cost.predict.predictor import Measured, Predictor, fit, graph_features
from luthier.errors import DataError, LuthierError
from luthier.graph.from_network import from_network

_UNITS: Final = units.UNITS["latency"]
_OWN: Final = ("device", "network", "resolution")


def fit_csv(csv_path: Path, device_name: str) -> Predictor:
    """Learn the latency of a device from a table.

    Args:
        csv_path: see above.
        device_name: its lines are learnt from; with a column `device`, the others' lines help.  Without such a column
            all lines are this device's.
    Raises:
        DataError: the table cannot be read, or not learnt from; the message names the line and the column.
    Example:
        >>> import tempfile
        >>> table = Path(tempfile.mkdtemp()) / "measurements.csv"
        >>> lines = [f"mobilenetv2_100,{side},{side**2 / 8000}" for side in range(96, 256, 8)]
        >>> _ = table.write_text("\\n".join(["network,resolution,latency_ms", *lines]))
        >>> prediction = fit_csv(table, "toy").predict(presets.get("mobilenetv2_100"))
        >>> prediction.interval_s[0] <= 224**2 / 8e6 <= prediction.interval_s[1]
        True
    """
    tables = read_csv(csv_path, device_name)
    if device_name not in tables:
        raise DataError(
            f"{csv_path}: no line has device {device_name!r}, the table knows {', '.join(sorted(tables)[:20])}"
        )
    measured = tables.pop(device_name)
    try:
        return fit(measured, device_name, tables)
    except DataError as error:
        raise DataError(f"{csv_path}: {error}") from None


def read_csv(path: Path, default_device: str) -> dict[str, Measured]:
    """Every device's measurements, repeats averaged.

    Args:
        path: see above.
        default_device: whose lines they are if there is no column `device`.
    Raises:
        DataError: the table cannot be read.
    """
    header, lines = _lines(path)
    latency, spread = _quantity(path, header, "latency"), _quantity(path, header, "spread")
    if latency is None:
        raise DataError(
            f"{path}: no column latency_ms (or _ns, _us, _s, or latency with units in the cells); the header has "
            f"{', '.join(header)}"
        )
    owned = _OWN if "network" in header else _OWN[:1]
    features = [name for name in header if name not in (latency, spread, *owned)]
    if "network" not in header and not features:
        raise DataError(f"{path}: no column network and no column of features, so nothing tells the lines apart")
    numbers = {name for name in features if all(_is_number(line.cells[name]) for line in lines)}
    work = cache(partial(_work, path.parent))
    groups: dict[tuple[str, ...], _Group] = {}
    for line in lines:
        where = f"{path}: line {line.number}"
        key = tuple(line.cells[name] for name in header if name not in (latency, spread))
        group = groups.get(key)
        if group is None:
            row: dict[str, float | str] = {name: line.cells[name] for name in features}
            row.update((name, _finite(where, name, line.cells[name])) for name in numbers)
            if "network" in header:
                name = line.cells["network"]
                try:
                    row.update(work(name, line.cells.get("resolution", "")))
                except LuthierError as error:
                    raise DataError(f"{where}: network {name!r}: {error}") from None
            group = groups[key] = _Group(line.cells.get("device", default_device), row)
        group.latency_s.append(_seconds(where, latency, line.cells[latency], least=0.0))
        if spread is not None:
            group.spread_s.append(_seconds(where, spread, line.cells[spread], least=-1e-300))
    return _by_device(list(groups.values()))


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    cells: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Group:
    """Lines of one network on one device."""

    device: str
    features: Features
    latency_s: list[float] = field(default_factory=list)
    spread_s: list[float] = field(default_factory=list)

    @property
    def spread(self) -> float | None:
        """Given, or of the repeats; None = neither."""
        if self.spread_s:
            return fmean(self.spread_s)
        return stdev(self.latency_s) if len(self.latency_s) > 1 else None


def _by_device(groups: Sequence[_Group]) -> dict[str, Measured]:
    found = {}
    for device in sorted({group.device for group in groups}):
        mine = [group for group in groups if group.device == device]
        latency_s = [fmean(group.latency_s) for group in mine]
        known = [g.spread / t for g, t in zip(mine, latency_s, strict=True) if g.spread is not None]
        # two repeats may agree by chance: no spread counts as less than a tenth of the usual one
        usual = median(known) if known else 0.0
        spread_s = [
            t * (usual if g.spread is None else max(g.spread / t, usual / 10))
            for g, t in zip(mine, latency_s, strict=True)
        ]
        found[device] = Measured(
            tuple(group.features for group in mine), tuple(latency_s), tuple(spread_s) if usual else None
        )
    return found


def _lines(path: Path) -> tuple[list[str], list[_Line]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error})") from None
    if not rows:
        raise DataError(
            f"{path}: a table of measurements needs a header and lines, got {'only a header' if header else 'nothing'}"
        )
    twice = sorted({name for name in header if header.count(name) > 1} | ({""} & set(header)))
    if twice:
        raise DataError(f"{path}: every column needs a name of its own, got {twice[0]!r} twice or empty")
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(f"{path}: line {number} has {len(row)} cells, the header has {len(header)}")
        empty = [name for name, cell in zip(header, row, strict=True) if not cell and name != "resolution"]
        if empty:
            raise DataError(f"{path}: line {number}: column {empty[0]!r} is empty")
    return header, [_Line(number, dict(zip(header, row, strict=True))) for number, row in rows]


def _quantity(path: Path, header: Sequence[str], word: str) -> str | None:
    """The column `word` or `word_<unit>`."""
    found = [name for name in header if name == word or name.startswith(f"{word}_")]
    for name in found:
        if name != word and name.removeprefix(f"{word}_") not in _UNITS:
            raise DataError(
                f"{path}: column {name!r}: unknown unit, known are {' '.join(_UNITS)}; or rename the column"
            )
    if len(found) > 1:
        raise DataError(f"{path}: one column of {word} is wanted, got {' and '.join(found)}")
    return found[0] if found else None


def _seconds(where: str, column: str, cell: str, least: float) -> float:
    """A cell in seconds, above `least`."""
    unit = column.partition("_")[2]
    if not unit:
        try:
            return units.parse(cell, "latency", f"{where}: {column}")
        except LuthierError as error:
            raise DataError(str(error)) from None
    if not _is_number(cell):
        raise DataError(f"{where}: {column} must be a number, got {cell!r}")
    value = float(cell) * _UNITS[unit]
    if not (math.isfinite(value) and value > least):
        raise DataError(f"{where}: {column} must be {'above' if least == 0 else 'at least'} 0 and finite, got {cell!r}")
    return value


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _finite(where: str, column: str, cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise DataError(f"{where}: {column} must be finite, got {cell!r}")
    return value


def _work(folder: Path, name: str, resolution: str) -> Features:
    """Features of a network named in a table that lies in `folder`."""
    network = encode.read(folder / name) if name.endswith(".json") else presets.get(name)
    if not resolution:
        return graph_features(network)
    if not resolution.isdecimal():
        raise DataError(f"resolution must be a whole number of pixels, got {resolution!r}")
    return graph_features(from_network(network, resolution=int(resolution)))
