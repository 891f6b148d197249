"""What every run time must be able to do to take part in a comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Final

from numpy.typing import NDArray

from luthier.deploy.precision import DType

Array = NDArray[Any]
DTYPES: Final[tuple[DType, ...]] = ("fp32", "bf16", "int8")


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Opened:
    """A network that is ready to run.

    Attributes:
        run: on one input in the run time's own form; everything that it computes is done when it returns.
        form: from a float32 array (N, C, H, W) to that form; not timed.
        read: from what `run` returned to arrays in the network's own order of axes; not timed.
    """

    run: Callable[[Any], Any]
    form: Callable[[Array], Any] = _same
    read: Callable[[Any], Sequence[Array]] = _same


class Peer(ABC):
    """A run time.  Its methods are called in processes of their own, where its library may be imported.

    Attributes:
        name: as in `--against`.
        title: for people.
        packages: distributions that it needs, the run time itself first.
        dtypes: number types in which it runs networks on this kind of CPU.
        per_threads: whether what `convert` makes is for one number of threads.
        environment: variables that its process is started with.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    dtypes: ClassVar[tuple[DType, ...]]
    per_threads: ClassVar[bool] = False
    environment: ClassVar[Mapping[str, str]] = {}

    @property
    def version(self) -> str:
        """Of the installed run time."""
        return metadata.version(self.packages[0])

    @abstractmethod
    def load_library(self) -> None:
        """Import whatever `open` needs: what the process holds then is not the network's."""

    @abstractmethod
    def convert(self, model: Path, folder: Path, dtype: DType, samples: Array, threads: int) -> Path:
        """Bring an ONNX file into the run time's own form, as its makers recommend.

        Args:
            model: opset 20, fp32, one input, norms folded.
            folder: to write to.
            dtype: of weights and arithmetic.
            samples: inputs to calibrate on.
            threads: for which the result is meant.
        """

    @abstractmethod
    def open(self, converted: Path, dtype: DType, threads: int) -> Opened:
        """Load what `convert` wrote, at the best setting for single runs on `threads` threads."""
