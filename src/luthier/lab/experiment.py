"""An experiment as data: arms, what is claimed of their differences, and when an arm may be trusted.

Every arm is trained with every seed.  A seed fixes split, initialisation and order of images for all arms alike, so
that differences are formed seed by seed: what makes a seed easy for all takes nothing from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from luthier.errors import InputError, SpecError
from luthier.lab.result import Curve

Size = Literal["quick", "standard", "full"]
Numbers: TypeAlias = Mapping[str, float]

#: fewer pairs give no verdict
LEAST_SEEDS: Final = 5


@dataclass(frozen=True)
class Order:
    """What a person asks of a lab; every process that trains builds the experiment from it.

    Attributes:
        name: of the lab.
        size: `quick` = minutes, too small for a verdict; `standard` = within 90 minutes on two cores; `full` = a GPU.
        data: folder of the real data, as the lab names its files; None = the lab needs none.
        seeds: None = the size's own number.
        accelerator: what trains.
    Raises:
        InputError: an unknown size, or fewer than one seed.
    """

    name: str
    size: Size = "quick"
    data: Path | None = None
    seeds: int | None = None
    accelerator: str = "auto"

    def __post_init__(self) -> None:
        if self.size not in get_args(Size):
            raise InputError(f"lab {self.name}: size must be one of {', '.join(get_args(Size))}, got {self.size!r}")
        if self.seeds is not None and self.seeds < 1:
            raise InputError(f"lab {self.name}: --seeds must be at least 1, got {self.seeds}")

    def file(self, name: str) -> Path:
        """A file of the data folder.

        Raises:
            InputError: no folder was named, or the file is not in it.
        """
        if self.data is None:
            raise InputError(f"lab {self.name}: needs {name}; name its folder with --data, or set LUTHIER_DATA")
        path = self.data / name
        if not path.is_file():
            raise InputError(f"lab {self.name}: {path}: no such file; name the folder that holds {name} with --data")
        return path


@dataclass(frozen=True)
class Place:
    """Where one training of an arm happens.

    Attributes:
        seed: of split, initialisation and order.
        folder: for its checkpoints; removed once its numbers are recorded.
        accelerator: what trains.
    """

    seed: int
    folder: Path
    accelerator: str = "auto"


@dataclass(frozen=True)
class Arm:
    """One thing that is tried.

    Attributes:
        name: unique in the experiment.
        measure: trains with a place's seed and returns what it measured; an empty mapping = the training diverged.
        facts: known before any training (`macs`, `params`, ...).
        group: arms of one table, such as a data set.
        work: time of one training, in any unit that all arms share; for the time that is left.
    """

    name: str
    measure: Callable[[Place], Numbers] = field(repr=False, compare=False)
    facts: Mapping[str, float] = field(default_factory=dict)
    group: str = ""
    work: float = 1.0


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms, such as one less another:

        d_j = scale * sum over terms of weight * number(arm, seed j)                                    (1)

    Attributes:
        terms: (weight, arm); most often (1, a), (-1, b).
        key: which measured number.
        scale, unit: from the number to what people read.
    """

    title: str
    terms: tuple[tuple[float, str], ...]
    key: str = "accuracy"
    scale: float = 100.0
    unit: str = "points"

    @property
    def arms(self) -> tuple[str, ...]:
        """Whose numbers it needs."""
        return tuple(arm for _, arm in self.terms)


@dataclass(frozen=True)
class Matched:
    """An arm less what other arms would reach at the same level of another number, such as the same measured time:

        d_j = scale * (number(arm, seed j) - (1 - u) * number(below, seed j) - u * number(above, seed j))  (2)
        u   = ln(level(arm) / level(below)) / ln(level(above) / level(below))

    `below` and `above` are the neighbours in `curve` whose levels enclose the arm's; a level is the mean over all
    trainings of the arm.  No difference where none enclose it.

    Attributes:
        curve: arms of one kind at several levels.
        level: the positive number at which they are compared.
        key: the number that is compared.
    """

    title: str
    arm: str
    curve: tuple[str, ...]
    level: str
    key: str = "accuracy"
    scale: float = 100.0
    unit: str = "points"

    @property
    def arms(self) -> tuple[str, ...]:
        """Whose numbers it needs."""
        return (self.arm, *self.curve)


@dataclass(frozen=True)
class Floor:
    """What has to hold before differences of arms mean anything: the contrast's mean is at most `most`.

    The usual one: the control, trained twice as long, gains less than a point; so it is near its plateau.
    """

    contrast: Contrast
    most: float


@dataclass(frozen=True)
class Claim:
    """A sentence of the textbook: every contrast is above zero."""

    title: str
    text: str
    contrasts: tuple[Contrast | Matched, ...]
    floors: tuple[Floor, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A whole lab of one size.

    Attributes:
        seeds: trainings of each arm.
        too_small: why this size gives no verdict; empty = it does.
        settings: how all arms are trained, in words; two experiments of other settings share no record.
    Raises:
        SpecError: arms of one name, or a contrast of an arm that is none.
    """

    name: str
    title: str
    question: str
    size: Size
    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    seeds: int
    settings: Mapping[str, str]
    too_small: str = ""
    curves: tuple[Curve, ...] = ()

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SpecError(f"lab {self.name}: arms must have names of their own, got {', '.join(twice)} twice")
        contrasts = [c for claim in self.claims for c in (*claim.contrasts, *(f.contrast for f in claim.floors))]
        used = {arm for contrast in contrasts for arm in contrast.arms}
        used |= {arm for curve in self.curves for _, arms in curve.series for arm in arms}
        if unknown := sorted(used - set(names)):
            raise SpecError(f"lab {self.name}: no arm is called {unknown[0]!r}; there are {', '.join(names)}")

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)
