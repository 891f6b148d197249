"""Bands of rows: small cases by hand, a row-by-row log of what is read, and NumPy in ring buffers of just that size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from random_graphs import row_groups

from luthier.graph import Graph, Op, reference
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.schedule import Group, Scope, check, scope
from luthier.schedule.rows import bands, row_window
from luthier.schedule.schedule import Schedule

Array = NDArray[np.float64]


@pytest.mark.parametrize(
    ("kernel_size", "stride", "rows", "band"),
    # (rows - 1) * stride + kernel_size
    [(3, 1, 4, 6), (3, 2, 4, 9), (5, 1, 1, 5), (5, 2, 3, 9), (7, 1, 2, 8), (3, 1, 1, 3)],
)
def test_the_ring_before_a_depthwise_is_the_formula(kernel_size: int, stride: int, rows: int, band: int) -> None:
    build = Builder()
    x = build.conv("expand", "e", build.input("x", (1, 2, 112, 112)), 12)
    y = build.conv("depthwise", "d", x, 12, kernel_size=kernel_size, stride=stride, groups=12)
    graph = build.graph(build.conv("project", "p", y, 4))
    found = bands(graph, scope(graph, Group(("expand", "depthwise", "project"))), rows)
    assert band == (rows - 1) * stride + kernel_size
    assert (found["expand"], found["depthwise"], found["project"]) == (band, rows, rows)


def test_a_map_of_two_tiles_needs_less_than_the_formula() -> None:
    # 7 rows, kernel 3: tiles of 4 read rows 0..4 and 3..6, never six at once
    build = Builder()
    x = build.conv("expand", "e", build.input("x", (1, 2, 7, 7)), 12)
    graph = build.graph(build.conv("depthwise", "d", x, 12, kernel_size=3, groups=12))
    assert bands(graph, scope(graph, Group(("expand", "depthwise"))), 4)["expand"] == 5


def offsets(graph: Graph, op: Op) -> tuple[list[int], int, int]:
    """Rows of the window, stride and padding, from the op itself."""
    match op.attrs:
        case kinds.Conv() as a:
            size = graph.constants[op.constants["weight"]].shape[2]
            # a row between two taps of a dilated window counts as read
            return list(range(a.dilation[0] * (size - 1) + 1)), a.stride[0], a.pads[0]
        case kinds.Pool() as a:
            return list(range(a.kernel[0])), a.stride[0], a.pads[0]
        case kinds.Subsample() as a:
            return [0], a.stride[0], 0
    return [0], 1, 0


def log_of_reads(graph: Graph, view: Scope, rows: int) -> dict[str, int]:
    """Run the tiles row by row; the most rows of each inside tensor between the first still read and the last made."""
    height = {n: graph.tensors[n].shape[2] for n in (*view.inputs, *(op.outputs[0] for op in view.ops))}
    makers = {op.outputs[0]: op for op in view.ops}
    made = dict.fromkeys(view.inside, 0)
    last_made: list[dict[str, int]] = []
    reads: list[tuple[int, str, int]] = []  # tile, tensor, row

    def make(name: str, row: int, tile: int) -> None:
        op = makers[name]
        steps, stride, before = offsets(graph, op)
        for source in op.inputs:
            wanted = [row * stride - before + step for step in steps]
            if height[source] == 1 < height[name]:
                wanted = [0]
            for need in wanted:
                if 0 <= need < height[source]:
                    fetch(source, need, tile)

    def fetch(name: str, row: int, tile: int) -> None:
        reads.append((tile, name, row))
        while name in made and made[name] <= row:
            made[name] += 1
            make(name, made[name] - 1, tile)

    count = -(-height[view.result] // rows)
    for tile in range(count):
        for row in range(tile * rows, min((tile + 1) * rows, height[view.result])):
            make(view.result, row, tile)
        last_made.append(dict(made))
    most = dict.fromkeys(view.inside, 0)
    for name in view.inside:
        for tile in range(count):
            later = [row for when, read, row in reads if read == name and when >= tile]
            if later:
                most[name] = max(most[name], last_made[tile][name] - min(later))
    return most


@settings(max_examples=300)
@given(case=row_groups())
def test_bands_equal_a_log_of_rows_read(case: tuple[Graph, Group]) -> None:
    graph, group = case
    view = scope(graph, group)
    assert group.tile.rows is not None
    found = bands(graph, view, group.tile.rows)
    assert {name: found[name] for name in view.inside} == log_of_reads(graph, view, group.tile.rows)
    assert found[view.result] == group.tile.rows


class Ring:
    """Rows of one tensor in a circular buffer; a row that was overwritten cannot be read any more."""

    def __init__(self, rows: int) -> None:
        self.slots: list[tuple[int, Array] | None] = [None] * rows

    def put(self, row: int, value: Array) -> None:
        self.slots[row % len(self.slots)] = (row, value)

    def get(self, row: int) -> Array:
        slot = self.slots[row % len(self.slots)]
        assert slot is not None
        assert slot[0] == row, f"row {row} was overwritten by {slot[0]}"
        return slot[1]


def run_tiles(graph: Graph, view: Scope, rows: int, values: dict[str, Array], constants: dict[str, Array]) -> None:
    """Fill `values` with what the group hands out, keeping no more of its inside than `bands` allows."""
    rings = {name: Ring(count) for name, count in bands(graph, view, rows).items() if name in view.inside}
    height = {n: graph.tensors[n].shape[2] for n in (*view.inputs, *(op.outputs[0] for op in view.ops))}
    made = {op.outputs[0]: 0 for op in view.ops}
    values[view.result] = np.full(graph.tensors[view.result].shape, np.nan)

    def make(op: Op, begin: int, end: int) -> None:
        window, out = row_window(graph, op), op.outputs[0]
        arrays = []
        for name in op.inputs:
            if height[name] == 1 < height[out]:
                arrays.append(values[name])
                continue
            fill = -np.inf if op.kind == "pool" else 0.0
            band = []
            for row in range(
                begin * window.stride - window.before, (end - 1) * window.stride - window.before + window.size
            ):
                if 0 <= row < height[name]:
                    band.append(rings[name].get(row) if name in rings else values[name][:, :, row])
                else:
                    band.append(np.full(graph.tensors[name].shape[:2] + graph.tensors[name].shape[3:], fill))
            arrays.append(np.stack(band, axis=2))
        local = op
        if isinstance(op.attrs, kinds.Conv | kinds.Pool):
            attrs = type(op.attrs)(**{**fields_of(op.attrs), "pads": (0, op.attrs.pads[1], 0, op.attrs.pads[3])})
            local = Op(op.name, attrs, op.inputs, op.outputs, op.constants)
        result = reference.evaluate(local, arrays, {role: constants[n] for role, n in op.constants.items()})
        for index, row in enumerate(range(begin, end)):
            if out in rings:
                rings[out].put(row, result[:, :, index])
            else:
                values[out][:, :, row] = result[:, :, index]

    totals = {op.name: 0.0 for op in view.sums}
    for first in range(0, height[view.result], rows):
        end = {view.result: min(first + rows, height[view.result])}
        order = [op for op in view.ops if op not in view.sums]
        for op in reversed(order):
            window, out = row_window(graph, op), op.outputs[0]
            if end.get(out, 0) > made[out]:
                for name in op.inputs:
                    end[name] = max(end.get(name, 0), window.reads(made[out], end[out], height[name])[1])
        for op in order:
            out = op.outputs[0]
            if end.get(out, 0) > made[out]:
                make(op, made[out], end[out])
                made[out] = end[out]
        for op in view.sums:
            totals[op.name] = totals[op.name] + values[view.result][:, :, first : end[view.result]].sum(
                (2, 3), keepdims=True
            )
    for op in view.sums:
        shape = graph.tensors[view.result].shape
        values[op.outputs[0]] = totals[op.name] / (shape[2] * shape[3])


def fields_of(attrs: kinds.Conv | kinds.Pool) -> dict[str, object]:
    return {name: getattr(attrs, name) for name in attrs.__slots__}


@settings(max_examples=150)
@given(case=row_groups())
def test_tiles_in_rings_compute_what_the_whole_maps_do(case: tuple[Graph, Group]) -> None:
    graph, group = case
    check(graph, Schedule("mine", (group, Group(("end",)))))
    draw = np.random.default_rng(1)
    # small integers: sums are exact whatever their order
    constants = {n: draw.integers(-2, 3, t.shape).astype(np.float64) for n, t in graph.constants.items()}
    values = {n: draw.integers(-3, 4, graph.tensors[n].shape).astype(np.float64) for n in graph.inputs}
    whole = reference.run(graph, constants, values)
    assert group.tile.rows is not None
    run_tiles(graph, scope(graph, group), group.tile.rows, values, constants)
    end = next(op for op in graph.ops if op.name == "end")
    result = reference.evaluate(end, [values[end.inputs[0]]], {"weight": constants["end.weight"]})
    np.testing.assert_array_equal(result, whole["end"])
    np.testing.assert_allclose(values["pool"], whole["pool"], rtol=1e-12)  # the mean divides
