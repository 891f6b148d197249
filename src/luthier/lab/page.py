"""A lab's findings as people read them: Markdown with figures, one HTML file, lines on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from luthier import files, units
from luthier.lab.figure import figures
from luthier.lab.result import SCHEMA, ArmSeen, ClaimSeen, Difference, LabResult
from luthier.report import frame
from luthier.report.tables import Column, Table
from luthier.report.words import NONE, counted, signed

if TYPE_CHECKING:
    from rich.console import Group

_COUNTS: Final = ("macs", "params")
#: of the terminal, which has room for few
_NARROW: Final = ("difference", "mean", "95 % interval", "seen")
HOW: Final = (
    "Every arm is trained with every seed; a seed draws split, initialisation and order of images, the same for all "
    "arms. Differences are formed seed by seed; their intervals are paired t intervals over the seeds, 95 % each. "
    "A claim is supported where every one of its differences is above zero, and contradicted where one is below zero "
    "even after Bonferroni's correction for the claim's comparisons. The smallest detectable difference is the true "
    "difference that as many seeds with this spread would find in four of five labs. A mean's ± is the half width of "
    "its own 95 % t interval. Intervals cover what a seed draws; the images that judge are the same for all seeds, "
    "unless it says otherwise below, and their choice is not covered."
)


def _number(key: str, value: float) -> str:
    if key in _COUNTS:
        return units.show(value, "count")
    return f"{100 * value:.2f} %" if key.endswith("accuracy") else f"{value:.4g}"


def _mean(arm: ArmSeen, key: str) -> str:
    if key not in arm.means:
        return NONE
    half = arm.half_widths.get(key)
    spread = "" if half is None else f" ± {_number(key, half)}".removesuffix(" %")
    return _number(key, arm.means[key]).removesuffix(" %") + spread + (" %" if key.endswith("accuracy") else "")


def arm_table(arms: Sequence[ArmSeen]) -> Table:
    """Arms of one group: facts, then means with half widths."""
    facts = list(dict.fromkeys(key for arm in arms for key in arm.facts))
    keys = list(dict.fromkeys(key for arm in arms for key in arm.means))
    columns = (
        Column("arm"),
        *(Column(key.replace("_", " "), numeric=True) for key in facts),
        *(Column(key.replace("_", " "), "measured", numeric=True) for key in keys),
        Column("seeds", numeric=True),
    )
    rows = tuple(
        (
            arm.name,
            *(_number(key, arm.facts[key]) if key in arm.facts else NONE for key in facts),
            *(_mean(arm, key) for key in keys),
            str(arm.seeds),
        )
        for arm in arms
    )
    return Table(columns, rows)


def difference_table(claim: ClaimSeen) -> Table:
    """Differences of a claim, then its floors."""
    columns = (
        Column("difference"), Column("mean", "measured", numeric=True), Column("95 % interval", numeric=True),
        Column("smallest detectable", numeric=True), Column("seeds", numeric=True), Column("seen"),
    )  # fmt: skip
    rows: list[tuple[str, ...]] = [(*_cells(difference), difference.sign) for difference in claim.differences]
    for floor in claim.floors:
        met = "met" if floor.met else "not met"
        rows.append((*_cells(floor.difference), f"floor, at most {floor.most:.1f} {floor.difference.unit}: {met}"))
    return Table(columns, tuple(rows))


def _cells(difference: Difference) -> tuple[str, str, str, str, str]:
    d = difference
    interval = NONE if d.low is None or d.high is None else f"{signed(d.low)} to {signed(d.high)}"
    mean = NONE if d.mean is None else f"{signed(d.mean)} {d.unit}"
    return d.title, mean, interval, signed(d.smallest_detectable), str(d.seeds)


def groups(found: LabResult) -> list[tuple[str, list[ArmSeen]]]:
    """Arms by group, in their order."""
    names = dict.fromkeys(arm.group for arm in found.arms)
    return [(name, [arm for arm in found.arms if arm.group == name]) for name in names]


def verdict(claim: ClaimSeen) -> str:
    """The claim's end in one sentence."""
    return f"{claim.title}: {claim.verdict}; {claim.reason}"


def progress(found: LabResult) -> str:
    """How much of the lab there is."""
    whole = len(found.records) + found.missing
    left = f", {counted(found.missing, 'training')} to go" if found.missing else ""
    return (
        f"{len(found.records)} of {counted(whole, 'training')}{left}; {counted(found.seeds, 'seed')}, size {found.size}"
    )


def markdown(found: LabResult) -> str:
    """The page in docs/labs; its figures lie beside it under `figures(...)`'s names with the lab's in front."""
    lines = [f"# Lab {found.name}: {found.title}", "", found.question, "", f"{progress(found).capitalize()}.", ""]
    for claim in found.claims:
        lines += [f"## {claim.title}", "", f"> {claim.text}", "", f"**{claim.verdict.capitalize()}**: {claim.reason}."]
        lines += ["", *_markdown_table(difference_table(claim)), ""]
    lines += ["## Arms", ""]
    for name, arms in groups(found):
        lines += [f"### {name}", ""] if name else []
        lines += [*_markdown_table(arm_table(arms)), ""]
    for name, curve in zip(figures(found.curves, found.arms), found.curves, strict=True):
        lines += [f"![{curve.title}]({found.name}-{name})", ""]
    lines += ["## How", "", HOW, ""]
    lines += [f"- {key}: {value}" for key, value in found.settings.items()]
    lines += [f"- {key}: {value}" for key, value in found.environment.items()]
    command = f"luthier lab {found.name}" + ("" if found.size == "quick" else f" --{found.size}")
    lines += [
        "",
        f"Repeat it with `{command}`; every training's numbers are in [{found.name}.json]({found.name}.json).",
    ]
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table) -> list[str]:
    head = [column.title for column in table.columns]
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *table.rows)]


def lines(found: LabResult) -> Group:
    """For the terminal: each claim with its differences."""
    from rich.console import Group
    from rich.text import Text

    from luthier.report.analysis.terminal import grid

    parts: list[object] = [Text(progress(found))]
    for claim in found.claims:
        parts += [Text(verdict(claim), "bold"), grid(difference_table(claim), _NARROW)]
    return Group(*parts)  # type: ignore[arg-type]


def render(found: LabResult, version: str) -> str:
    """The findings as one HTML file."""
    from markupsafe import Markup

    content = {
        "headline": f"Lab {found.name}: {found.title}",
        "found": found,
        "progress": progress(found),
        "how": HOW,
        "claims": [(claim, difference_table(claim)) for claim in found.claims],
        "groups": [(name, arm_table(arms)) for name, arms in groups(found)],
        # our own drawing, whose only text is escaped
        "figures": [Markup(svg) for svg in figures(found.curves, found.arms).values()],
    }
    return frame.fill("lab.html.j2", f"Lab {found.name}", version, content)


def write(found: LabResult, version: str, folder: Path) -> list[Path]:
    """`NAME.json`, `NAME.md`, its figures and `NAME.html` in a folder, each whole or not at all."""
    texts = {
        f"{found.name}.json": json.dumps({"schema": SCHEMA, **asdict(found)}, indent=1) + "\n",
        f"{found.name}.md": markdown(found),
        f"{found.name}.html": render(found, version),
        **{f"{found.name}-{name}": svg for name, svg in figures(found.curves, found.arms).items()},
    }
    for name, text in texts.items():
        files.write_text(folder / name, text)
    return [folder / name for name in texts]
