"""The four tasks by name, the data sets that each knows, and how a file is told to be one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from luthier.errors import DataError
from luthier.scene.tasks.application import Application
from luthier.scene.tasks.canopies import canopies
from luthier.scene.tasks.crop_stress import crop_stress
from luthier.scene.tasks.deforestation import deforestation_map, deforestation_series
from luthier.scene.tasks.minerals import abundance, minerals
from luthier.scene.tasks.water_quality import water_quality
from luthier.train.npz_members import npz_members

TaskName = Literal["crop-stress", "water-quality", "deforestation", "minerals"]


@dataclass(frozen=True)
class Design:
    """A data set that a task knows.

    Attributes:
        task: what it belongs to.
        name: of its application.
        keys: arrays that its archive must hold, and by which it is told.
        make: path -> application.
        repeats: of the splits, where none are asked for.
    """

    task: TaskName
    name: str
    keys: frozenset[str]
    make: Callable[[Path], Application]
    repeats: int


DESIGNS: Final = (
    Design("crop-stress", "crop-stress", frozenset({"spectra", "wavelengths_nm", "labels"}), crop_stress, 3),
    Design("crop-stress", "crop-stress-canopies", frozenset({"n", "k_chl", "k_car", "soil"}), canopies, 2),
    Design(
        "water-quality", "water-quality", frozenset({"rrs_per_sr", "wavelengths_nm", "chl_mg_m3"}), water_quality, 3
    ),
    Design("deforestation", "deforestation-series", frozenset({"series", "labels"}), deforestation_series, 3),
    Design(
        "deforestation", "deforestation-map", frozenset({"cube", "gt", "polygon_id", "bounds"}), deforestation_map, 2
    ),
    Design("minerals", "minerals", frozenset({"spectra", "wavelengths_um", "names"}), minerals, 3),
    Design("minerals", "minerals-abundance", frozenset({"cube", "endmembers", "abundance"}), abundance, 1),
)


def find(task: TaskName, data: Path) -> list[tuple[Design, Path]]:
    """The task's data sets in a file, or anywhere below a folder; the first of each kind by path.

    Raises:
        DataError: nothing there holds the arrays of one of the task's data sets.
    """
    mine = [design for design in DESIGNS if design.task == task]
    files = sorted(data.rglob("*.npz")) if data.is_dir() else [data]
    if not data.exists():
        raise DataError(f"{data}: no such file or folder; name an .npz archive, or a folder that holds one")
    found: list[tuple[Design, Path]] = []
    for design in mine:
        for path in files:
            if design.keys <= set(npz_members(path)):
                found.append((design, path))
                break
    if not found:
        wanted = " or ".join(f"({', '.join(sorted(design.keys))})" for design in mine)
        raise DataError(f"{data}: {task} needs an .npz archive with the arrays {wanted}; none is there")
    return found
