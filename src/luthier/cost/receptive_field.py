"""Receptive fields: which pixels of the input a pixel of a layer's map can depend on, from the graph alone.

Along one axis pixel i of a map depends on the input's pixels

    start + i * jump  ..  start + i * jump + size - 1                                                (1)

and a window of k taps (dilation counted), stride s and p pixels of padding before the map makes of them

    size + (k - 1) * jump,    start - p * jump,    jump * s                                          (2)

Pixels outside the image count in (1), as they do in published figures.  Where branches meet, the widest path holds all
that can be seen, and the narrowest is what a residual network surely sees anew: both are followed.  A gate made of a
pool over the whole map lets every pixel depend on the whole image; fields are worked out with such gates and without.

Source:
    Araujo, Norris & Sim 2019, Distill, doi:10.23915/distill.00021 (equations); Richter et al. 2021, arXiv:2106.12307,
    section 3 (narrowest paths, layers beyond the input).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from luthier.errors import GraphError
from luthier.graph.attrs import AdaptivePool, Add, Concat, Conv, Mul, Pad, Pool, Reshape, Resize, Slice, Subsample
from luthier.graph.op import Graph, Op
from luthier.graph.shapes import Shape


@dataclass(frozen=True, slots=True)
class Field:
    """Equation (1) along one axis, in pixels of the input; `jump` is 0 where every pixel sees the same."""

    size: float = 1
    jump: float = 1
    start: float = 0

    def through(self, window: float, stride: float = 1, before: float = 0) -> Field:
        """Behind a window, equation (2).

        Example:
            >>> Field().through(7, stride=2, before=3).through(3, stride=2, before=1)
            Field(size=11, jump=4, start=-5)
        """
        return Field(self.size + (window - 1) * self.jump, self.jump * stride, self.start - before * self.jump)

    def whole(self, pixels: int) -> Field:
        """Of a sum over all pixels of the map."""
        return Field(self.size + (pixels - 1) * self.jump, 0, self.start)

    def seen(self, pixel: int, side: int) -> tuple[int, int]:
        """First pixel of the image that `pixel` depends on, and the one behind the last; the image is `side` long."""
        first = self.start + pixel * self.jump
        return max(0, int(first)), min(side, ceil(first + self.size))

    def centre(self, pixel: int) -> float:
        """Middle of what `pixel` depends on, in pixels; it may lie outside the image."""
        return self.start + pixel * self.jump + (self.size - 1) / 2


Fields = tuple[Field, Field]


@dataclass(frozen=True, slots=True)
class Path:
    """What a map can depend on over the widest and the narrowest path to it, along H and W."""

    widest: Fields
    narrowest: Fields


@dataclass(frozen=True, slots=True)
class LayerField:
    """The field of one convolution or pool.

    Attributes:
        name: of the op.
        block: of the network.
        window: its taps along H and W, dilation counted, in pixels of its own input.
        output_hw: of its map, in pixels.
        entering: the narrowest field of what it reads, in pixels of the image.
        entering_widest: the widest field of that.
        field: the widest field of what it writes, in pixels of the image.
        jump: pixels of the image from one pixel of its map to the next.
    """

    name: str
    block: str
    window: tuple[int, int]
    output_hw: tuple[int, int]
    entering: tuple[float, float]
    entering_widest: tuple[float, float]
    field: tuple[float, float]
    jump: tuple[float, float]

    def beyond(self, image_hw: tuple[int, int], *, on_widest: bool = False) -> bool:
        """Whether what it reads exceeds the image already, so that its window shows it nothing new.

        Args:
            image_hw: (H, W) of the image, or of the object in it, in pixels.
            on_widest: judge the widest path instead of the narrowest: true of more layers, and less certain, because
                the layer still sees anew what came along a shortcut.
        """
        entering = self.entering_widest if on_widest else self.entering
        return max(self.window) > 1 and all(seen > side for seen, side in zip(entering, image_hw, strict=True))


def receptive_fields(graph: Graph, *, gates: bool = True) -> dict[str, Path]:
    """Fields of every activation that depends on the graph's first input.

    Args:
        graph: with one image as its first input, (N, C, H, W).
        gates: False = a factor that is the same for all rows or columns is left out.
    Raises:
        GraphError: the first input is no image.
    Example:
        >>> from luthier.graph.builder import Builder
        >>> build = Builder()
        >>> x = build.conv("a", "a", build.input("x", (1, 3, 32, 32)), 8, kernel_size=3, stride=2)
        >>> graph = build.graph(build.conv("b", "b", x, 8, kernel_size=5))
        >>> [field.size for field in receptive_fields(graph)[graph.outputs[0]].widest]
        [11, 11]
    """
    image = graph.inputs[0]
    if len(graph.tensors[image].shape) != 4:
        raise GraphError(f"receptive_fields: input {image!r} must be an image, got {graph.tensors[image].shape}")
    found = {image: Path((Field(), Field()), (Field(), Field()))}
    for op in graph.ops:
        known = [name for name in op.inputs if name in found]
        shapes = [graph.tensors[name].shape for name in known]
        if not gates and isinstance(op.attrs, Mul | Add) and len(known) == 2 and shapes[0][2:] != shapes[1][2:]:
            known, shapes = known[:1], shapes[:1]
        if known:
            out = graph.output_shape(op)
            wide = [_behind(graph, op, found[n].widest, s, out, n) for n, s in zip(known, shapes, strict=True)]
            narrow = [_behind(graph, op, found[n].narrowest, s, out, n) for n, s in zip(known, shapes, strict=True)]
            found[op.outputs[0]] = Path(
                _union(wide, out), min(narrow, key=lambda fields: sum(field.size for field in fields))
            )
    return found


def layer_fields(graph: Graph) -> tuple[LayerField, ...]:
    """Every convolution and pool on a map of the image, without gates and the layers inside them."""
    paths = receptive_fields(graph, gates=False)
    layers = []
    for op in graph.ops:
        path = paths.get(op.inputs[0])
        if path is None or not isinstance(op.attrs, Conv | Pool) or path.widest[0].jump == 0:
            continue
        behind = paths[op.outputs[0]]
        (height, *_), (width, *_) = _windows(graph, op)
        out = graph.output_shape(op)
        layers.append(
            LayerField(
                name=op.name, block=op.block, window=(height, width), output_hw=(out[2], out[3]),
                entering=(path.narrowest[0].size, path.narrowest[1].size),
                entering_widest=(path.widest[0].size, path.widest[1].size),
                field=(behind.widest[0].size, behind.widest[1].size),
                jump=(behind.widest[0].jump, behind.widest[1].jump),
            )
        )  # fmt: skip
    return tuple(layers)


def _windows(graph: Graph, op: Op) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Window, stride and padding before the map of a conv, pool or subsample, along H and W."""
    kernel, stride, dilation, pads = (1, 1), (1, 1), (1, 1), (0, 0, 0, 0)
    match op.attrs:
        case Conv() as attrs:
            weight = graph.constants[op.constants["weight"]].shape
            kernel, stride, dilation, pads = (weight[2], weight[3]), attrs.stride, attrs.dilation, attrs.pads
        case Pool() as attrs:
            kernel, stride, pads = attrs.kernel, attrs.stride, attrs.pads
        case Subsample() as attrs:
            stride = attrs.stride
    h, w = ((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    return (h, stride[0], pads[0]), (w, stride[1], pads[1])


def _behind(graph: Graph, op: Op, fields: Fields, shape: Shape, out: Shape, name: str) -> Fields:
    """Fields of the op's output as far as one of its inputs goes."""
    if len(shape) != 4:
        return fields  # a vector: every element sees the same already
    h, w = fields
    match op.attrs:
        case Conv() | Pool() | Subsample():
            for_h, for_w = _windows(graph, op)
            return h.through(*for_h), w.through(*for_w)
        case Pad(pads=pads):
            return h.through(1, before=pads[0]), w.through(1, before=pads[1])
        case Slice(axis=axis, start=start):
            return h.through(1, before=-start * (axis == 2)), w.through(1, before=-start * (axis == 3))
        case Concat(axis=axis):
            before = sum(graph.tensors[n].shape[axis] for n in op.inputs[: op.inputs.index(name)])
            return h.through(1, before=before * (axis == 2)), w.through(1, before=before * (axis == 3))
        case AdaptivePool(out_hw=(out_h, out_w)):
            return _adaptive(h, shape[2], out_h), _adaptive(w, shape[3], out_w)
        case Resize(out_hw=(out_h, out_w)):
            return _resized(h, shape[2], out_h), _resized(w, shape[3], out_w)
        case Reshape() if shape[2:] == out[2:]:
            return h, w
    if len(out) == 4 and all(b in (a, 1) for a, b in zip(out[2:], shape[2:], strict=True)) and op.kind not in _WHOLE:
        # along an axis of one pixel every pixel of the output reads that one
        return (h if shape[2] == out[2] else h.whole(1)), (w if shape[3] == out[3] else w.whole(1))
    return h.whole(shape[2]), w.whole(shape[3])


#: read the whole map for every pixel they write, as far as anybody knows
_WHOLE = ("global_pool", "reshape", "unknown")


def _adaptive(field: Field, size: int, out: int) -> Field:
    """Windows that cover the map; where they do not divide it, one row more on either side is allowed for."""
    if size % out == 0:
        return field.through(size // out, size // out)
    return field.through(ceil(size / out) + 2, size / out, 1)


def _resized(field: Field, size: int, out: int) -> Field:
    """One row or two neighbours about (i + 1/2) * size / out; one more on either side is allowed for."""
    return field if size == out else field.through(ceil(size / out / 2) + 4, size / out, 2)


def _union(paths: Sequence[Fields], out: Shape) -> Fields:
    pixels = (out[2], out[3]) if len(out) == 4 else (1, 1)
    h, w = ([path[axis] for path in paths] for axis in range(2))
    return _hull(h, pixels[0]), _hull(w, pixels[1])


def _hull(fields: list[Field], pixels: int) -> Field:
    """The least field of the largest jump that holds all: at the map's first pixel and its last."""
    jump = max(field.jump for field in fields)
    # how far each lies off a field of that jump at the last pixel
    drift = [(pixels - 1) * (field.jump - jump) for field in fields]
    start = min(field.start + min(0, d) for field, d in zip(fields, drift, strict=True))
    end = max(field.start + field.size + max(0, d) for field, d in zip(fields, drift, strict=True))
    return Field(end - start, jump, start)
