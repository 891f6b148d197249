"""Luthier's own engine: a plan compiled beforehand, loaded without torch."""

from __future__ import annotations

from pathlib import Path

from luthier.deploy.peers.peer import Array, Opened, Peer
from luthier.deploy.precision import ENGINE_DTYPES, DType, in_number_type


class Luthier(Peer):
    """See `luthier.engine`; arrays in NCHW, as most peers take them."""

    name, title, packages, dtypes = "luthier", "Luthier", ("luthier",), ENGINE_DTYPES
    per_threads = True

    @property
    def version(self) -> str:
        """Of the source that runs, installed or not."""
        from luthier import __version__

        return __version__

    def load_library(self) -> None:
        """NumPy and llvmlite."""
        import luthier.engine  # noqa: F401  # for its effect on memory

    def convert(self, model: Path, folder: Path, dtype: DType, samples: Array, threads: int) -> Path:
        """Compile, and save the plan."""
        from luthier.engine import compile as compile_graph
        from luthier.graph.from_onnx import from_onnx

        images = samples.reshape(-1, *samples.shape[2:])
        graph, constants = in_number_type(*from_onnx(str(model)), dtype, images)
        path = folder / "model.plan"
        compile_graph(graph, constants, threads=threads).save(path)
        return path

    def open(self, converted: Path, dtype: DType, threads: int) -> Opened:
        """A plan knows its threads and its number types."""
        from luthier.engine import load

        plan = load(converted)
        return Opened(plan, read=lambda found: found if isinstance(found, tuple) else (found,))
