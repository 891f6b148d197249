"""Schedules in which every region takes one of its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.engine import Target
from luthier.engine.candidates import candidates
from luthier.engine.trials import Trials
from luthier.engine.tuned import Part, Region
from luthier.schedule import Choice, Tile

Known = dict[str, tuple[Part, ...]]


def one_each(
    found: tuple[Region, ...], trials: Trials, start: Mapping[str, tuple[Part, ...]], target: Target, threads: int,
    pick: Any,
) -> tuple[Known, list[tuple[str, int, Tile, Choice]]]:  # fmt: skip
    """Parts by key, and (key, index of the part, tile, choice) as asked; `start` says who begins otherwise."""
    known, asked = dict(start), []
    for key, kernels in trials.kernels(start).items():
        region = next(region for region in found if region.key == key)
        parts = list(start.get(key, region.default))
        if len(kernels) == len(parts):
            index = pick(len(parts))
            options = candidates(kernels[index], target, threads)
            if options:
                option = options[pick(len(options))]
                parts[index] = Part(parts[index].count, option.tile, option.choice)
                asked.append((key, index, option.tile, option.choice))
        known[key] = tuple(parts)
    return known, asked
