"""The three routes into a graph agree, and other counters agree with it: description, torch module, ONNX file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, get_args

import numpy as np
import ptflops
import pytest
import torch
from random_networks import built, image
from torch.utils.flop_counter import FlopCounterMode

from luthier.arch import Attention, Block, Head, Stage, presets
from luthier.arch.block import AttentionKind, AttentionPlace
from luthier.arch.network import Network
from luthier.cost import graph_elementwise, graph_macs, graph_params, memory_timeline, weight_bytes
from luthier.deploy.onnx_file import to_onnx
from luthier.graph import Graph, fold_norm_into_conv, from_network, take_constants
from luthier.graph.from_onnx import from_onnx
from luthier.graph.from_torch import from_torch
from luthier.graph.reference import run
from luthier.nn import build

#: one member of each family, and each way of padding; `make presets` takes all
FAMILIES = (
    "mbconv_thumbnail", "efficientnet_b0", "mobilenetv2_035", "tf_mobilenetv3_small_075", "resnet18", "resnet20",
    "seresnet50", "vgg11_bn", "mbconv_scene",
)  # fmt: skip
WHOLE = bool(os.environ.get("LUTHIER_ALL_PRESETS"))
NAMES: Sequence[str] = presets.names() if WHOLE else FAMILIES


def preset(name: str) -> Network:
    """A preset; VGG's hidden layers only as wide as they must be, unless all presets are asked for."""
    network = presets.get(name)
    if WHOLE or not network.head.hidden:
        return network
    return replace(network, head=replace(network.head, hidden=(16, 16)))


def other_size(network: Network) -> int:
    """An odd one, so that every stride rounds."""
    return network.resolution * 5 // 8 | 1


def figures(graph: Graph) -> dict[str, Any]:
    """What must be equal: ops in order, work, parameters, bytes of weights and of what lives at every op."""
    return {
        "kinds": [op.kind for op in graph.ops],
        "attrs": [op.attrs for op in graph.ops],
        "shapes": [graph.output_shape(op) for op in graph.ops],
        "macs": graph_macs(graph),
        "elementwise": graph_elementwise(graph),
        "params": graph_params(graph),
        "weight_bytes": weight_bytes(graph),
        "live_bytes": [step.live_bytes for step in memory_timeline(graph)],
    }


def meta_module(network: Network) -> torch.nn.Module:
    """Shapes without numbers."""
    with torch.device("meta"):
        return build(network)


@pytest.mark.parametrize("at", ["native", "other"])
@pytest.mark.parametrize("name", NAMES)
def test_three_routes_one_graph(name: str, at: str) -> None:
    network = preset(name)
    side = network.resolution if at == "native" else other_size(network)
    spelled = from_network(network, resolution=side, fold_norm=True)
    traced, values = from_torch(meta_module(network), (1, network.in_channels, side, side))
    assert not values
    assert set(traced.constants) == set(from_network(network).constants)
    zeros = {key: np.broadcast_to(np.float32(0), tensor.shape) for key, tensor in spelled.constants.items()}
    read, _ = from_onnx(to_onnx(spelled, zeros))
    wanted = figures(spelled)
    assert figures(fold_norm_into_conv(traced)) == wanted
    assert figures(read) == wanted
    assert graph_params(traced) == graph_params(from_network(network))
    assert set(read.constants) == set(spelled.constants)


@pytest.mark.parametrize("size", [(9, 6), (1, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("kind, window", [*((kind, None) for kind in get_args(AttentionKind)), ("se", 3), ("ese", 5)])
def test_three_routes_and_the_module_agree_on_attention(
    kind: AttentionKind, window: int | None, size: tuple[int, int]
) -> None:
    places: tuple[AttentionPlace, ...] = get_args(AttentionPlace)
    blocks = [
        Block(
            kind="mbconv", out_channels=6, expand_ratio=2, attention=Attention(kind=kind, place=p, window=window)
        )
        for p in places
    ]  # fmt: skip
    network = Network(
        name="gated", stages=(Stage(name="s", blocks=tuple(blocks)),), head=Head(num_classes=4), channel_divisor=1
    )
    module, state = built(network, size, 1)
    spelled = from_network(network, resolution=size)
    values = take_constants(spelled, state)
    traced, _ = from_torch(module, (1, 3, *size))
    read, _ = from_onnx(to_onnx(spelled, {name: np.float32(value) for name, value in values.items()}))
    assert figures(traced) == figures(spelled) == figures(read)
    x = image((1, 3, *size), 2).astype(np.float64)
    wanted = module(torch.from_numpy(x)).detach().numpy()
    got = run(spelled, values, {"input": x})[spelled.outputs[0]]
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)  # sums in another order


def test_a_difference_would_be_seen() -> None:
    network = presets.get("mbconv_thumbnail")
    one = figures(from_network(network, fold_norm=True))
    other = figures(from_network(presets.get("resnet20"), fold_norm=True))
    assert all(one[key] != other[key] for key in one)
    assert figures(from_network(network)) != one


@pytest.mark.parametrize("name", NAMES)
def test_counters_of_torch_and_ptflops(name: str) -> None:
    network = preset(name)
    module = meta_module(network).eval()
    image = torch.zeros(1, network.in_channels, network.resolution, network.resolution, device="meta")
    graph = from_network(network)  # which is the module's, see above
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    assert counter.get_total_flops() == 2 * graph_macs(graph)  # conv and addmm, 2 FLOP per MAC, biases left out

    def count(backend: str) -> int:
        macs, params = ptflops.get_model_complexity_info(
            module, tuple(image.shape[1:]), as_strings=False, print_per_layer_stat=False, backend=backend,
            input_constructor=lambda _: {"x": image},
        )  # fmt: skip
        assert params == graph_params(graph)
        return int(macs)

    def total(kinds: set[str], *, inputs: bool = False) -> int:
        ops = [op for op in graph.ops if op.kind in kinds]
        return sum(prod(graph.input_shapes(op)[0] if inputs else graph.output_shape(op)) for op in ops)

    biases = sum(prod(graph.output_shape(op)) for op in graph.ops if op.kind != "norm" and "bias" in op.constants)
    # aten backend: one more operation per output element of a layer with bias
    assert count("aten") == graph_macs(graph) + biases
    if network.padding == "tf_same":
        return  # the pytorch backend takes our subclass of Conv2d for a function, and counts its padding twice
    # pytorch backend: besides, two operations per element of a batch norm, one per element that a pool reads
    # (averages written as x.mean are not seen), and linear layers twice: as a module and as a function
    linear = sum(prod(graph.output_shape(op)) * graph.input_shapes(op)[0][1] for op in graph.ops if op.kind == "linear")
    pooled = total({"pool", "adaptive_pool"}, inputs=True)
    assert count("pytorch") == graph_macs(graph) + biases + 2 * total({"norm"}) + pooled + linear
