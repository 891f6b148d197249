"""The summary agrees with its parts, and is quick."""

from __future__ import annotations

import pytest

from luthier.arch import Precision
from luthier.arch.presets import get, names
from luthier.cost import cost, graph_elementwise, graph_macs, graph_params, peak_activation_bytes, weight_bytes
from luthier.errors import InputError
from luthier.graph import from_network


@pytest.mark.parametrize("name", names())
def test_blocks_add_up_and_parts_agree(name: str) -> None:
    network = get(name)
    result, folded = cost(network), from_network(network, fold_norm=True)
    assert result.params == graph_params(from_network(network)) == sum(b.params for b in result.per_block)
    assert result.macs == graph_macs(folded) == sum(b.macs for b in result.per_block)
    assert result.elementwise_ops == graph_elementwise(folded)
    assert (
        result.peak_activation_bytes
        == peak_activation_bytes(folded)
        == max(b.peak_activation_bytes for b in result.per_block)
    )
    assert result.weight_bytes == weight_bytes(folded) == sum(b.weight_bytes for b in result.per_block)
    assert result.weight_bytes == 4 * graph_params(folded)
    assert [b.name for b in result.per_block] == [*(p.name for p in network.walk()), "head"]
    assert [b.out_shape[1] for b in result.per_block[:-1]] == [p.block.out_channels for p in network.walk()]


def test_a_graph_costs_as_its_network() -> None:
    network = get("mobilenetv2_100")
    assert cost(from_network(network)) == cost(network)
    with pytest.raises(InputError, match="cost: a graph has its own shapes"):
        cost(from_network(network), resolution=96)


def test_precision_and_resolution() -> None:
    network = get("efficientnet_b0")
    full, small = cost(network), cost(network, precision=Precision.parse("int8"))
    assert small.peak_activation_bytes * 4 == full.peak_activation_bytes
    assert small.peak_activation_bytes == 1470 * 1024
    folded = from_network(network, fold_norm=True)
    biases = sum(t.elements for name, t in folded.constants.items() if name.endswith("bias"))
    # 8-bit weights, 32-bit biases
    assert small.weight_bytes == graph_params(folded) - biases + 4 * biases
    assert small.weight_bytes == weight_bytes(from_network(network, fold_norm=True, precision=Precision.parse("int8")))
    mixed = cost(network, precision=Precision.parse("W4A16"))
    assert mixed.peak_activation_bytes * 2 == full.peak_activation_bytes
    assert mixed.weight_bytes == (graph_params(folded) - biases + 1) // 2 + 4 * biases
    assert 0.25 * full.macs < cost(network, resolution=112).macs < 0.3 * full.macs  # SE and head do not shrink
    assert cost(network, resolution=(112, 224)).params == full.params


def test_peak_op_is_the_first_strided_depthwise() -> None:
    network = get("efficientnet_b0")
    strided = [p.name for p in network.walk() if p.block.kind == "mbconv" and p.block.stride == 2]
    assert cost(network).peak_op == f"{strided[0]}.depthwise.conv"


def test_frozen_and_equal_every_time() -> None:
    first, second = cost(get("efficientnet_b0")), cost(get("efficientnet_b0"))
    assert first == second
    with pytest.raises(AttributeError, match="cannot assign to field 'macs'"):
        first.macs = 1  # type: ignore[misc]
