"""What a run found out, as frozen data: the only thing that a report reads, stored as `result.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from luthier import files
from luthier.errors import RunFolderError
from luthier.train.results import Epoch

SCHEMA: Final = "luthier.result/1"
Status = Literal["left_out", "halted", "failed", "winner"]


@dataclass(frozen=True)
class Rung:
    """One round of successive halving for one candidate.

    Attributes:
        epochs: length of this round's own schedule.
        val_accuracy: share of right answers on the validation split at its end; None = the training diverged.
    """

    rung: int
    epochs: int
    val_accuracy: float | None
    wall_s: float


@dataclass(frozen=True)
class Candidate:
    """A member of the family, looked at.

    Attributes:
        status: `left_out` before any training, `halted` in a rung, `failed` (diverged), `winner`.
        reason: why, in words.
        size_bytes: weights at the deployed precision, modelled.
        latency_s: median on this machine, measured untrained; None = not measured.
    """

    number: int
    name: str
    phi: float | None
    resolution: int
    params: int
    macs: int
    peak_activation_bytes: int
    size_bytes: int
    latency_s: float | None
    status: Status
    reason: str
    rungs: tuple[Rung, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One block of the winner, for the table of layers."""

    name: str
    kind: str
    text: str
    output_chw: tuple[int, ...]
    params: int
    macs: int
    peak_activation_bytes: int


@dataclass(frozen=True)
class Data:
    """The images of the run."""

    origin: str
    class_names: tuple[str, ...]
    num_train: int
    num_val: int
    num_test: int
    image_hw: tuple[int, int]
    notes: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Limit:
    """One hard limit, what the winner came to, and whether it holds.

    Attributes:
        limit, value: in the base unit of `dimension` (see `luthier.units`).
        kind: of `value`.
    """

    name: str
    dimension: Literal["latency", "bytes", "count", "energy"]
    limit: float
    value: float
    kind: Literal["measured", "modelled"]

    @property
    def holds(self) -> bool:
        return self.value <= self.limit


@dataclass(frozen=True)
class Winner:
    """The network that was trained to the end, exported and measured.

    Attributes:
        test_accuracy: share of right answers on the test split, which no decision saw.
        test_interval: Wilson's 95 % interval of it.
        val_accuracy: at the end of the final training.
        size_bytes: of `model.onnx`, measured.
        latency_s, latency_spread_s: median and half the interquartile range at batch 1.
        onnx_max_abs_error: exported file against torch on test images, largest difference of a logit.
        confusion: (K, K) counts on the test split, rows = truth, columns = answer.
    """

    name: str
    network_json: str
    params: int
    macs: int
    peak_activation_bytes: int
    size_bytes: int
    latency_s: float
    latency_spread_s: float
    latency_runtime: str
    test_accuracy: float
    test_interval: tuple[float, float]
    val_accuracy: float
    onnx_max_abs_error: float
    confusion: tuple[tuple[int, ...], ...]
    history: tuple[Epoch, ...]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Result:
    """Everything about a finished run."""

    schema: str
    version: str
    command: str
    title: str
    device: str
    seed: int
    time_limit_s: float
    wall_s: float
    pretrained: str | None
    data: Data
    limits: tuple[Limit, ...]
    candidates: tuple[Candidate, ...]
    winner: Winner
    remarks: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


def write(result: Result, path: Path) -> None:
    """Store a result as JSON, whole or not at all."""
    from pydantic import TypeAdapter

    files.write_bytes(path, TypeAdapter(Result).dump_json(result, indent=1))


def read(path: Path) -> Result:
    """Load what `write` stored.

    Raises:
        RunFolderError: missing, torn, or of another version.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        result = TypeAdapter(Result).validate_json(path.read_bytes())
    except OSError:
        raise RunFolderError(f"{path}: no finished run here; run the same `luthier fit` again to resume it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{path}: not a result of this version ({where}: {first['msg']})") from None
    if result.schema != SCHEMA:
        raise RunFolderError(f"{path}: expected {SCHEMA}, got {result.schema!r}; written by another version of luthier")
    return result
