"""What every tensor of a graph holds under any mixture of number types, as real numbers.

    simulate(graph, constants, batch)[name] = scale * (q - zero_point), or the number that is stored       (1)

It is the meaning of the graph itself (`luthier.quant.integer`), so what runs in integers is exact, and the rest is
fp32 with the rounding that storage does.  A graph that is not quantised holds what fp32 holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luthier.graph.integers import is_integer, to_reals
from luthier.graph.op import Graph
from luthier.quant.calibrate import Batch
from luthier.quant.integer import run_all

Array = NDArray[Any]


def simulate(graph: Graph, constants: Mapping[str, Array], batch: Batch) -> dict[str, Array]:
    """Equation (1) for every tensor, inputs and outputs included.

    Args:
        graph: fp32 with norms folded, or as `luthier.quant.quantize` makes it.
        constants: its values by name.
        batch: float32 arrays in the order of the graph's inputs.
    Returns:
        float32 by name of the tensor, in its shape.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> from luthier.quant import quantize
        >>> build = Builder()
        >>> graph = build.graph(build.conv("y", "y", build.input("x", (1, 1, 1, 3)), 1))
        >>> images = np.array([[[[-1.0, 0.3, 1.0]]]], np.float32)
        >>> small, values = quantize(graph, {"y.weight": np.full((1, 1, 1, 1), 0.5)}, images, observer="minmax")
        >>> found = simulate(small, values, (images,))
        >>> {name: value.ravel().astype(float).round(3).tolist() for name, value in found.items()}
        {'x': [-0.996, 0.298, 0.996], 'y': [-0.498, 0.149, 0.498]}
    """
    held = run_all(graph, constants, dict(zip(graph.inputs, batch, strict=True)))
    tensors = graph.tensors
    return {
        name: np.asarray(to_reals(value, tensors[name]) if is_integer(tensors[name]) else value, np.float32)
        for name, value in held.items()
    }
