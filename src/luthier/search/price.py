"""What the networks of a space cost, for whole populations: the columns that limits and objectives are about.

    latency_s = sum over blocks of min(unfused, fused)                                               (1)
    energy_j  = sum over blocks of the energy of the faster of the two                               (2)

The schedule of a group of ops concerns no other group, so the best one is found block by block, once per row of the
cost tables.  Both are the roofline's (`luthier.cost.roofline`), every group through the last memory level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from luthier.cost.groups import Setting, analyse_groups, analyse_ops
from luthier.cost.roofline import add_known
from luthier.cost.tables import CostTables, Genes, Quantity
from luthier.device import Device
from luthier.graph.op import Graph
from luthier.schedule import Schedule, fast_bytes, fused, unfused
from luthier.search.space import Space

Array = NDArray[np.float64]
Prices = Mapping[str, Array]
#: what can be an objective, and the dimension in `luthier.units`
COSTS: Final = {
    "latency_s": "latency", "energy_j": "energy", "macs": "count", "params": "count",
    "peak_activation_bytes": "bytes", "weight_bytes": "bytes",
}  # fmt: skip
#: field of `Budget` -> column
LIMITED: Final = {
    "max_macs": "macs", "max_params": "params", "max_memory_bytes": "peak_activation_bytes",
    "max_size_bytes": "weight_bytes", "max_latency_s": "latency_s", "max_energy_j": "energy_j",
}  # fmt: skip


class Latency(Protocol):
    """A model of latency that is asked about populations."""

    def __call__(self, genes: Genes) -> Array: ...


class Pricer:
    """Costs of rows of genes.

    Args:
        space: of the rows.
        quantities: that add up over blocks, such as `on_device` gives.
        latency: takes the place of the quantity `latency_s`.
    Example:
        >>> from luthier.search.space import get
        >>> space = get("thumbnail")
        >>> found = Pricer(space)(np.zeros((2, len(space.genes)), int))
        >>> sorted(found), int(found["macs"][0])
        (['macs', 'params', 'peak_activation_bytes', 'weight_bytes'], 198592)
    """

    def __init__(
        self, space: Space, quantities: Mapping[str, Quantity] | None = None, latency: Latency | None = None
    ) -> None:
        self.space, self.latency = space, latency
        self._tables = CostTables(space.slots, quantities)

    def __call__(self, genes: Genes) -> Prices:
        """Columns (nets,) by name, see `COSTS`."""
        found = self._tables.costs(self.space.slot_rows(genes))
        prices: dict[str, Array] = {
            key: getattr(found, key).astype(np.float64)
            for key in ("macs", "params", "peak_activation_bytes", "weight_bytes")
        }
        prices |= found.extra
        if self.latency is not None:
            prices["latency_s"] = self.latency(genes)
        return prices


@dataclass(frozen=True)
class Solved:
    """The better of the two schedules that every graph has.

    Attributes:
        schedule: `unfused` where neither time is known.
        latency_s, energy_j: modelled under it; not a number where the device's file lacks what they need.
    """

    schedule: Schedule
    latency_s: float
    energy_j: float


def solve(graph: Graph, device: Device, threads: int = 1) -> Solved:
    """Equations (1) and (2) for one graph, such as a block's.

    Args:
        graph: as deployed, norms folded.
        device: the target.
        threads: that share the work, at most one per core.
    """
    on = Setting(graph, device, min(threads, device.cores), resident=False)
    ops, found = analyse_ops(on), []
    plain, tiled = unfused(graph), fused(graph, fast_bytes=fast_bytes(device))
    for schedule in (plain, tiled) if plain.groups != tiled.groups else (plain,):
        groups = analyse_groups(on, schedule, ops)
        latency_s = add_known(group.attainable_s for group in groups)
        energy_j = add_known(group.energy.total_j for group in groups)
        found.append(Solved(
            schedule, float("nan") if latency_s is None else latency_s, float("nan") if energy_j is None else energy_j
        ))  # fmt: skip
    # not a number is not below anything: the first stays
    return min(found, key=lambda solved: solved.latency_s)


def on_device(device: Device, threads: int = 1) -> dict[str, Quantity]:
    """`latency_s` and `energy_j` of a block on a device, modelled, as `CostTables` adds them up."""
    seen: tuple[Graph, Solved] | None = None

    def solved(graph: Graph) -> Solved:
        nonlocal seen
        if seen is None or seen[0] is not graph:
            seen = (graph, solve(graph, device, threads))
        return seen[1]

    return {"latency_s": lambda graph: solved(graph).latency_s, "energy_j": lambda graph: solved(graph).energy_j}
