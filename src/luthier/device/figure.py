"""One number of a device, in its base unit, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal, get_args

from luthier.errors import DeviceError

FigureKind = Literal["measured", "published", "derived"]
FIGURE_KINDS: Final = get_args(FigureKind)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a device.

    Attributes:
        value: in FLOP/s, bytes/s, bytes, Hz, J or J/byte; above zero.
        source: document and place, or how it was measured.
        kind: `measured` here, `published` by the maker or a paper, `derived` from published numbers by stated steps.
    Raises:
        DeviceError: a value that is not above zero and finite, no source, an unknown kind.
    """

    value: float
    source: str
    kind: FigureKind = "published"

    def __post_init__(self) -> None:
        if not (isfinite(self.value) and self.value > 0):
            raise DeviceError(f"Figure: value must be above 0 and finite, got {self.value!r}")
        if not self.source.strip():
            raise DeviceError(f"Figure: the source of {self.value!r} must be stated; leave out a figure that has none")
        if self.kind not in FIGURE_KINDS:
            raise DeviceError(f"Figure: kind must be one of {', '.join(FIGURE_KINDS)}, got {self.kind!r}")
