"""What a lab found, as frozen data: records of trainings, arms, differences, floors, claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

SCHEMA: Final = "luthier.lab/1"
RECORD_SCHEMA: Final = "luthier.lab-record/1"
RUN_SCHEMA: Final = "luthier.lab-run/1"
Verdict = Literal["supported", "contradicted", "not distinguishable", "no verdict"]
Sign = Literal["above zero", "below zero", "not distinguishable", "no interval"]


@dataclass(frozen=True)
class Record:
    """One training, finished.

    Attributes:
        arm, seed: which one.
        numbers: what was measured, by name; an arm whose training diverged has none.
        wall_s: how long it took, resumptions left out.
    """

    arm: str
    seed: int
    numbers: Mapping[str, float]
    wall_s: float


@dataclass(frozen=True)
class ArmSeen:
    """One arm over its seeds.

    Attributes:
        facts: known before any training.
        means: of every measured number over `seeds`.
        half_widths: of the 95 % t intervals of those means; absent below two seeds.
        seeds: how many trainings ended with numbers.
    """

    name: str
    group: str
    facts: Mapping[str, float]
    means: Mapping[str, float]
    half_widths: Mapping[str, float]
    seeds: int


@dataclass(frozen=True)
class Difference:
    """A weighted sum of arms, formed seed by seed, claimed to be above zero.

    Attributes:
        mean, low, high: in `unit`; the interval is the paired t interval over the seeds, 95 %; None = below two seeds.
        smallest_detectable: the true difference that as many seeds with this spread find in four of five labs.
        seeds: how many have all its arms.
        sign: what its own interval says, other comparisons left aside.
    """

    title: str
    unit: str
    mean: float | None
    low: float | None
    high: float | None
    smallest_detectable: float | None
    seeds: int
    sign: Sign


@dataclass(frozen=True)
class FloorSeen:
    """Whether the arms can be trusted: a difference that must stay at or below `most`."""

    difference: Difference
    most: float
    met: bool


@dataclass(frozen=True)
class ClaimSeen:
    """One claim of the textbook and what came out."""

    title: str
    text: str
    differences: tuple[Difference, ...]
    floors: tuple[FloorSeen, ...]
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Curve:
    """A drawing of one group: a measured number over a fact of the arms, or over another measured number.

    Attributes:
        x: name of the fact or number, which is positive; y: of the number.
        series: names and their arms, from left to right.
    """

    title: str
    x: str
    x_label: str
    y: str
    y_label: str
    series: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class LabResult:
    """Everything that a page says about a lab.

    Attributes:
        settings: how all arms were trained, in words.
        records: in the order of seeds, then arms.
        missing: trainings that are still to be run.
        environment: versions and machine.
    """

    name: str
    title: str
    question: str
    size: str
    settings: Mapping[str, str]
    seeds: int
    arms: tuple[ArmSeen, ...]
    claims: tuple[ClaimSeen, ...]
    curves: tuple[Curve, ...]
    records: tuple[Record, ...]
    missing: int
    environment: Mapping[str, str] = field(default_factory=dict)
