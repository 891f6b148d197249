"""Random groups that can run row by row, and random networks of the MBConv family."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from luthier.arch import Attention, Block, Head, Network, Precision, Stage
from luthier.graph import Graph, Tensor
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.schedule import Group, Tile

KINDS = ["conv", "depthwise", "pool", "subsample", "activation", "gate", "sum", "pad", "concat"]


@st.composite
def row_groups(draw: st.DrawFn) -> tuple[Graph, Group]:
    """A chain of row-wise ops with any window, stride, padding and dilation, sums of earlier tensors, and a tile."""
    build = Builder()
    x = build.input("x", (1, draw(st.integers(1, 3)), draw(st.integers(1, 19)), 3))
    chain = [build.conv("head", "head", x, draw(st.integers(1, 3)))]
    for index in range(draw(st.integers(0, 6))):
        chain.append(_appended(draw, build, chain, f"o{index}"))
    build.op("pool", kinds.GlobalPool(), chain[-1])
    ops = tuple(op.name for op in build.ops)
    end = build.conv("end", "end", chain[-1], 1)  # reads the result outside the group
    graph = build.graph(end, "pool")
    rows = draw(st.integers(1, build.shape(chain[-1])[2]))
    return graph, Group(ops, Tile(rows))


def _appended(draw: st.DrawFn, build: Builder, chain: list[str], name: str) -> str:
    tensor = chain[-1]
    _, channels, height, _ = build.shape(tensor)
    kind = draw(st.sampled_from(KINDS))
    size, stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2]))
    before, after = draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))
    fits = height + before + after >= dilation * (size - 1) + 1
    if kind in ("conv", "depthwise", "pool") and not fits:
        kind = "activation"
    if kind == "conv" or kind == "depthwise":
        groups = channels if kind == "depthwise" else 1
        out = channels if kind == "depthwise" else draw(st.integers(1, 3))
        weight = Tensor(f"{name}.weight", (out, channels // groups, size, 1))
        attrs = kinds.Conv((stride, 1), (before, 0, after, 0), (dilation, 1), groups)
        return build.op(name, attrs, tensor, constants={"weight": weight})
    if kind == "pool":
        before, after = min(before, size // 2), min(after, size // 2)
        if height + before + after >= size:
            return build.op(name, kinds.Pool("max", (size, 1), (stride, 1), (before, 0, after, 0)), tensor)
    if kind == "subsample":
        return build.op(name, kinds.Subsample((stride, 1)), tensor)
    if kind == "gate":
        return build.mul(name, tensor, build.input(f"{name}.g", (1, channels, 1, 1)))
    if kind == "sum":
        twins = [t for t in chain if build.shape(t) == build.shape(tensor)]
        return build.add(name, *draw(st.permutations([tensor, draw(st.sampled_from(twins))])))
    if kind == "pad":
        return build.op(name, kinds.Pad(1, 0), tensor)
    if kind == "concat" and channels < 8:
        return build.op(name, kinds.Concat(), tensor, tensor)
    return build.activation(name, tensor, "relu")


attentions = st.none() | st.builds(
    Attention,
    kind=st.sampled_from(["se", "ese", "eca"]),
    place=st.sampled_from(["before_depthwise", "after_depthwise", "after_project", "after_sum"]),
)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    kind = draw(
        st.sampled_from(["mbconv"] * 4 + ["fused_mbconv", "depthwise_separable", "conv", "basic", "bottleneck"])
    )
    attention = draw(attentions)
    if attention is not None and kind in ("fused_mbconv", "conv", "basic"):
        attention = replace(attention, place="after_project")
    return Block(
        kind=kind, out_channels=draw(st.sampled_from([4, 8, 12])), kernel_size=draw(st.sampled_from([3, 5, 7])),
        stride=draw(st.sampled_from([1, 1, 2])), expand_ratio=draw(st.sampled_from([1, 2, 4, 6])), attention=attention,
        precision=draw(st.sampled_from([None, *map(Precision.parse, ("int8", "fp16", "W4A8"))])),
        activation=draw(st.sampled_from([None, "identity", "silu"])), norm=draw(st.booleans()),
    )  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A stem and one to four blocks of any kind, odd sizes, either padding, any gates and number types."""
    stem = Block(kind="conv", out_channels=draw(st.sampled_from([3, 8])), stride=draw(st.sampled_from([1, 2])))
    body = tuple(draw(st.lists(blocks(), min_size=1, max_size=4)))
    return Network(
        name="random", stages=(Stage(name="stem", blocks=(stem,)), Stage(name="body", blocks=body)),
        head=Head(num_classes=5, conv_channels=draw(st.sampled_from([None, 16]))),
        resolution=draw(st.integers(9, 40)), padding=draw(st.sampled_from(["symmetric", "tf_same"])),
        channel_divisor=4, precision=draw(st.sampled_from([Precision(), Precision.parse("int8")])),
    )  # fmt: skip
