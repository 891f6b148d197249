"""From records to differences with intervals, floors and verdicts in plain words."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

from luthier.intervals import student_t
from luthier.lab.experiment import LEAST_SEEDS, Arm, Claim, Contrast, Experiment, Matched
from luthier.lab.result import ArmSeen, ClaimSeen, Difference, FloorSeen, LabResult, Record, Sign, Verdict

CONFIDENCE = 0.95
POWER = 0.8


def half_width(values: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Half of Student's t interval of a mean; of differences formed in pairs, the paired t interval.

        half = t((1 + confidence) / 2, n - 1) * s / sqrt(n)                                            (1)

    Args:
        values: n >= 2 of them.
    Source:
        Student 1908, Biometrika 6, 1-25.
    Example:
        >>> round(half_width([0.01, 0.02, 0.03]), 5)
        0.02484
    """
    n = len(values)
    return student_t((1 + confidence) / 2, n - 1) * statistics.stdev(values) / math.sqrt(n)


def smallest_detectable(values: Sequence[float], confidence: float = CONFIDENCE, power: float = POWER) -> float:
    """The true difference that as many pairs with this spread would find, with probability `power`.

        smallest = (t((1 + confidence) / 2, n - 1) + t(power, n - 1)) * s / sqrt(n)                     (2)

    Args:
        values: n >= 2 differences.
    Source:
        the usual approximation of the noncentral t distribution; Cohen 1988, Statistical Power Analysis, chapter 2.
    """
    n = len(values)
    quantiles = student_t((1 + confidence) / 2, n - 1) + student_t(power, n - 1)
    return quantiles * statistics.stdev(values) / math.sqrt(n)


def differ(contrast: Contrast | Matched, records: Mapping[tuple[str, int], Record], seeds: int) -> Difference:
    """The contrast over all seeds that have every arm's number."""
    if isinstance(contrast, Matched):
        found_arms = enclose(contrast, records)
        if found_arms is None:
            return Difference(contrast.title, contrast.unit, None, None, None, None, 0, "no interval")
        contrast = found_arms
    values = []
    for seed in range(seeds):
        found = [records.get((arm, seed)) for _, arm in contrast.terms]
        numbers = [record.numbers.get(contrast.key) for record in found if record is not None]
        known = [number for number in numbers if number is not None]
        if len(known) == len(contrast.terms):
            weighted = zip(contrast.terms, known, strict=True)
            values.append(contrast.scale * sum(weight * number for (weight, _), number in weighted))
    mean = statistics.fmean(values) if values else None
    if mean is None or len(values) < 2:
        return Difference(contrast.title, contrast.unit, mean, None, None, None, len(values), "no interval")
    half = half_width(values)
    sign: Sign = "not distinguishable"
    if abs(mean) > half:
        sign = "above zero" if mean > 0 else "below zero"
    return Difference(
        contrast.title, contrast.unit, mean, mean - half, mean + half, smallest_detectable(values), len(values), sign
    )


def enclose(matched: Matched, records: Mapping[tuple[str, int], Record]) -> Contrast | None:
    """Equation (2) of `Matched` as a contrast of three arms; None where no two arms of the curve enclose the level."""
    levels = {}
    for name in matched.arms:
        seen = [
            r.numbers[matched.level] for (arm, _), r in records.items() if arm == name and matched.level in r.numbers
        ]
        if seen:
            levels[name] = statistics.fmean(seen)
    curve = sorted((name for name in matched.curve if name in levels), key=levels.__getitem__)
    for below, above in itertools.pairwise(curve):
        if matched.arm in levels and levels[below] <= levels[matched.arm] <= levels[above]:
            span = math.log(levels[above] / levels[below])
            share = math.log(levels[matched.arm] / levels[below]) / span if span else 0.0
            terms = ((1.0, matched.arm), (share - 1, below), (-share, above))
            return Contrast(matched.title, terms, matched.key, matched.scale, matched.unit)
    return None


def weigh(claim: Claim, records: Mapping[tuple[str, int], Record], seeds: int, too_small: str = "") -> ClaimSeen:
    """A claim holds where every difference is above zero, and fails where one is below.

    That all are above needs no correction for their number (each alone must be); that one of k is below needs one:
    its interval is taken at 1 - 0.05 / k (Bonferroni).  Without enough pairs, or with a floor that is not met, there
    is no verdict.
    """
    differences = tuple(differ(contrast, records, seeds) for contrast in claim.contrasts)
    floors = []
    for floor in claim.floors:
        seen = differ(floor.contrast, records, seeds)
        floors.append(FloorSeen(seen, floor.most, seen.mean is not None and seen.mean <= floor.most))
    fewest = min((d.seeds for d in differences), default=0)
    contradicting = [d for d in differences if _below(d, len(differences))]
    doubtful = [d for d in differences if d.sign != "above zero"]
    verdict: Verdict = "no verdict"
    if too_small:
        reason = too_small
    elif fewest < LEAST_SEEDS:
        reason = f"{fewest} whole pairs, {LEAST_SEEDS} are needed"
    elif missed := [floor for floor in floors if not floor.met]:
        reason = f"a control is not near its plateau ({missed[0].difference.title})"
    elif contradicting:
        verdict, reason = "contradicted", f"{contradicting[0].title}: {say(contradicting[0])}"
    elif doubtful:
        verdict, reason = "not distinguishable", f"{doubtful[0].title}: {say(doubtful[0])}"
    else:
        closest = min(differences, key=lambda d: d.low or 0.0)
        verdict, reason = "supported", f"the closest difference, {closest.title}: {say(closest)}"
    return ClaimSeen(claim.title, claim.text, differences, tuple(floors), verdict, reason)


def _below(difference: Difference, comparisons: int) -> bool:
    """Whether a difference is below zero as one of several that were looked at."""
    d = difference
    if d.mean is None or d.high is None:
        return False
    quantiles = [student_t(1 - (1 - CONFIDENCE) / 2 / k, d.seeds - 1) for k in (1, comparisons)]
    return d.mean + (d.high - d.mean) * quantiles[1] / quantiles[0] < 0


def say(difference: Difference) -> str:
    """A difference in words.

    Example:
        >>> say(Difference("a - b", "points", 0.5, -0.25, 1.25, 1.5, 5, "not distinguishable"))
        '+0.50 points (-0.25 to +1.25, 5 seeds); smallest detectable 1.50'
    """
    if difference.mean is None:
        return "not measured"
    if difference.low is None or difference.high is None or difference.smallest_detectable is None:
        return f"{difference.mean:+.2f} {difference.unit} (one seed: no interval)"
    ends = f"{difference.low:+.2f} to {difference.high:+.2f}, {difference.seeds} seeds"
    text = f"{difference.mean:+.2f} {difference.unit} ({ends})"
    if difference.sign == "not distinguishable":
        text += f"; smallest detectable {difference.smallest_detectable:.2f}"
    return text


def judge(experiment: Experiment, records: Sequence[Record], environment: Mapping[str, str]) -> LabResult:
    """All that can be said from the records that there are."""
    by_place = {(record.arm, record.seed): record for record in records}
    ordered = [
        by_place[arm.name, seed]
        for seed in range(experiment.seeds)
        for arm in experiment.arms
        if (arm.name, seed) in by_place
    ]
    return LabResult(
        name=experiment.name, title=experiment.title, question=experiment.question, size=experiment.size,
        settings=experiment.settings, seeds=experiment.seeds,
        arms=tuple(_arm(arm, [record for record in ordered if record.arm == arm.name]) for arm in experiment.arms),
        claims=tuple(weigh(claim, by_place, experiment.seeds, experiment.too_small) for claim in experiment.claims),
        curves=experiment.curves, records=tuple(ordered),
        missing=len(experiment.arms) * experiment.seeds - len(ordered), environment=environment,
    )  # fmt: skip


def _arm(arm: Arm, records: Sequence[Record]) -> ArmSeen:
    known = [record.numbers for record in records if record.numbers]
    keys = [key for key in (known[0] if known else ()) if all(key in numbers for numbers in known)]
    columns = {key: [numbers[key] for numbers in known] for key in keys}
    halves = {key: half_width(values) for key, values in columns.items() if len(values) > 1}
    means = {key: statistics.fmean(values) for key, values in columns.items()}
    return ArmSeen(arm.name, arm.group, dict(arm.facts), means, halves, len(known))
