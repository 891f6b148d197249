"""The same findings in a dozen lines, for the terminal at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from luthier import units
from luthier.job.result import Result
from luthier.report import words
from luthier.report.tables import limit_rows

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

FILES: Final = (
    ("report.html", "this run, explained"),
    ("model.onnx", "the network, for any runtime"),
    ("model.safetensors", "its weights"),
    ("network.json", "its description"),
)


def lines(result: Result, run_dir: Path | None = None) -> Group:
    """Accuracy, costs, limits and files as a rich renderable.

    Args:
        result: of a finished run.
        run_dir: the run folder; without it no files are listed.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    best = result.winner
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("limit", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("how", style="dim")

    low_high = words.percent_range(best.test_interval)
    test = f"measured, {words.counted(result.data.num_test, 'image')}, 95 % interval {low_high}"
    table.add_row("test accuracy", Text(words.percent(best.test_accuracy), "bold"), "", "", test)
    table.add_row("validation accuracy", words.percent(best.val_accuracy), "", "", "measured")
    for limit in limit_rows(result.limits):
        sign = Text("holds", "green") if limit.holds else Text("exceeded", "bold red")
        table.add_row(_text(limit.name), limit.value, limit.limit, sign, f"{limit.kind}, {limit.used} of the limit")
    spread = units.show(best.latency_spread_s, "latency")
    how = Text(f"measured, ± {spread}, {words.clean(best.latency_runtime)}, batch 1")
    table.add_row("latency", units.show(best.latency_s, "latency"), "", "", how)
    table.add_row("MACs", units.show(best.macs, "count"), "", "", "modelled")
    table.add_row("parameters", units.show(best.params, "count"), "", "", "modelled")
    table.add_row("peak activations", units.show(best.peak_activation_bytes, "bytes"), "", "", "modelled")
    table.add_row("model.onnx", units.show(best.size_bytes, "bytes"), "", "", "measured")

    took, allowed = units.show(result.wall_s, "duration"), units.show(result.time_limit_s, "duration")
    head = Text.assemble((words.clean(best.name), "bold"), f"  {words.clean(result.title)}, {took} of {allowed}")
    parts: list[Text | Table] = [head, table]
    parts += [Text(f"note: {words.clean(remark)}") for remark in result.remarks]
    if run_dir is not None:
        listing = Table(box=None, pad_edge=False, show_header=False)
        listing.add_column(overflow="fold")
        listing.add_column(style="dim")
        for name, what in FILES:
            listing.add_row(_text(str(run_dir / name)), what)
        parts.append(listing)
    return Group(*parts)


def _text(name: str) -> Text:
    # a Text is shown as it is; a str would be read as rich's markup
    from rich.text import Text

    return Text(words.clean(name))
