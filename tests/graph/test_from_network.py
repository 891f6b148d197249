"""A network spelled out: names, constants, shapes, bad input."""

from __future__ import annotations

import subprocess
import sys

import pytest

from luthier.arch import Attention, Block, Head, Network, Precision, Stage
from luthier.arch.block import AttentionKind
from luthier.arch.presets import get, names
from luthier.cost import graph_macs
from luthier.errors import ShapeError, SpecError
from luthier.graph import from_network
from luthier.graph.attrs import AdaptivePool, Conv
from luthier.nn import build


def network(*blocks: Block, resolution: int = 32, **fields: object) -> Network:
    head = fields.pop("head", Head(num_classes=3))
    return Network(name="n", stages=(Stage(name="s", blocks=blocks),), head=head, resolution=resolution, **fields)  # type: ignore[arg-type]


def test_mbconv_with_se_is_spelled_out() -> None:
    block = Block(kind="mbconv", out_channels=3, expand_ratio=8, attention=Attention())
    graph = from_network(network(block))
    assert [(op.name, op.kind) for op in graph.ops] == [
        ("s.0.expand.conv", "conv"),
        ("s.0.expand.norm", "norm"),
        ("s.0.expand.activation", "activation"),
        ("s.0.depthwise.conv", "conv"),
        ("s.0.depthwise.norm", "norm"),
        ("s.0.depthwise.activation", "activation"),
        ("s.0.attention.pool", "global_pool"),
        ("s.0.attention.reduce", "conv"),
        ("s.0.attention.activation", "activation"),
        ("s.0.attention.expand", "conv"),
        ("s.0.attention.gate", "activation"),
        ("s.0.attention.mul", "mul"),
        ("s.0.project.conv", "conv"),
        ("s.0.project.norm", "norm"),
        ("s.0.add", "add"),
        ("head.pool", "global_pool"),
        ("head.flatten", "flatten"),
        ("head.classifier", "linear"),
    ]
    assert {op.block for op in graph.ops} == {"s.0", "head"}
    assert graph.ops[14].inputs == ("s.0.project.norm", "input")


@pytest.mark.parametrize("name", names())
def test_constants_are_the_modules_state_dict(name: str) -> None:
    import torch

    described = get(name)
    with torch.device("meta"):
        state = build(described).state_dict()
    mine = {key: tensor.shape for key, tensor in from_network(described).constants.items()}
    assert mine == {k: tuple(v.shape) for k, v in state.items() if not k.endswith("num_batches_tracked")}


def test_tf_same_becomes_explicit_and_asymmetric() -> None:
    graph = from_network(get("tf_efficientnet_b0"))
    stem = graph.ops[0].attrs
    assert isinstance(stem, Conv)
    assert stem.pads == (0, 0, 1, 1)
    assert graph.tensors["stem.0.conv.conv"].shape == (1, 32, 112, 112)
    odd = from_network(get("tf_efficientnet_b0"), resolution=(225, 224)).ops[0].attrs
    assert isinstance(odd, Conv)
    assert odd.pads == (1, 0, 1, 1)


def test_vgg_head_pools_to_7_at_any_resolution() -> None:
    for resolution, before in ((224, 7), (160, 5), (320, 10)):
        graph = from_network(get("vgg11_bn"), resolution=resolution)
        pool = next(op for op in graph.ops if op.name == "head.pool")
        assert pool.attrs == AdaptivePool((7, 7))
        assert graph.input_shapes(pool) == [(1, 512, before, before)]
        assert graph.output_shape(pool) == (1, 512, 7, 7)


def test_batch_resolution_and_precision_reach_every_tensor() -> None:
    described = network(Block(kind="conv", out_channels=4, stride=2))
    graph = from_network(described, batch=5, resolution=(10, 20), precision=Precision.parse("W8A16"), fold_norm=True)
    assert graph.tensors["input"].shape == (5, 3, 10, 20)
    assert graph.tensors["s.0.conv.conv"].shape == (5, 4, 5, 10)
    assert {tensor.dtype for tensor in graph.tensors.values()} == {"fp16"}
    assert {name.rsplit(".", 1)[1]: tensor.dtype for name, tensor in graph.constants.items()} == {
        "weight": "int8",
        "bias": "int32",
    }


def test_block_precision_is_what_it_writes() -> None:
    mixed = network(
        Block(kind="conv", out_channels=4, precision=Precision.parse("int8")), Block(kind="conv", out_channels=4)
    )
    graph = from_network(mixed)
    assert graph.tensors["input"].dtype == "fp32"
    assert graph.tensors["s.0.conv.activation"].dtype == "int8"
    assert graph.tensors["s.1.conv.activation"].dtype == "fp32"


def test_option_a_shortcut_subsamples_and_pads() -> None:
    graph = from_network(network(Block(kind="basic", out_channels=8, stride=2, skip="pad"), resolution=9))
    assert graph.tensors["s.0.shortcut.subsample"].shape == (1, 3, 5, 5)
    assert graph.tensors["s.0.shortcut.pad"].shape == (1, 8, 5, 5)
    assert not any("shortcut" in name for name in graph.constants)


def test_map_that_shrinks_to_nothing_names_the_block() -> None:
    with pytest.raises(ShapeError, match=r"stem\.\d.*pool: nothing is left of the map, .*raise the resolution"):
        from_network(get("vgg11_bn"), resolution=1)


def test_bad_arguments() -> None:
    described = network(Block(kind="conv", out_channels=4))
    with pytest.raises(ShapeError, match=r"from_network\(n\): batch and resolution must be at least 1, got 0"):
        from_network(described, batch=0)
    with pytest.raises(ShapeError, match=r"from_network\(n\): .* got 1, 8 x 0"):
        from_network(described, resolution=(8, 0))


@pytest.mark.parametrize("kind, macs", [
    ("se", 12 * 3 + 3 * 12), ("ese", 12 * 12), ("eca", 12 * 3), ("spatial", 2 * 7 * 7 * 6 * 5),
    ("cbam", 2 * (12 * 3 + 3 * 12) + 2 * 7 * 7 * 6 * 5), ("coord", (6 + 5) * 12 * 3 + (6 + 5) * 3 * 12),
])  # fmt: skip
def test_work_of_attention_by_formula(kind: AttentionKind, macs: int) -> None:
    def counted(attention: Attention | None) -> int:
        block = Block(kind="mbconv", out_channels=3, expand_ratio=4, attention=attention)
        return graph_macs(from_network(network(block, channel_divisor=1), resolution=(6, 5)))

    gate = Attention(kind=kind, ratio=0.25, reference="gated")
    assert counted(gate) - counted(None) == macs


def test_pad_shortcut_cannot_drop_channels() -> None:
    with pytest.raises(SpecError, match=r"s\.1: skip 'pad' cannot go from 8 channels down to 4; use 'projection'"):
        from_network(network(Block(kind="conv", out_channels=8), Block(kind="basic", out_channels=4, skip="pad")))


def test_graphs_and_costs_need_no_torch() -> None:
    # numpy is looked for as well: it shows that the look-up could find something
    code = "import sys, luthier.cost, luthier.graph.reference; print('numpy' in sys.modules, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "False"]
