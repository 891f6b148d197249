"""An application's mixer in wavelengths: on records held out from an ensemble that is trained for this alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from luthier.scene.ensemble import Ensemble, to_input
from luthier.scene.indices import INDICES, region_nm
from luthier.scene.mixer import BandImportance, IndexMatch, band_importance, index_matches
from luthier.scene.result import Explained, Peak

Array: TypeAlias = npt.NDArray[Any]
#: bands below this p matter
_LEVEL: Final = 0.05
_MOST_PEAKS: Final = 5
#: a gap between neighbouring bands of so many times their median distance ends a run
_GAP: Final = 3.0


@dataclass(frozen=True, eq=False)
class Examined:
    """What an explanation needs.

    Attributes:
        ensemble: trained on other records than these.
        spectra: (n, bands), held out.
        labels: (n,), class numbers.
        wavelengths_nm: (bands,).
    """

    ensemble: Ensemble
    spectra: Array
    labels: Array
    wavelengths_nm: Array


def explain(examined: Examined, seed: int = 0) -> Explained:
    """Where the bands are that matter (p < 0.05 for all bands together), and which indices the mixer holds."""
    nm, first = examined.wavelengths_nm, examined.ensemble.members[0]
    x = to_input(examined.ensemble.network, examined.ensemble.views(examined.spectra))
    found = band_importance(examined.ensemble.members, x, examined.labels, nm.tolist(), seed=seed)
    return said(found, index_matches(first, x, examined.spectra, nm.tolist()))


def said(found: BandImportance, matches: Sequence[IndexMatch], filters: Array | None = None) -> Explained:
    """What was found, as a result that a page can show; `filters` (bands, taps), see `luthier.scene.mixer`."""
    order = np.argsort(found.wavelengths_nm)
    return Explained(
        peaks=peaks(found), indices={match.index: match.correlation for match in matches},
        regions_nm={match.index: tuple(map(region_nm, INDICES[match.index].bands)) for match in matches},
        wavelengths_nm=tuple(found.wavelengths_nm[order].tolist()), importance=tuple(found.importance[order].tolist()),
        p=tuple(found.p[order].tolist()), filters=() if filters is None else tuple(map(tuple, filters[order].tolist())),
    )  # fmt: skip


def peaks(found: BandImportance) -> tuple[Peak, ...]:
    """Runs of neighbouring bands that matter, the most important first, at most five.

    Example:
        >>> nm = np.array([400.0, 410, 420, 430, 440])
        >>> p = np.array([0.01, 0.02, 0.5, 0.9, 0.01])
        >>> for peak in peaks(BandImportance("weights", nm, np.array([3.0, 3, 1, 0, 2]), p)):
        ...     print(peak.low_nm, peak.high_nm, peak.share)
        400.0 410.0 0.75
        440.0 440.0 0.25
    """
    order = np.argsort(found.wavelengths_nm)
    nm, importance, p = found.wavelengths_nm[order], found.importance[order], found.p[order]
    matter = np.flatnonzero(p < _LEVEL)
    if not len(matter):
        return ()
    widest = _GAP * float(np.median(np.diff(nm))) if len(nm) > 1 else np.inf
    ends = np.flatnonzero((np.diff(matter) > 1) | (np.diff(nm[matter]) > widest)) + 1
    total = float(importance[matter].sum())
    runs = [
        Peak(
            low_nm=float(nm[run[0]]), high_nm=float(nm[run[-1]]), share=float(importance[run].sum()) / total,
            p=float(p[run].min()),
        )
        for run in np.split(matter, ends)
    ]  # fmt: skip
    return tuple(sorted(runs, key=lambda peak: -peak.share)[:_MOST_PEAKS])
