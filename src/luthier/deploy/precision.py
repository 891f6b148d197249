"""A network in the number type in which the engine is asked to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from luthier.errors import InputError
from luthier.graph.op import Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DType = Literal["fp32", "bf16", "int8", "int8_bf16"]
#: those that the engine of this version runs
ENGINE_DTYPES: Final[tuple[DType, ...]] = ("fp32", "bf16", "int8", "int8_bf16")


def parse_dtype(text: str) -> DType:
    """Parse `--dtype`.

    Raises:
        InputError: a number type that the engine does not run.
    Example:
        >>> parse_dtype("fp32")
        'fp32'
    """
    for known in ENGINE_DTYPES:
        if text == known:
            return known
    raise InputError(f"--dtype {text}: the engine of this version runs {', '.join(ENGINE_DTYPES)}")


def in_number_type(
    graph: Graph, constants: Mapping[str, Array], dtype: DType, samples: Array | None
) -> tuple[Graph, Mapping[str, Array]]:
    """The graph and its constants as the engine takes them.

    Args:
        graph: fp32, norms folded, one input.
        constants: values by name.
        dtype: of weights and arithmetic; what calls pass and get stays float32.
        samples: (N, C, H, W) float32, to calibrate integers on.
    Raises:
        InputError: integers without samples.
    Example:
        >>> from luthier.graph.attrs import GlobalPool
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> inner = build.conv("c", "c", build.input("x", (1, 3, 8, 8)), 16, kernel_size=3)
        >>> graph = build.graph(build.op("y", GlobalPool(), inner))
        >>> small, _ = in_number_type(graph, {}, "bf16", None)
        >>> [tensor.dtype for tensor in small.tensors.values()]
        ['fp32', 'bf16', 'fp32']
    """
    if dtype == "fp32":
        return graph, constants
    if dtype == "bf16":
        from luthier.engine.reduced import as_bf16

        return as_bf16(graph), constants
    if samples is None:
        raise InputError(f"--dtype {dtype}: needs images to calibrate on; give --calibrate FILE.npy")
    from luthier.engine import compile as compile_graph
    from luthier.quant import quantize

    # no function is computed from a sum, so that only integers, or only the numbers meant, lie between products
    mixed = dtype == "int8_bf16"
    return quantize(graph, constants, samples, from_sums=(), products_only=mixed, compile=compile_graph)
