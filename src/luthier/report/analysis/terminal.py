"""An analysis on the terminal: totals, stages, layers; or several networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luthier import units
from luthier.cost.analysis import Analysis
from luthier.report import words
from luthier.report.analysis import tables
from luthier.report.analysis.page import conditions, figures

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

    from luthier.report.tables import Table


def lines(analysis: Analysis, layers: bool = False) -> Group:
    """One network: what it costs, stage by stage, and the verdict.

    Args:
        analysis: what is shown.
        layers: also every group of ops.
    """
    from rich.console import Group
    from rich.text import Text

    head = Text.assemble(
        (words.clean(analysis.model), "bold"), f" on {words.clean(analysis.device_title)}, {conditions(analysis)}"
    )
    parts: list[Text | RichTable] = [head, _figures(analysis), grid(tables.stages(analysis))]
    if layers:
        parts.append(grid(tables.groups(analysis)))
    if len(analysis.sides) > 1:
        parts.append(grid(tables.sides(analysis)))
    parts += [Text(crossing.text) for crossing in analysis.crossings]
    if analysis.saving is not None:
        parts.append(Text(analysis.saving.text))
    if analysis.fits is not None:
        parts.append(Text(analysis.verdict, "bold green" if analysis.fits else "bold red"))
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


def grid(table: Table) -> RichTable:
    """A table of the report for the terminal."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        title = f"{column.title}\n{column.kind}" if column.kind else column.title
        shown.add_column(
            Text(title), justify="right" if column.numeric else "left", no_wrap=column.numeric, overflow="fold"
        )
    for row in table.rows:
        shown.add_row(*(Text(words.clean(cell)) for cell in row))
    if table.foot:
        shown.add_row(*(Text(cell, "bold") for cell in table.foot))
    return shown


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
