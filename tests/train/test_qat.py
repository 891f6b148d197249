"""The module that trains computes what the integers compute, and training it ends in integers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.quant.test_quantize import small

from luthier.graph.integers import levels
from luthier.quant import integer, quantize
from luthier.quant.numbers import OFFERED
from luthier.quant.simulate import simulate
from luthier.train.qat import Quantized

Array = np.ndarray[Any, Any]


def made(name: str) -> tuple[Any, dict[str, Array], Array]:
    graph, constants, images = small()
    numbers, _, between = name.partition(", ")
    quantized, values = quantize(graph, constants, images, numbers=OFFERED[numbers], products_only=bool(between))
    return quantized, values, images


@pytest.mark.parametrize("name", ["W8A8", "W4A8", "W4A4", "W8A16", "bf16", "W8A8, bf16 between"])
def test_before_training_it_is_the_graph_it_came_from(name: str) -> None:
    graph, values, images = made(name)
    module = Quantized(graph, values)
    again, held = module.integers()
    assert again == graph
    assert all(np.array_equal(held[key], values[key]) for key in values)
    with torch.no_grad():
        got = module(torch.from_numpy(images[:4])).numpy()
    want = simulate(graph, values, (images[:4],))["y"]
    # float32 sums may put a value on the other side of a middle between two levels
    assert np.abs(got - want).max() <= 0.02 * np.abs(want).max()


@pytest.mark.parametrize("learn_ranges", [True, False])
def test_training_lowers_the_loss_and_ends_in_integers(learn_ranges: bool) -> None:
    graph, values, images = made("W4A8")
    module = Quantized(graph, values, learn_ranges=learn_ranges)
    x, y = torch.from_numpy(images), torch.arange(len(images)) % 10
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    trained, held = module.integers()
    assert {held[k].dtype for k, t in trained.constants.items() if t.dtype == "int4"} == {np.dtype(np.int8)}
    assert all(np.abs(held[k]).max() <= 7 for k, t in trained.constants.items() if t.dtype == "int4")
    moved = trained.tensors["stem"].scale != graph.tensors["stem"].scale
    assert moved == learn_ranges
    assert trained.tensors["cs"].scale == trained.tensors["stem"].scale, "relu6 keeps the scale"
    with torch.no_grad():
        got = module(x[:4]).numpy()
    want = integer.run(trained, held, {"x": images[:4]})["y"]
    assert np.abs(got - want).max() <= 0.02 * np.abs(want).max()


def test_nearly_all_integers_are_equal_tensor_by_tensor() -> None:
    graph, values, images = made("W8A8")
    inner = tuple(name for name, t in graph.tensors.items() if t.scale is not None and name not in graph.inputs)
    held = integer.run_all(graph, values, {"x": images[:4]})
    differ = total = 0
    for name in inner:
        module = Quantized(replace(graph, outputs=(name,)), values)
        with torch.no_grad():
            reals = module(torch.from_numpy(images[:4])).numpy()
        scale, zero = levels(graph.tensors[name])
        away = np.rint(reals / scale).astype(int) + zero - held[name].astype(int)
        assert np.abs(away).max() <= 1, name
        differ, total = differ + np.count_nonzero(away), total + away.size
    assert differ <= total // 500


def test_a_number_with_levels_is_rounded_by_its_products_alone() -> None:
    graph, values, images = made("W8A8, bf16 between")
    readers = graph.consumers()
    shared = [
        name for name, tensor in graph.tensors.items()
        if tensor.scale is not None and tensor.dtype == "bf16" and any(op.kind == "add" for op in readers[name])
    ]  # fmt: skip
    assert shared
    held = simulate(graph, values, (images[:4],))
    for name in shared:
        module = Quantized(replace(graph, outputs=(name,)), values)
        with torch.no_grad():
            kept = module(torch.from_numpy(images[:4])).numpy()
        scale = float(levels(graph.tensors[name])[0])
        off_levels = np.abs(kept / scale - np.rint(kept / scale))
        assert (off_levels > 0.1).mean() > 0.2, name
        assert np.abs(kept - held[name]).mean() < 0.1 * scale


def test_gradients_pass_inside_the_range_alone() -> None:
    graph, values, images = made("W8A8")
    module = Quantized(graph, values)
    x = torch.from_numpy(images[:4]).clone()
    x[0, 0, 0, 0] = 1e3
    x.requires_grad_()
    module(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad[0, 0, 0, 0] == 0
    assert (x.grad != 0).float().mean() > 0.9
