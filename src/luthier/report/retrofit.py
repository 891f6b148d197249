"""What attention costs in a network, and what it gains, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from luthier import units
from luthier.job.results import Retrofit
from luthier.report import words
from luthier.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Group


def _change(before: float | None, after: float | None) -> str:
    if not before or after is None:
        return words.NONE
    return f"{100 * (after / before - 1):+.2f} %"


def _added(value: float | None, dimension: str) -> str:
    return words.NONE if value is None else ("-" if value < 0 else "+") + units.show(abs(value), dimension)


def whole(found: Retrofit) -> Table:
    """The network before and after."""
    columns = (
        Column("of one image"), Column("before", numeric=True), Column("after", numeric=True),
        Column("change", numeric=True),
    )  # fmt: skip

    def row(name: str, field: str, dimension: str) -> tuple[str, ...]:
        before, after = getattr(found.before, field), getattr(found.after, field)
        return (
            name, words.quantity(before, dimension), words.quantity(after, dimension), _change(before, after)
        )  # fmt: skip

    rows = (
        row("parameters", "params", "count"), row("MACs", "macs", "count"),
        row("weights", "weight_bytes", "bytes"), row("peak memory, modelled", "peak_activation_bytes", "bytes"),
        row("latency, measured", "latency_s", "latency"), row("energy, modelled", "energy_j", "energy"),
    )  # fmt: skip
    return Table(columns, rows)


def gates(found: Retrofit) -> Table:
    """What each gate adds, alone."""
    columns = (
        Column("behind"), Column("C x H x W", numeric=True), Column("width", numeric=True),
        Column("params", numeric=True), Column("MACs", numeric=True), Column("latency", "measured", numeric=True),
        Column("energy", "modelled", numeric=True),
    )  # fmt: skip
    rows = tuple(
        (
            words.clean(gate.place), "x".join(map(str, gate.shape)),
            words.NONE if gate.reduced is None else str(gate.reduced),
            _added(gate.params, "count"), _added(gate.macs, "count"),
            f"{_added(gate.latency_s, 'latency')} ±{units.show(gate.latency_spread_s, 'latency')}",
            _added(gate.energy_j, "energy"),
        )
        for gate in found.gates
    )  # fmt: skip
    return Table(columns, rows)


def sentences(found: Retrofit) -> list[str]:
    """What the tables do not say."""
    lines = [
        f"{words.clean(found.model)} ({found.weights} weights) at {found.resolution} px, {found.attention} behind "
        f"{len(found.gates)} modules; {found.runtime}; energy on {words.clean(found.device_title)}"
    ]
    if found.limits:
        lines.append(f"limits kept: {found.limits}")
    if found.trials:
        bought = [f"{t.place} {t.reduction} (gain {t.gain_nats:.4f} nats)" for t in found.trials if t.chosen]
        lines.append(
            f"reduction: of {len(found.trials)} gates tried, each by the validation loss when it alone is off, the "
            f"most gain per share of the budget: {', '.join(bought)}"
        )
    if (tuned := found.tuned) is not None:
        (low, high), (low_after, high_after) = tuned.before_interval, tuned.after_interval
        lines.append(
            f"accuracy on {tuned.num_test} test images of {words.clean(tuned.data)}: {100 * tuned.before:.2f} % "
            f"[{100 * low:.1f}, {100 * high:.1f}] before, {100 * tuned.after:.2f} % "
            f"[{100 * low_after:.1f}, {100 * high_after:.1f}] after {tuned.epochs} epochs (measured)"
        )
    return [*lines, *found.remarks]


def lines(found: Retrofit) -> Group:
    """The tables and the sentences."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    return Group(grid(whole(found)), grid(gates(found)), *map(Text, sentences(found)))
