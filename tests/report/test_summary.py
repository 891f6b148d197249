"""The table for the terminal."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from rich.console import Console

from luthier.job.result import Limit, Result
from luthier.report import lines


def shown(result: Result, run_dir: Path | None = None, width: int = 110) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(lines(result, run_dir))
    return stream.getvalue()


def test_summary_says_accuracy_limits_and_files(result: Result) -> None:
    text = shown(result, Path("runs/a"))
    for part in ("78.7 %", "77.9 to 79.5 %", "--max-latency", "548 µs", "2 ms", "holds", "57 min of 1 h",
                 "runs/a/report.html", "runs/a/model.onnx", "measured", "modelled"):  # fmt: skip
        assert part in text
    assert "runs/" not in shown(result)


def test_summary_says_what_is_exceeded(result: Result) -> None:
    limits = (Limit("--max-latency", "latency", 0.002, 0.0021, "measured"),)
    assert "exceeded" in shown(dataclasses.replace(result, limits=limits))


def test_names_are_neither_markup_nor_terminal_codes(result: Result) -> None:
    odd = dataclasses.replace(result, title="[bold red]x[/] \x1b[2J", remarks=("[link=http://x]y[/link]\x07",))
    text = shown(odd, Path("runs/[red]a"))
    for part in ("[bold red]x[/]", "[link=http://x]y[/link]", "runs/[red]a/report.html"):
        assert part in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_summary_fits_a_narrow_terminal(result: Result) -> None:
    assert max(map(len, shown(result, Path("runs/a"), width=80).splitlines())) <= 80
