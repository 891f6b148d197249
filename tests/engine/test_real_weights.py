"""Published weights on real photographs: compiled against double precision; needs the data folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine.numbers import relative_error

from luthier.arch import presets
from luthier.engine import compile
from luthier.graph import fold_constants, fold_norm_into_conv, from_network, take_constants

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pretrained_accuracy.py"
IMAGES = 6


@pytest.mark.parametrize("index", [0, 1])
@torch.inference_mode()
def test_photographs_within_a_hundred_thousandth(index: int, data_dir: Path) -> None:
    spec = importlib.util.spec_from_file_location("pretrained_accuracy", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    spec.loader.exec_module(script)
    target = script.TARGETS[index]
    module = script.load(target, data_dir)
    x, _ = next(iter(script.batches(data_dir / "images" / "imagenet_samples.npz", module, limit=IMAGES)))
    graph = from_network(presets.get(target.preset), batch=len(x), resolution=tuple(x.shape[2:]))
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    constants = fold_constants(graph, take_constants(graph, state))
    want = module.double()(x.double()).numpy()
    for threads in (1, 2):
        got = compile(fold_norm_into_conv(graph), constants, threads=threads)(x.numpy())
        assert np.array_equal(got.argmax(1), want.argmax(1))
        assert relative_error(got, want) <= 1e-5
    half = compile(fold_norm_into_conv(graph), constants, dtype="bf16")(x.numpy())
    assert np.array_equal(half.argmax(1), want.argmax(1))
    assert relative_error(half, want) <= 2**-5  # measured on 24 images: 0.011 and 0.021
