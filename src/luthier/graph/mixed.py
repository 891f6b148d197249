"""Networks whose products are of integers while all else is numbers: `int8_bf16`.

What an 8-bit network loses it mostly loses between products: sums are rounded before their activation and behind it,
and every addition rounds the stream that all blocks share.  Here a tensor is rounded to 8 bits only as a product reads
it; activations, additions, pools and gates are computed on numbers, stored as bf16.
"""

from __future__ import annotations

from dataclasses import replace

from luthier.graph.integers import in_integers, is_integer
from luthier.graph.mbconv import is_depthwise
from luthier.graph.op import Graph, Tensor


def but_products(graph: Graph) -> frozenset[str]:
    """Ops that stay numbers: all but convolutions and linear layers, and of these the layers of gates.

    A gate's layers are those that see one pixel and whose result multiplies something.

    Example:
        >>> from luthier.arch.presets import get
        >>> from luthier.graph import fold_norm_into_conv, from_network
        >>> graph = fold_norm_into_conv(from_network(get("efficientnet_b0")))
        >>> products = [op for op in graph.ops if op.name not in but_products(graph)]
        >>> len(products), sum(op.kind == "linear" for op in products)
        (50, 1)
    """
    maker = graph.makers()
    kept = {op.name for op in graph.ops if op.kind not in ("conv", "linear")}
    waiting = [name for op in graph.ops if op.kind == "mul" for name in op.inputs]
    while waiting:
        name = waiting.pop()
        op = maker.get(name)
        if op is not None and _is_pixel(graph.tensors[name]):
            kept.add(op.name)
            waiting += [source for source in op.inputs if _is_pixel(graph.tensors[source])]
    return frozenset(kept)


def with_bf16_numbers(graph: Graph) -> Graph:
    """A quantised graph whose maps of numbers are stored as bf16, and with them what others than products read.

    A tensor that products alone read stays integers.  Maps of one pixel stay fp32, as do a caller's arrays; weights of
    products that stayed numbers become bf16.
    """
    products = {op.name for op in graph.ops if op.kind in ("conv", "linear") and in_integers(graph, op)}
    readers = graph.consumers()
    edges = {*graph.inputs, *graph.outputs}
    weights = {
        op.constants["weight"]
        for op in graph.ops
        if op.kind in ("conv", "linear") and op.name not in products and not is_depthwise(graph, op)
    }

    def stored(tensor: Tensor) -> Tensor:
        only_products = all(op.name in products for op in readers[tensor.name])
        if tensor.name in edges or _is_pixel(tensor) or (is_integer(tensor) and only_products):
            return tensor
        return replace(tensor, dtype="bf16")

    return replace(
        graph,
        tensors={name: stored(tensor) for name, tensor in graph.tensors.items()},
        constants={
            name: replace(tensor, dtype="bf16") if name in weights else tensor
            for name, tensor in graph.constants.items()
        },
    )


def _is_pixel(tensor: Tensor) -> bool:
    return tensor.elements == tensor.shape[0] * tensor.shape[1]
