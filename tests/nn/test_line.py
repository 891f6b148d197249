"""Networks over lines: windows of one row, the same everywhere as in the square network that they replace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.arch.encode import from_json, to_json
from luthier.cost import cost
from luthier.engine import compile
from luthier.errors import SpecError
from luthier.graph import fold_constants, fold_norm_into_conv, from_network, take_constants
from luthier.graph.reference import run
from luthier.nn import build


def _network(padding: str = "symmetric", attention: Attention | None = None) -> Network:
    stem = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, kernel_size=7, stride=2),))
    body = Stage(
        name="body",
        blocks=(
            Block(kind="mbconv", out_channels=8, kernel_size=5, expand_ratio=2, attention=attention),
            Block(kind="pool", out_channels=8, kernel_size=3, stride=2),
            Block(kind="basic", out_channels=16),
        ),
    )
    return Network(
        name="line", stages=(stem, body), head=Head(num_classes=4, pool_size=3), resolution=37, height=1,
        in_channels=2, input_mean=(0, 0), input_std=(1, 1), padding=padding,  # type: ignore[arg-type]
    )  # fmt: skip


def _settled(module: nn.Module) -> nn.Module:
    """Norms with statistics of their own, so that folding them is no empty step."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return module.eval()


@pytest.mark.parametrize("padding", ["symmetric", "tf_same"])
@pytest.mark.parametrize("attention", [None, Attention(kind="se"), Attention(kind="eca")])
def test_module_graph_and_engine_agree(padding: str, attention: Attention | None) -> None:
    network = _network(padding, attention)
    module = _settled(build(network))
    graph = from_network(network)
    x = torch.randn(1, 2, 1, 37)
    wanted = module(x).detach().numpy()
    constants = take_constants(graph, {n: v.numpy() for n, v in module.state_dict().items()})
    found = run(graph, constants, {"input": x.numpy()})[graph.outputs[0]]
    folded = fold_norm_into_conv(graph)
    # sums of at most 56 products in another order
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        compile(folded, fold_constants(graph, constants))(x.numpy()), wanted, rtol=1e-4, atol=1e-5
    )


def test_a_line_is_the_middle_row_of_a_square_window() -> None:
    network = _network()
    line = _settled(build(network))
    square = build(replace(network, height=None, head=replace(network.head, pool_size=1))).eval()
    state = square.state_dict()
    for name, value in line.state_dict().items():
        if name.startswith("head"):
            continue
        if state[name].shape != value.shape:
            state[name].normal_()  # the other rows meet nothing but padding
            state[name][:, :, state[name].shape[2] // 2] = value[:, :, 0]
        else:
            state[name].copy_(value)
    square.load_state_dict(state)
    x = torch.randn(2, 2, 1, 37)
    torch.testing.assert_close(square.features(x), line.features(x), rtol=1e-5, atol=1e-5)


def test_work_and_weights_of_a_line() -> None:
    blocks = (Block(kind="conv", out_channels=8, kernel_size=7, stride=2),)
    network = Network(
        name="n", stages=(Stage(name="stem", blocks=blocks),), head=Head(num_classes=5, pool_size=4), resolution=40,
        height=1, in_channels=3,
    )  # fmt: skip
    found = cost(network)
    # the convolution on 20 columns, and the linear layer on 4 columns of 8 channels
    assert found.macs == 3 * 8 * 7 * 20 + 8 * 4 * 5
    assert found.params == 3 * 8 * 7 + 2 * 8 + (8 * 4 * 5 + 5)


def test_a_line_survives_json() -> None:
    assert from_json(to_json(_network())) == _network()


def test_bad_lines_are_refused() -> None:
    with pytest.raises(SpecError, match="height must be one of None, 1, got 2"):
        replace(_network(), height=2)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="attention 'cbam' needs rows and columns"):
        _network(attention=Attention(kind="cbam"))
