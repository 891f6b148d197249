"""A network in the number type in which the engine is asked to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from luthier.errors import InputError
from luthier.graph.op import Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DType = Literal["fp32", "bf16", "int8"]
#: those that the engine of this version runs
ENGINE_DTYPES: Final[tuple[DType, ...]] = ("fp32",)


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
        samples: (N, C, H, W) float32, to calibrate int8 on.
    Raises:
        InputError: int8 without samples.
    """
    if dtype != "int8":
        return graph, constants
    if samples is None:
        raise InputError("--dtype int8: needs images to calibrate on; give --calibrate FILE.npy")
    from luthier.engine import compile as compile_graph
    from luthier.quant import quantize

    return quantize(graph, constants, samples, compile=compile_graph)
