"""Receptive fields against published ones, against the law written out, and against pixels that are made NaN."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import networks

from luthier.arch.network import Network
from luthier.arch.presets import get
from luthier.cost.receptive_field import Field, layer_fields, receptive_fields
from luthier.errors import GraphError
from luthier.graph import Graph, Tensor, from_network
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.graph.reference import evaluate

PROBES = 12


def last_block(name: str, block: str) -> int:
    """Widest field of the last map of a block, without gates."""
    graph = from_network(get(name))
    paths = receptive_fields(graph, gates=False)
    (*_, op) = (op for op in graph.ops if op.block == block)
    return int(paths[op.outputs[0]].widest[0].size)


def test_published_fields_of_vgg16() -> None:
    layers = layer_fields(from_network(get("vgg16")))
    # Simonyan & Zisserman's columns, as listed by Araujo et al. 2019: conv1_1 .. pool5
    fields = [3, 5, 6, 10, 14, 16, 24, 32, 40, 44, 60, 76, 92, 100, 132, 164, 196, 212]
    assert [layer.field[0] for layer in layers] == fields
    assert layers[-1].jump == (32, 32)
    assert layers[-1].output_hw == (7, 7)


def test_fields_of_resnet50_by_where_the_stride_stands() -> None:
    # stride in the 3x3 convolution (torchvision): 11 behind the stem, then 2 * jump for every 3x3
    by_hand = 11 + 3 * 8 + (8 + 3 * 16) + (16 + 5 * 32) + (32 + 2 * 64)
    assert by_hand == 427
    assert layer_fields(from_network(get("resnet50")))[-1].field == (427, 427)


def test_published_fields_of_networks_with_the_stride_first() -> None:
    # Araujo et al. 2019, table: ResNet-50 483 (stride in the first 1x1 convolution), MobileNet-v1 315, AlexNet 195
    def chain(*windows: tuple[int, int]) -> int:
        build = Builder()
        x = build.input("x", (1, 1, 512, 512))
        for index, (kernel, stride) in enumerate(windows):
            x = build.conv(f"c{index}", f"c{index}", x, 1, kernel_size=kernel, stride=stride)
        return int(receptive_fields(build.graph(x))[x].widest[1].size)

    def stage(blocks: int, stride: int) -> list[tuple[int, int]]:
        return [(1, stride), (3, 1), (1, 1)] + [(1, 1), (3, 1), (1, 1)] * (blocks - 1)

    assert chain((7, 2), (3, 2), *stage(3, 1), *stage(4, 2), *stage(6, 2), *stage(3, 2)) == 483
    steps = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
    assert chain((3, 2), *((3, stride) for stride in steps)) == 315
    assert chain((11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)) == 195


def test_gates_see_the_whole_image_and_narrow_paths_skip_branches() -> None:
    graph = from_network(get("efficientnet_b0"))
    with_gates, without = receptive_fields(graph), receptive_fields(graph, gates=False)
    (*_, last) = (op for op in graph.ops if op.block == "stage7.0" or op.block.startswith("stage7"))
    out = last.outputs[0]
    assert with_gates[out].widest[0].size >= 224
    # 3x3 or 5x5 windows at jumps 1, 2, ...: all of them, then those that no shortcut passes by
    windows = [(3, 1, 1), (3, 2, 1), (3, 2, 1), (3, 4, 0), (5, 4, 1), (5, 8, 0), (3, 8, 1), (3, 16, 0), (3, 16, 0),
               (5, 16, 1), (5, 16, 0), (5, 16, 0), (5, 16, 1), (5, 32, 0), (5, 32, 0), (5, 32, 0),
               (3, 32, 1)]  # fmt: skip
    assert without[out].widest[0].size == 1 + sum((k - 1) * jump for k, jump, _ in windows)
    assert without[out].narrowest[0].size == 1 + sum((k - 1) * jump for k, jump, needed in windows if needed)


def touched(graph: Graph, row: int, column: int) -> dict[str, np.ndarray]:
    """Where each map becomes NaN when one pixel of the image is: the dependency itself, no arithmetic hides it."""
    rng = np.random.default_rng(0)
    constants = {name: rng.uniform(0.1, 1.0, tensor.shape) for name, tensor in graph.constants.items()}
    image = rng.uniform(0.1, 1.0, graph.tensors[graph.inputs[0]].shape)
    image[:, :, row, column] = np.nan
    values = {graph.inputs[0]: image}
    with np.errstate(invalid="ignore"):
        for op in graph.ops:
            inputs = [values[name] for name in op.inputs]
            values[op.outputs[0]] = evaluate(op, inputs, {r: constants[n] for r, n in op.constants.items()})
    return {name: np.isnan(value) for name, value in values.items()}


def check(graph: Graph, *, exact: bool) -> None:
    """Every map, every pixel: the rows and columns it depends on are those that the field names."""
    fields = receptive_fields(graph)
    _, _, height, width = graph.tensors[graph.inputs[0]].shape
    maps = [name for name, tensor in graph.tensors.items() if len(tensor.shape) == 4 and name in fields]
    for axis, side in ((0, height), (1, width)):
        first = {name: np.full(graph.tensors[name].shape[2 + axis], side) for name in maps}
        end = {name: np.zeros(graph.tensors[name].shape[2 + axis], int) for name in maps}
        other = width if axis == 0 else height
        for at in range(side):
            for across in {0, other // 2, other - 1} if exact else range(other):
                hit = touched(graph, *((at, across) if axis == 0 else (across, at)))
                for name in maps:
                    along = hit[name].any(axis=(0, 1, 3 - axis))
                    first[name] = np.where(along, np.minimum(first[name], at), first[name])
                    end[name] = np.where(along, np.maximum(end[name], at + 1), end[name])
        for name in maps:
            for pixel, (low, high) in enumerate(zip(first[name], end[name], strict=True)):
                told = fields[name].widest[axis].seen(pixel, side)
                if low < high:
                    assert told[0] <= low, (name, axis, pixel, told, (low, high))
                    assert high <= told[1], (name, axis, pixel, told, (low, high))
                    if exact:
                        assert told == (low, high), (name, axis, pixel)


@st.composite
def windowed(draw: st.DrawFn) -> Graph:
    """Chains of windows with any padding, stride and dilation, with sums and gates of what came before."""
    build = Builder()
    chain = [build.input("x", (1, 1, draw(st.integers(6, 14)), draw(st.integers(6, 14))))]
    for index in range(draw(st.integers(1, 5))):
        x, name = chain[-1], f"o{index}"
        _, channels, height, width = build.shape(x)
        kernel, stride = (
            draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
            draw(st.tuples(*[st.integers(1, 2)] * 2)),
        )
        pads = tuple(draw(st.integers(0, kernel[i % 2] // 2)) for i in range(4))
        kind = draw(st.sampled_from(["conv", "conv", "pool", "sum", "gate", "subsample", "slice", "stack", "twice"]))
        fits = height + pads[0] + pads[2] > 2 * kernel[0] and width + pads[1] + pads[3] > 2 * kernel[1]
        if kind == "conv" and fits:
            dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
            weight = Tensor(f"{name}.weight", (1, channels, *kernel))
            chain.append(build.op(name, kinds.Conv(stride, pads, dilation), x, constants={"weight": weight}))
        elif kind == "pool" and fits:
            reduce = draw(st.sampled_from(["max", "avg"]))
            chain.append(build.op(name, kinds.Pool(reduce, kernel, stride, pads), x))
        elif kind == "subsample":
            chain.append(build.op(name, kinds.Subsample(stride), x))
        elif kind == "slice" and height > 2:
            chain.append(build.op(name, kinds.Slice(2, 1, height), x))
        elif kind == "stack":
            chain.append(build.op(name, kinds.Concat(3), x, build.activation(f"{name}.a", x, "relu")))
        elif kind == "gate":
            chain.append(build.mul(name, x, build.op(f"{name}.p", kinds.GlobalPool(), x)))
        elif kind == "twice":  # two paths of different windows that keep the size
            weight = Tensor(f"{name}.weight", (channels, channels, 3, 3))
            wide = build.op(f"{name}.w", kinds.Conv((1, 1), (1, 1, 1, 1)), x, constants={"weight": weight})
            chain.append(build.add(name, x, wide))
        else:
            twins = [t for t in chain if build.shape(t) == build.shape(x)]
            chain.append(build.add(name, x, draw(st.sampled_from(twins))))
    return build.graph(chain[-1])


@settings(max_examples=25)
@given(graph=windowed())
def test_every_pixel_depends_on_what_its_field_names(graph: Graph) -> None:
    check(graph, exact=False)


def test_chains_without_gaps_are_exact() -> None:
    # windows at least as long as their strides leave no pixel out; what padding stands for may lie inside the image,
    # where a stride has dropped the map's last rows, so here is none
    rng = np.random.default_rng(5)
    for _ in range(PROBES):
        build = Builder()
        x = build.input("x", (1, 1, 25, 21))
        for index in range(3):
            kernel = tuple(int(k) for k in rng.integers(2, 5, 2))
            stride = tuple(int(rng.integers(1, min(k, 2) + 1)) for k in kernel)
            weight = Tensor(f"c{index}.weight", (1, 1, *kernel))
            x = build.op(f"c{index}", kinds.Conv(stride), x, constants={"weight": weight})
        check(build.graph(x), exact=True)


@settings(max_examples=10)
@given(network=networks())
def test_random_networks_see_no_further(network: Network) -> None:
    graph = from_network(network)
    fields = receptive_fields(graph)
    side = network.resolution
    for at in (0, side // 2, side - 1):
        for name, hit in touched(graph, at, at).items():
            if hit.ndim == 4:
                for axis in (0, 1):
                    for pixel in np.flatnonzero(hit.any(axis=(0, 1, 3 - axis))):
                        low, high = fields[name].widest[axis].seen(int(pixel), side)
                        assert low <= at < high, (name, axis, pixel)


@pytest.mark.parametrize(("size", "out"), [(12, 4), (12, 5), (7, 3), (5, 9), (4, 8)])
@pytest.mark.parametrize("kind", ["adaptive", "nearest", "bilinear"])
def test_resampling_is_never_understated(size: int, out: int, kind: str) -> None:
    attrs = kinds.AdaptivePool((out, out)) if kind == "adaptive" else kinds.Resize((out, out), kind)  # type: ignore[arg-type]
    build = Builder()
    x = build.op("r", attrs, build.conv("c", "c", build.input("x", (1, 1, size, size)), 1, kernel_size=3))
    check(build.graph(x), exact=False)


def test_layers_beyond_the_image() -> None:
    graph = from_network(get("vgg16"), resolution=32)
    beyond = [layer for layer in layer_fields(graph) if layer.beyond((32, 32))]
    # conv3_2 sees 32 px, which conv3_3 reads and does not exceed; pool3 reads conv3_3's 40
    assert [layer.entering[0] for layer in beyond] == [40, 44, 60, 76, 92, 100, 132, 164, 196]
    assert [layer.window[0] for layer in beyond] == [2, 3, 3, 3, 2, 3, 3, 3, 2]
    assert not any(layer.beyond((500, 500)) for layer in layer_fields(graph))


def test_shortcuts_keep_layers_productive() -> None:
    layers = [layer for layer in layer_fields(from_network(get("resnet18"), resolution=64)) if max(layer.window) > 1]
    # 43 px behind stage1 (11 + 4 * 8), then 3x3 windows at jumps 4 and 8: stage2.1 reads 43 + 8 + 16
    wide = next(layer for layer in layers if layer.beyond((64, 64), on_widest=True))
    assert (wide.block, wide.entering_widest) == ("stage2.1", (67, 67))
    # along the shortcuts nothing widens the stem's 11 px but a block's own first window
    assert max(layer.entering[0] for layer in layers) == 11 + 2 * 32
    assert not [layer for layer in layers if layer.beyond((80, 80))]


def test_an_input_that_is_no_image_is_refused() -> None:
    build = Builder()
    graph = build.graph(build.activation("y", build.input("x", (1, 3)), "relu"))
    with pytest.raises(GraphError, match=r"input 'x' must be an image, got \(1, 3\)"):
        receptive_fields(graph)


def test_what_a_pixel_sees_is_clipped_to_the_image() -> None:
    field = Field().through(5, before=2)
    assert [field.seen(pixel, 6) for pixel in range(6)] == [(0, 3), (0, 4), (0, 5), (1, 6), (2, 6), (3, 6)]
    assert field.centre(3) == 3
