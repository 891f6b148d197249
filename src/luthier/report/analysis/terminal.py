"""An analysis on the terminal: totals, stages, layers; or several networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from luthier import units
from luthier.cost.analysis import Analysis
from luthier.job.results import Examination
from luthier.report import words
from luthier.report.analysis import tables
from luthier.report.analysis.page import conditions, figures, in_runtime, predicted
from luthier.report.analysis.roofline import busiest_level

_MOST_CROSSINGS: Final = 3

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

    from luthier.report.tables import Table


def lines(found: Examination, *, layers: bool = False) -> Group:
    """One network: what it costs, stage by stage, the verdict, and what to change.

    Args:
        found: what is shown.
        layers: also every group of ops, and every op's time in a run time.
    """
    from rich.console import Group
    from rich.text import Text

    analysis, advice = found.analysis, found.advice
    head = Text.assemble(
        (words.clean(analysis.model), "bold"), f" on {words.clean(analysis.device_title)}, {conditions(analysis)}"
    )
    level = busiest_level(analysis.groups, analysis.levels) or (analysis.levels[-1] if analysis.levels else "")
    outer = f"across {level}"
    stages = ("stage", "MACs", "weights", outer, "time", "share", "energy")
    parts: list[Text | RichTable] = [head, _figures(analysis), grid(tables.stages(analysis), stages)]
    if layers:
        layer = ("group", "tile", "MACs", f"FLOP/byte at {level}", "bound", "time", "share")
        parts.append(grid(tables.groups(analysis), layer))
        by_op = tables.kernels(found)
        if by_op is not None:
            parts.append(grid(by_op))
    if len(analysis.sides) > 1:
        parts.append(grid(tables.sides(analysis), ("schedule", "peak activations", outer, "time", "energy")))
    parts += [Text(line) for line in crossings(analysis)]
    if analysis.saving is not None:
        parts.append(Text(analysis.saving.text))
    parts += [Text(f"in {runtime}: {latency} {kind}") for runtime, latency, kind in in_runtime(found)]
    if found.prediction is not None:
        parts.append(Text("predicted from measurements: {}, {}".format(*predicted(found.prediction))))
    if analysis.fits is not None:
        parts.append(Text(analysis.verdict, "bold green" if analysis.fits else "bold red"))
    if advice is not None:
        parts += [Text(f"- {line}") for line in advice.lines[1:]]
    parts += [Text(f"note: {words.clean(remark)}") for remark in analysis.remarks]
    return Group(*parts)


def comparison(analyses: Sequence[Analysis]) -> RichTable:
    """Several networks on one device, a column for each."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for analysis in analyses:
        table.add_column(Text(words.clean(analysis.model)), justify="right")
    rows = [figures(analysis) for analysis in analyses]
    for index, (name, _, kind, _) in enumerate(rows[0]):
        table.add_row(f"{name} ({kind})", *(row[index][1] for row in rows))
    table.add_row("parameters", *(units.show(a.totals.params, "count") for a in analyses))
    table.add_row("elementwise work (modelled)", *(units.show(a.totals.elementwise_ops, "count") for a in analyses))
    for position, level in enumerate(analyses[0].levels):
        crossing = (next(s for s in a.sides if s.schedule == a.schedule).level_bytes[position] for a in analyses)
        table.add_row(f"across {level} (modelled)", *(units.show(value, "bytes") for value in crossing))
    if any(analysis.fits is not None for analysis in analyses):
        table.add_row("fits", *(words.NONE if a.fits is None else "yes" if a.fits else "no" for a in analyses))
    return table


def grid(table: Table, keep: Sequence[str] = ()) -> RichTable:
    """A table of the report for the terminal, which has room for few columns; what does not fit is folded.

    Args:
        table: of the report.
        keep: titles of the columns that are shown; empty = all.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    chosen = [i for i, column in enumerate(table.columns) if not keep or column.title in keep]
    kinds = {table.columns[i].kind for i in chosen} - {""}
    shown = RichTable(
        box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True,
        caption=f"figures are {' and '.join(sorted(kinds))}" if kinds else None,
    )  # fmt: skip
    for column in (table.columns[i] for i in chosen):
        # folded, because a number that is cut off reads as another number
        shown.add_column(Text(column.title), justify="right" if column.numeric else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(words.clean(row[i])) for i in chosen))
    if table.foot:
        shown.add_row(*(Text(table.foot[i], "bold") for i in chosen))
    return shown


def crossings(analysis: Analysis) -> list[str]:
    """What the schedule moved across ridges: the convolutions with most work, and how many more there are."""
    convolutions = {op.name: op.macs for op in analysis.ops if op.macs}
    chosen = sorted((c for c in analysis.crossings if c.op in convolutions), key=lambda c: -convolutions[c.op])
    more = len(analysis.crossings) - len(chosen[:_MOST_CROSSINGS])
    lines = [crossing.text for crossing in chosen[:_MOST_CROSSINGS]]
    return [*lines, f"{words.counted(more, 'more crossing')}: see --html or --json"] if more else lines


def _figures(analysis: Analysis) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for name, value, kind, how in figures(analysis):
        table.add_row(name, value, Text(", ".join(part for part in (kind, how) if part)))
    return table
