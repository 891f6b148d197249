"""Runs a network on many images and hands out tensors inside it.

The engine runs the graph that is cut to the wanted tensors: any network that can be read can be watched, whatever
framework wrote it, without torch and without touching the network's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.engine import compile
from luthier.errors import ShapeError
from luthier.graph.cut import cut
from luthier.graph.op import Graph

Array = NDArray[Any]


class Watch:
    """A graph compiled for its tensors `names`, called with any number of images.

    Args:
        graph: of one input (B, C, H, W), norms folded; B images are run at once.
        constants: values by name.
        names: of tensors that ops write.
        threads: of a run.
    Raises:
        UnsupportedError: the engine has no code for an op that the tensors need.
        ShapeError: the graph has several inputs.
    """

    def __init__(
        self, graph: Graph, constants: Mapping[str, Array], names: Sequence[str], *, threads: int = 1
    ) -> None:
        if len(graph.inputs) != 1:
            raise ShapeError(f"probe: the network must have 1 input, got {len(graph.inputs)}: {', '.join(graph.inputs)}")
        self.names = tuple(dict.fromkeys(names))
        kept = cut(graph, self.names)
        self.input_shape = graph.tensors[graph.inputs[0]].shape
        self._plan = compile(kept, {name: constants[name] for name in kept.constants}, threads=threads)

    def batches(self, images: Array) -> Iterator[dict[str, Array]]:
        """The tensors by name, for at most B images at a time, in order.

        Args:
            images: (N, C, H, W) float32.
        Raises:
            ShapeError: images of another size or number of channels.
        """
        if images.shape[1:] != self.input_shape[1:]:
            raise ShapeError(
                f"probe: the network takes images (C, H, W) = {self.input_shape[1:]}, got {images.shape[1:]}"
            )
        size = self.input_shape[0]
        for start in range(0, len(images), size):
            part = images[start : start + size]
            missing = size - len(part)
            full = np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing else part
            results = self._plan(np.ascontiguousarray(full, np.float32))
            results = results if isinstance(results, tuple) else (results,)
            yield {name: result[: len(part)] for name, result in zip(self.names, results, strict=True)}

    def __call__(self, images: Array) -> dict[str, Array]:
        """The tensors by name for all images at once."""
        parts = list(self.batches(images))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.names}
