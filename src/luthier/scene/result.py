"""What a comparison of methods on one application found, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["above", "equal", "below"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One method on one split.

    Attributes:
        split: its number.
        method: name.
        scores: by name.
        test_ratio: test records over training records.
        cpu_s: of the processor, training and answering together.
    """

    split: int
    method: str
    scores: dict[str, float]
    test_ratio: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Our method beside another one, on the same splits.

    Attributes:
        against: the other one.
        gain: mean difference of the deciding score, above 0 where ours is better.
        low, high: ends of its 95 % interval, see `luthier.intervals.resampled`.
        won: splits on which ours is better.
    """

    against: str
    gain: float
    low: float
    high: float
    won: int

    @property
    def verdict(self) -> Verdict:
        """`above` or `below` only if the interval leaves 0 out.

        Example:
            >>> Comparison(against="SVM", gain=0.02, low=-0.01, high=0.05, won=7).verdict
            'equal'
        """
        return "above" if self.low > 0 else "below" if self.high < 0 else "equal"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An application's outcome.

    Attributes:
        name, title, design, measure, higher_is_better, ours, note: see `Application`.
        splits: how many.
        means: of every score over the splits, by method.
        comparisons: with each other method.
    """

    name: str
    title: str
    design: str
    measure: str
    higher_is_better: bool
    ours: str
    splits: int
    means: dict[str, dict[str, float]]
    comparisons: tuple[Comparison, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A run of neighbouring bands that matter.

    Attributes:
        low_nm, high_nm: its ends.
        share: of the importance of all bands that matter.
        p: the smallest of its bands.
    """

    low_nm: float
    high_nm: float
    share: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Explained:
    """What the mixer learnt, in wavelengths.

    Attributes:
        peaks: the most important first.
        indices: name -> correlation of the mixer's closest channel.
        regions_nm: name of an index -> (shortest, longest) wavelength of each region that it is computed from.
        wavelengths_nm, importance, p: of every band, in rising order, see `luthier.scene.mixer`.
        filters: of a network that filters every band apart before it mixes them: each band's window, row by row, over
            the sum of its absolute values; in the order of `wavelengths_nm`.
    """

    peaks: tuple[Peak, ...] = ()
    indices: dict[str, float] = field(default_factory=dict)
    regions_nm: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    wavelengths_nm: tuple[float, ...] = ()
    importance: tuple[float, ...] = ()
    p: tuple[float, ...] = ()
    filters: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The records of each class in one line, before any network saw them.

    Attributes:
        what: is drawn.
        x_axis: what x is, with its unit.
        x: of every value.
        lines: class -> its mean at every x.
    """

    what: str
    x_axis: str
    x: tuple[float, ...]
    lines: dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """One class, or one substance, of a map.

    Attributes:
        name: of it.
        colour: on the map; red, green, blue in 0 .. 255.
        known_px: pixels that are known to be of it; of a substance, the sum of its known shares.
        mapped_px: what the map gives it, likewise.
        area_ha: of the mapped ones; None = the scene has no place on the earth.
    """

    name: str
    colour: tuple[int, int, int]
    known_px: float
    mapped_px: float
    area_ha: float | None = None


@dataclass(frozen=True, kw_only=True)
class Size:
    """What one network of an ensemble takes.

    Attributes:
        members: networks in the ensemble.
        params, macs: of one.
    """

    members: int
    params: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that one data set of a task gave.

    Attributes:
        judged: the comparison.
        trials: what it was made from.
        explained: empty where the answer has no classes or the input no wavelengths.
        sizes: of the ensembles that were kept, by name.
        data: file.
        curves: None where the records are no curves of classes.
        mapped, pictures: of a scene, what the kept model makes of it: classes, and (title, PNG in base64).
    """

    judged: Judged
    trials: tuple[Trial, ...]
    explained: Explained
    sizes: dict[str, Size]
    data: str
    curves: Curves | None = None
    mapped: tuple[Mapped, ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()
