"""Time against the size of the tile: every group that runs band by band, under bands of other heights, and not banded.

Everything else of a group stays as the kernels choose it; all groups change their tiles at once, plan by plan, and are
timed inside the running network (`luthier.engine.trials`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median, quantiles
from typing import Any, Final

from numpy.typing import NDArray

from luthier.engine.expected import expected
from luthier.engine.program import DataOrder
from luthier.engine.results import TileCurve, TileTime
from luthier.engine.target import Target, host
from luthier.engine.trials import Trials
from luthier.engine.tuned import Part, Region, regions
from luthier.errors import InputError
from luthier.graph.op import Graph
from luthier.schedule import Group, Tile, tile_space, working_set

Array = NDArray[Any]
_MOST_TILES: Final = 10


def tile_curves(
    graph: Graph,
    constants: Mapping[str, Array],
    *,
    blocks: Sequence[str] = (),
    target: Target | None = None,
    threads: int = 1,
    order: DataOrder = "nchw",
    rounds: int = 15,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[TileCurve, ...]:
    """One curve for every kind of group that runs band by band.

    Args:
        graph, constants, target, threads, order: as for `compile`.
        blocks: names of the network's blocks whose groups are wanted; none = all.
        rounds: that medians are taken of.
        progress: called with plans compiled and plans in all.
    Raises:
        InputError: no such group.
    """
    target = target or host()
    found = regions(graph, target, threads, order)
    place = {op.name: op.block for op in graph.ops}
    wanted = {
        region.key: region
        for region in reversed(found)
        if region.cuts and (not blocks or place[region.ops[0]] in blocks)
    }
    if not wanted:
        raise InputError(f"tile_curves: no group of {', '.join(blocks) or 'the network'} runs band by band")
    trials = Trials(graph, constants, target, threads, order, found)
    kernels = {key: made[0] for key, made in trials.kernels({}).items() if key in wanted}
    tiles = {key: _tiles(graph, region, kernels[key].tile) for key, region in wanted.items()}
    plans: list[dict[str, tuple[Part, ...]]] = []
    for index in range(max(len(one) for one in tiles.values())):
        plans.append({key: _parts(wanted[key], one[min(index, len(one) - 1)]) for key, one in tiles.items()})
        trials.times(plans[-1:], 1)
        if progress is not None:
            progress(index + 1, max(len(one) for one in tiles.values()))
    times = trials.times(plans, rounds)
    curves = []
    for key, region in reversed(wanted.items()):
        rows = []
        for index, tile in enumerate(tiles[key]):
            spans = [row[index][key] for row in times]
            modelled = [expected(kernel, target) for kernel in trials.kernels(plans[index])[key]]
            cycles = sum(one.cycles(threads) for one in modelled if one is not None)
            need = working_set(graph, Group(region.ops), tile or Tile()).total_bytes
            low, _, high = quantiles(spans, n=4, method="inclusive")
            shown = tile or Tile()
            rows.append(TileTime(shown.rows, shown.channels, need, median(spans), high - low, cycles))
        clock = median(one.latency_s / one.modelled_s for one in rows if one.rows is not None)
        measured = tuple(replace(one, modelled_s=one.modelled_s * clock) for one in rows)
        curves.append(TileCurve(region.ops, place[region.ops[0]], kernels[key].tile.rows, measured))
    return tuple(curves)


def _tiles(graph: Graph, region: Region, chosen: Tile) -> list[Tile | None]:
    """Bands from one row to the whole map, evenly on a scale of ratios, the kernels' own among them; last, none."""
    space = sorted(
        {rows for rows in tile_space(graph, Group(region.ops)).rows if rows is not None} | {chosen.rows or 1}
    )
    height = graph.output_shape(next(op for op in graph.ops if op.name == region.ops[-1]))[2]
    space = sorted({rows for rows in tile_space(graph, Group(region.ops)).rows if rows is not None} | {height})
    picked = {space[round(index * (len(space) - 1) / (_MOST_TILES - 2))] for index in range(_MOST_TILES - 1)}
    return [*(Tile(rows, chosen.channels) for rows in sorted({*picked, chosen.rows or 1})), None]


def _parts(region: Region, tile: Tile | None) -> tuple[Part, ...]:
    if tile is None:
        return next(parts for parts in region.cut() if len(parts) > 1)
    return (replace(region.whole[0], tile=tile),)
