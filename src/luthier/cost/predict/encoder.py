"""From the columns of a measurement to blocks of numbers, each block with a meaning of its own.

    block       columns                                                 what its coefficients say
    work        numeric ones, standardised                              time per MAC, per byte, per op
    detail      those named `<class>.<detail>.<key>`, standardised      how that differs by window, stride, size of map
    value       one per word, over all columns of words                 time of a word, wherever it stands
    level       one per column and word                                 how that differs by column
    smooth      k(x, z_1), ..., k(x, z_m), whitened, and what is left   a smooth function of all of `work`

`work`, `value` and `level` are additive, as layers that run one after another are; `smooth` is not: it is a Gaussian
process with kernel (1) on m <= 100 landmarks z among the measured rows.

    k(x, z) = exp(-|x - z|^2 / 2 C)     x, z: the C columns of `work`                                (1)

Far from all landmarks the process knows nothing: the last column of `smooth` holds the rest of k(x, x) = 1, as the
last column for unknown words does.  No measured row fills either, so their coefficients keep the mean 0 and the
variance they had before any data: a prediction there is no better than it says.

Source:
    Williams & Seeger 2000, NIPS 13 (landmarks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from luthier.cost.predict.mixed import Array
from luthier.errors import DataError

#: column -> number or word
Features = Mapping[str, float | str]
LANDMARKS: Final = 100


def is_work(column: str) -> bool:
    """Whether a column is a sum over ops, as `graph_work` names them; where it is missing, it is 0."""
    return "." in column


@dataclass(frozen=True, slots=True)
class Encoder:
    """What turns `Features` into blocks, learnt from the features alone: no latency enters here.

    Attributes:
        numeric: columns of numbers, except those that are 0 everywhere; `work` first, `detail` after.
        work: how many of them are `work`.
        center, scale: mean and standard deviation of each of `numeric`; the scale of one that never varies is its
            value, so that another value is as uncertain as it is far.
        words: column -> the words seen in it.
        landmarks: standardised `work`, (m, work).
    """

    numeric: tuple[str, ...]
    work: int
    center: tuple[float, ...]
    scale: tuple[float, ...]
    words: tuple[tuple[str, tuple[str, ...]], ...]
    landmarks: tuple[tuple[float, ...], ...]

    @classmethod
    def learn(cls, rows: Sequence[Features]) -> Encoder:
        """Read columns, words and scales off the rows.

        Raises:
            DataError: a column is missing in one row, or holds numbers here and words there.
        Example:
            >>> encoder = Encoder.learn([{"op": "a", "side": 1}, {"op": "b", "side": 3}])
            >>> [block.shape for block in encoder.blocks([{"op": "b", "side": 2}])]
            [(1, 1), (1, 0), (1, 3), (1, 3), (1, 3)]
        """
        columns = sorted({column for row in rows for column in row}, key=lambda name: (name.count(".") > 1, name))
        seen = {column: {_kind(row, column) for row in rows} for column in columns}
        mixed = [column for column in columns if len(seen[column]) > 1]
        if mixed:
            raise DataError(f"column {mixed[0]!r} is {' here and '.join(sorted(seen[mixed[0]]))} there; make it one")
        numbers = [column for column in columns if seen[column] == {"a number"}]
        values = np.array([[float(row.get(column, 0.0)) for column in numbers] for row in rows]).reshape(len(rows), -1)
        center, scale = values.mean(axis=0), values.std(axis=0)
        scale = np.where(scale > 1e-9 * np.abs(center), scale, np.abs(center))
        used = scale > 0
        numeric = tuple(column for column, keep in zip(numbers, used, strict=True) if keep)
        work = sum(column.count(".") < 2 for column in numeric)
        standard = ((values[:, used] - center[used]) / scale[used])[:, :work]
        distinct = np.unique(standard, axis=0) if work else standard[:0]
        chosen = np.random.default_rng(0).permutation(len(distinct))[:LANDMARKS]
        return cls(
            numeric=numeric,
            work=work,
            center=tuple(map(float, center[used])),
            scale=tuple(map(float, scale[used])),
            words=tuple((c, tuple(sorted({str(row[c]) for row in rows}))) for c in columns if c not in numbers),
            landmarks=tuple(tuple(map(float, distinct[index])) for index in sorted(chosen)),
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of each block."""
        vocabulary = {word for _, words in self.words for word in words}
        level = sum(len(words) + 1 for _, words in self.words)
        value = len(vocabulary) + 1 if self.words else 0
        smooth = len(self.landmarks) + 1 if self.landmarks else 0
        return self.work, len(self.numeric) - self.work, value, level, smooth

    def blocks(self, rows: Sequence[Features]) -> list[Array]:
        """The five blocks (N, C_g) of the table above; a block may have no columns.

        For rows that are to be learnt from, see `as_measured`.

        Raises:
            DataError: a column is missing, or a class of op occurs that no measured network has.
        """
        known = {*self.numeric, *(column for column, _ in self.words)}
        for row in rows:
            strange = [column for column in row if column not in known and column.count(".") < 2 and row[column]]
            if strange:
                raise DataError(
                    f"{strange[0]!r} is in no measured network, so its cost is unknown; measure some with it"
                )
        numbers = np.array([[_number(row, column) for column in self.numeric] for row in rows])
        numbers = (numbers.reshape(len(rows), -1) - np.array(self.center)) / np.array(self.scale)
        vocabulary = sorted({word for _, words in self.words for word in words})
        shared, level = np.zeros((len(rows), len(vocabulary) + 1)), []
        for column, words in self.words:
            held = [_word(row, column) for row in rows]
            level.append(_one_hot(held, words))
            shared += _one_hot(held, vocabulary)
        empty = np.zeros((len(rows), 0))
        work = numbers[:, : self.work]
        return [
            work,
            numbers[:, self.work :],
            shared if self.words else empty,
            np.concatenate(level, axis=1) if level else empty,
            self._smooth(work),
        ]

    def _smooth(self, work: Array) -> Array:
        """Columns whose products are (1), exactly so with landmarks, and the rest."""
        if not self.landmarks:
            return np.zeros((len(work), 0))
        landmarks = np.array(self.landmarks)
        root = np.linalg.cholesky(_kernel(landmarks, landmarks) + 1e-8 * np.eye(len(landmarks)))
        whitened: Array = np.linalg.solve(root, _kernel(landmarks, work)).T
        rest = np.sqrt(np.maximum(0.0, 1.0 - (whitened**2).sum(axis=1, keepdims=True)))
        return np.concatenate([whitened, rest], axis=1)


def as_measured(blocks: Sequence[Array]) -> list[Array]:
    """The blocks of rows that are learnt from: what no landmark explains is noise in them, shared by none."""
    *others, smooth = blocks
    smooth = smooth.copy()
    smooth[:, -1:] = 0.0
    return [*others, smooth]


def _kernel(x: Array, z: Array) -> Array:
    squares = (x**2).sum(axis=1)[:, None] + (z**2).sum(axis=1) - 2 * x @ z.T
    kernel: Array = np.exp(-np.maximum(squares, 0.0) / (2 * x.shape[1]))
    return kernel


def _one_hot(held: Sequence[str], words: Sequence[str]) -> Array:
    """(N, words + 1); the last column is for words that are not listed."""
    place = {word: index for index, word in enumerate(words)}
    hot = np.zeros((len(held), len(words) + 1))
    hot[np.arange(len(held)), [place.get(word, len(words)) for word in held]] = 1
    return hot


def _kind(row: Features, column: str) -> str:
    if column not in row:
        return "a number" if is_work(column) else "missing"
    return "a word" if isinstance(row[column], str) else "a number"


def _number(row: Features, column: str) -> float:
    value = row.get(column, 0.0 if is_work(column) else None)
    if value is None or isinstance(value, str):
        raise DataError(f"column {column!r} must be a number, got {'nothing' if value is None else repr(value)}")
    return value


def _word(row: Features, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"column {column!r} must be a word, got {'nothing' if value is None else repr(value)}")
    return value
