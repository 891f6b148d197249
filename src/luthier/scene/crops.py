"""The squares of a scene that train, each with the rim that its pixels see; nothing else of the scene is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from luthier.scene.cube import Classes, Scene, Values
from luthier.scene.split import Split

#: squares are kept in memory up to this many bytes, and read again beyond
_KEPT_BYTES: Final = 2**30


@dataclass(eq=False)
class Crops:
    """Squares about the training pixels of a split, standardised, with their labels.

    Attributes:
        scene, split: what is cut.
        mean, std: (bands,) of the training ground.
        rim: px around it, the receptive field's radius; beyond the scene there are zeros, as the network itself pads.
    """

    scene: Scene
    split: Split
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    rim: int
    corners: list[tuple[int, int]] = field(init=False)
    _kept: dict[int, Values] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        rows, columns = np.nonzero(self.split.train)
        self.corners = sorted({
            (int(row) // self.side * self.side, int(column) // self.side * self.side)
            for row, column in zip(rows, columns, strict=True)
        })  # fmt: skip

    @property
    def side(self) -> int:
        """Of a square, in px."""
        return self.split.block

    def __len__(self) -> int:
        return len(self.corners)

    def batch(self, chosen: Sequence[int]) -> tuple[Values, Classes]:
        """Some squares with their rims.

        Returns:
            (n, bands, side + 2 rim, side + 2 rim), 0 where nothing was seen; and (n, side + 2 rim, side + 2 rim), the
            position of the class among the split's, -1 where a pixel does not train.
        """
        values = np.stack([self._values(index) for index in chosen])
        return values.transpose(0, 3, 1, 2), np.stack([self._labels(index) for index in chosen])

    def counts(self) -> npt.NDArray[np.int64]:
        """Training pixels of each of the split's classes."""
        labels = self.scene.labels
        assert labels is not None
        numbers = np.bincount(labels.classes[self.split.train], minlength=max(self.split.classes) + 1)
        return numbers[list(self.split.classes)]

    def _window(self, index: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where a square and its rim lie in the scene, and where in the crop."""
        inside, into = [], []
        for corner, length in zip(self.corners[index], self.scene.hw, strict=True):
            start, stop = max(0, corner - self.rim), min(length, corner + self.side + self.rim)
            inside.append(slice(start, stop))
            into.append(slice(start - corner + self.rim, stop - corner + self.rim))
        return (inside[0], inside[1]), (into[0], into[1])

    def _values(self, index: int) -> Values:
        if index in self._kept:
            return self._kept[index]
        whole = self.side + 2 * self.rim
        crop = np.zeros((whole, whole, len(self.mean)), np.float32)
        inside, into = self._window(index)
        crop[into] = np.nan_to_num((self.scene.window(*inside) - self.mean) / self.std)
        if (len(self._kept) + 1) * crop.nbytes <= _KEPT_BYTES:
            self._kept[index] = crop
        return crop

    def _labels(self, index: int) -> Classes:
        labels = self.scene.labels
        assert labels is not None
        whole = self.side + 2 * self.rim
        crop = np.full((whole, whole), -1)
        inside, into = self._window(index)
        table = np.full(len(labels.names) + 1, -1)
        table[list(self.split.classes)] = np.arange(len(self.split.classes))
        crop[into] = np.where(self.split.train[inside], table[labels.classes[inside]], -1)
        # a pixel of the rim may belong to the square beside this one: it trains there
        own = crop[self.rim : self.rim + self.side, self.rim : self.rim + self.side].copy()
        crop[:] = -1
        crop[self.rim : self.rim + self.side, self.rim : self.rim + self.side] = own
        return crop


def standardisation(scene: Scene, split: Split) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation of every band over the training ground, (bands,) each; a constant band has 1."""
    mean, std = scene.statistics(split.ground)
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)
