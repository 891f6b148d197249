"""What attention costs, gate by gate: the network with all gates, with one, and with none, from one trace."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from luthier.cost.analyser import analyze
from luthier.cost.budget import Budget, Violation
from luthier.cost.macs import graph_macs, graph_params
from luthier.cost.summary import cost
from luthier.deploy.turns import Opened, Turns, open_graph, time_in_turns
from luthier.device import Device
from luthier.errors import UnsupportedError
from luthier.graph.fold import fold_constants, fold_norm_into_conv, take_constants
from luthier.graph.from_torch import from_torch
from luthier.graph.gates import find_gates
from luthier.graph.op import Graph
from luthier.graph.ungate import fold_gate_factors, ungate
from luthier.job.results import Bill, GateBill
from luthier.nn.retrofit import Insertion, gates_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = dict[str, NDArray[Any]]


#: the price of all gates together is quoted most: it gets so many times the seconds of one gate
_WHOLE: Final = 8


@dataclass(frozen=True)
class Gated:
    """A network with gates, traced.

    Attributes:
        graph: batch norms apart.
        values: of its constants.
        muls: for every new gate, its multiplications.
    """

    graph: Graph
    values: Mapping[str, Any]
    muls: tuple[frozenset[str], ...]

    @classmethod
    def read(cls, module: nn.Module, input_shape: Sequence[int], count: int) -> Gated:
        """Trace a module.

        Args:
            module: with gates.
            input_shape: (1, C, H, W).
            count: how many of its gates are new; these are the last.
        """
        graph, values = from_torch(module, input_shape)
        gates = gates_of(module)
        assert gates is not None
        root = next(name for name, part in module.named_children() if part is gates)
        found = [gate.mul for gate in find_gates(graph)]
        muls = tuple(
            frozenset(mul for mul in found if mul.startswith(f"{root}.{number}."))
            for number in range(len(gates) - count, len(gates))
        )
        assert all(muls)
        return cls(graph, values, muls)

    def only(self, *numbers: int) -> Graph:
        """The graph with the new gates of these numbers alone."""
        gone = [mul for number, names in enumerate(self.muls) if number not in numbers for mul in names]
        return ungate(self.graph, gone)

    @cached_property
    def without(self) -> Graph:
        """The graph without new gates."""
        return self.only()

    @cached_property
    def base(self) -> tuple[Graph, Values]:
        """The same, deployed."""
        return self.deployed(self.without)

    def added(self, number: int) -> tuple[int, int]:
        """Parameters and MACs of one gate."""
        graph = self.only(number)
        return graph_params(graph) - graph_params(self.without), graph_macs(graph) - graph_macs(self.without)

    def deployed(self, graph: Graph) -> tuple[Graph, Values]:
        """A part of the graph as it runs: norms and the gates' factors folded."""
        constants = fold_constants(graph, take_constants(graph, self.values))
        return fold_gate_factors(fold_norm_into_conv(graph), constants)


@dataclass(frozen=True)
class Meter:
    """Where costs are told.

    Attributes:
        device: energy, and the latency that a limit is judged by where it is not this machine.
        threads: of a run.
        seconds: for each pair of networks that is timed.
        bases: the network without gates, of the trace that is billed at present, by run time.
    """

    device: Device
    threads: int
    seconds: float = 1.0
    bases: dict[tuple[int, bool], Opened] = field(default_factory=dict, repr=False)

    def price(self, graph: Graph, latency_s: float, spread_s: float) -> Bill:
        """The bill of one graph, batch norms apart."""
        price = cost(graph)
        totals = analyze(graph, self.device, threads=min(self.threads, self.device.cores)).totals
        return Bill(
            params=price.params, macs=price.macs, weight_bytes=price.weight_bytes,
            peak_activation_bytes=price.peak_activation_bytes, latency_s=latency_s, latency_spread_s=spread_s,
            target_latency_s=totals.image_latency_s, energy_j=totals.image_energy_j,
        )  # fmt: skip

    def times(self, gated: Gated, graph: Graph) -> Turns:
        """The network without gates and another, in turns: in our engine, or, if it lacks an op, in ONNX Runtime."""
        other = gated.deployed(graph)
        try:
            pair = self.opened(gated, engine=True), open_graph(*other, self.threads)
        except UnsupportedError:
            pair = self.opened(gated, engine=False), open_graph(*other, self.threads, engine=False)
        shape = graph.tensors[graph.inputs[0]].shape
        return time_in_turns(*pair, shape, budget_s=self.seconds)

    def opened(self, gated: Gated, *, engine: bool) -> Opened:
        """The network without gates, opened once."""
        if (known := self.bases.get((id(gated), engine))) is None:
            known = open_graph(*gated.base, self.threads, engine=engine)
            self.bases.clear()
            self.bases[id(gated), engine] = known
        return known

    def whole(self, gated: Gated) -> tuple[Bill, Bill, Turns]:
        """Bills without and with all gates, and how the two ran in turns."""
        turns = dataclasses.replace(self, seconds=_WHOLE * self.seconds).times(gated, gated.graph)
        before = self.price(gated.without, turns.first_s, turns.first_spread_s)
        return before, self.price(gated.graph, turns.second_s, turns.second_spread_s), turns

    def gate(self, gated: Gated, number: int, insertion: Insertion, hw: tuple[int, int], before: Bill) -> GateBill:
        """What one gate adds."""
        graph = gated.only(number)
        turns = self.times(gated, graph)
        alone = self.price(graph, turns.second_s, turns.second_spread_s)
        energy_j = None
        if alone.energy_j is not None and before.energy_j is not None:
            energy_j = alone.energy_j - before.energy_j
        return GateBill(
            place=insertion.path, shape=(insertion.channels, *hw), reduced=insertion.reduced,
            params=alone.params - before.params, macs=alone.macs - before.macs, latency_s=turns.difference_s,
            latency_spread_s=turns.difference_spread_s, energy_j=energy_j,
        )  # fmt: skip


def violations(budget: Budget, bill: Bill, *, on_host: bool) -> tuple[Violation, ...]:
    """The limits that a bill breaks, the worst first; latency measured here, or modelled on another device."""
    latency_s = bill.latency_s if on_host else bill.target_latency_s
    return budget.violations(bill, latency_s, bill.energy_j)


def counted(budget: Budget) -> Budget:
    """The limits that shapes alone decide."""
    return dataclasses.replace(budget, max_latency_s=None)
