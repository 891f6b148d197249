"""The report's tables as data: columns that say what kind of number they hold, rows of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from luthier import units
from luthier.intervals import wilson
from luthier.job.result import Candidate, Limit, Result, Winner
from luthier.report import words

Kind = Literal["measured", "modelled", "predicted", ""]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        kind: what its numbers are; empty for names, settings and words.
        numeric: right-aligned, never broken over lines.
        wide: sentences, which need room on a narrow screen too.
    """

    title: str
    kind: Kind = ""
    numeric: bool = False
    wide: bool = False

    @property
    def css_class(self) -> str:
        return "n" if self.numeric else "w" if self.wide else "t"


@dataclass(frozen=True)
class Table:
    """Columns and rows of text, nothing escaped yet.

    Attributes:
        marked: indices of the rows that stand out.
        foot: a last row that is not one of its kind, such as a sum.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    foot: tuple[str, ...] = ()


@dataclass(frozen=True)
class LimitRow:
    """A limit, in words."""

    name: str
    limit: str
    value: str
    kind: str
    used: str
    used_share: float
    holds: bool


def limit_rows(limits: Sequence[Limit]) -> list[LimitRow]:
    """Every limit with what the winner came to, and how much of the limit that is."""
    rows = []
    for limit in limits:
        used = limit.value / limit.limit if limit.limit else float("inf")
        # three figures, because 100.02 % of a limit must not read as 100 %
        digits = f"{100 * used:.0f}" if used < 0.995 or used > 1.01 else f"{100 * used:.2f}"
        rows.append(
            LimitRow(
                name=limit.name,
                limit=units.show(limit.limit, limit.dimension),
                value=units.show(limit.value, limit.dimension),
                kind=limit.kind,
                used=f"{digits} %",
                used_share=min(1.0, used),
                holds=limit.holds,
            )
        )
    return rows


_COSTS = (
    Column("phi", numeric=True),
    Column("input, px", numeric=True),
    Column("params", "modelled", numeric=True),
    Column("MACs", "modelled", numeric=True),
    Column("peak activations", "modelled", numeric=True),
    Column("weights", "modelled", numeric=True),
    Column("latency", "measured", numeric=True),
)


def _costs(candidate: Candidate) -> tuple[str, ...]:
    return (
        words.signed(candidate.phi),
        str(candidate.resolution),
        units.show(candidate.params, "count"),
        units.show(candidate.macs, "count"),
        units.show(candidate.peak_activation_bytes, "bytes"),
        units.show(candidate.size_bytes, "bytes"),
        words.quantity(candidate.latency_s, "latency"),
    )


def trained_candidates(candidates: Sequence[Candidate]) -> Table:
    """Those that were trained, in their order, the winner marked."""
    chosen = [c for c in candidates if c.status != "left_out"]
    return Table(
        columns=(
            Column("candidate"),
            *_COSTS,
            Column("val. accuracy by round, %", "measured", numeric=True),
            Column("outcome", wide=True),
        ),
        rows=tuple((c.name, *_costs(c), _by_round(c), _outcome(c)) for c in chosen),
        marked=frozenset(i for i, c in enumerate(chosen) if c.status == "winner"),
    )


def left_out(candidates: Sequence[Candidate]) -> Table:
    """Those that were never trained, and why."""
    chosen = [c for c in candidates if c.status == "left_out"]
    return Table(
        columns=(Column("candidate"), Column("left out because", wide=True), *_COSTS),
        rows=tuple((c.name, c.reason, *_costs(c)) for c in chosen),
    )


def _by_round(candidate: Candidate) -> str:
    reached = ["diverged" if r.val_accuracy is None else f"{100 * r.val_accuracy:.1f}" for r in candidate.rungs]
    return " → ".join(reached) or words.NONE


def _outcome(candidate: Candidate) -> str:
    return f"{candidate.status}: {candidate.reason}" if candidate.reason else candidate.status


def layers(winner: Winner) -> Table:
    """The winner, block by block."""
    return Table(
        columns=(
            Column("block"),
            Column("kind"),
            Column("what it is", wide=True),
            Column("output C × H × W", numeric=True),
            Column("params", "modelled", numeric=True),
            Column("MACs", "modelled", numeric=True),
            Column("peak activations", "modelled", numeric=True),
        ),
        rows=tuple(
            (
                layer.name,
                layer.kind,
                layer.text,
                " × ".join(map(str, layer.output_chw)),
                f"{layer.params:,}",
                units.show(layer.macs, "count"),
                units.show(layer.peak_activation_bytes, "bytes"),
            )
            for layer in winner.layers
        ),
        foot=(
            "whole network", "", "", "", f"{winner.params:,}", units.show(winner.macs, "count"),
            units.show(winner.peak_activation_bytes, "bytes"),
        ),
    )  # fmt: skip


def confusions(winner: Winner, class_names: Sequence[str], most: int = 10) -> Table:
    """The pairs of classes that were mistaken most often."""
    pairs = sorted(
        (
            (count, truth, answer)
            for truth, row in enumerate(winner.confusion)
            for answer, count in enumerate(row)
            if count and truth != answer
        ),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )[:most]
    return Table(
        columns=(
            Column("truth"),
            Column("answer"),
            Column("images", "measured", numeric=True),
            Column("of the truth’s", "measured", numeric=True),
        ),
        rows=tuple(
            (class_names[t], class_names[a], f"{n:,}", words.percent(n / sum(winner.confusion[t]))) for n, t, a in pairs
        ),
    )


def weakest(winner: Winner, class_names: Sequence[str], most: int = 10) -> Table:
    """The classes that were recognised least, and those that could not be tested."""
    seen = []
    for index, row in enumerate(winner.confusion):
        total = sum(row)
        # a class without test images sorts after all others: nothing is known against it
        seen.append((row[index] / total if total else 2.0, index, row[index], total))
    rows = []
    for recall, index, right, total in sorted(seen)[:most]:
        interval = words.percent_range(wilson(recall, total)) if total else "no test image"
        rows.append((class_names[index], f"{right:,} of {total:,}", words.percent(recall if total else None), interval))
    return Table(
        columns=(
            Column("class"),
            Column("right", "measured", numeric=True),
            Column("recall", "measured", numeric=True),
            Column("95 % interval", "measured", numeric=True),
        ),
        rows=tuple(rows),
    )


def untested(result: Result) -> int:
    """Number of classes without a test image."""
    return sum(not sum(row) for row in result.winner.confusion)
