"""`luthier.compile(model, example)`: modules, networks, names and files; the axes of arrays; what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import luthier
from luthier.arch import presets
from luthier.arch.block import Precision
from luthier.deploy.onnx_file import to_onnx
from luthier.errors import InputError, PlanError, ShapeError
from luthier.graph import reference
from luthier.graph.untrained import random_images
from luthier.job.weighted import weighted
from luthier.nn.build import build

Array = np.ndarray[Any, Any]
SHAPE = (2, 3, 32, 24)
X = random_images(SHAPE, 0)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 10, 3, padding=1), nn.BatchNorm2d(10), nn.SiLU(), nn.Dropout(0.5), nn.Conv2d(10, 7, 1)
    )


def near(got: Array, want: Array) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_a_module_as_it_computes_in_evaluation_mode() -> None:
    module = small()
    with torch.no_grad():
        module(torch.from_numpy(X))  # moves the norm's statistics
        want = module.eval()(torch.from_numpy(X)).numpy()
    module.train()
    near(luthier.compile(module, torch.from_numpy(X))(X), want)
    assert module.training


def test_channels_last() -> None:
    first, last = luthier.compile(small(), X), luthier.compile(small(), (2, 32, 24, 3), order="nhwc", threads=2)
    near(last(np.ascontiguousarray(X.transpose(0, 2, 3, 1))), first(X).transpose(0, 2, 3, 1))


def test_one_file_for_another_process(tmp_path: Path) -> None:
    plan = luthier.compile(small(), X)
    plan.save(str(tmp_path / "p.plan"))
    np.testing.assert_array_equal(luthier.load(str(tmp_path / "p.plan"))(X), plan(X))
    (tmp_path / "p.plan").write_bytes(b"nothing")
    with pytest.raises(PlanError, match="is not a plan"):
        luthier.load(tmp_path / "p.plan")


def test_a_built_network_with_its_weights() -> None:
    module = build(presets.get("mbconv_thumbnail")).eval()
    with torch.no_grad():
        near(luthier.compile(module, SHAPE)(X), module(torch.from_numpy(X)).numpy())


def test_names_networks_and_files(tmp_path: Path) -> None:
    net = weighted("mbconv_thumbnail", batch=2, resolution=(32, 24))
    want = reference.run(net.graph, net.constants, {net.graph.inputs[0]: X})[net.graph.outputs[0]]
    (tmp_path / "net.onnx").write_bytes(to_onnx(net.graph, net.constants))
    for model in ("mbconv_thumbnail", presets.get("mbconv_thumbnail"), tmp_path / "net.onnx"):
        near(luthier.compile(model, X)(X), want)
    assert luthier.compile("mbconv_thumbnail").inputs[0].shape == (1, 3, 32, 32)
    assert 0 < np.abs(luthier.compile("mbconv_thumbnail", X, dtype="bf16")(X) - want).max() < 0.1 * np.abs(want).max()


def test_a_network_described_for_integers_is_compiled_in_fp32() -> None:
    network = presets.get("mbconv_thumbnail")
    w8a8 = tuple(
        replace(stage, blocks=tuple(replace(block, precision=Precision.parse("W8A8")) for block in stage.blocks))
        for stage in network.stages
    )
    np.testing.assert_array_equal(luthier.compile(replace(network, stages=w8a8), X)(X), luthier.compile(network, X)(X))


@pytest.mark.parametrize(
    ("model", "how", "error", "words"),
    [
        (small(), {}, InputError, "a module does not state the size of its images; give an example"),
        (small(), {"example": X, "pretrained": "timm"}, InputError, "a module has weights"),
        ("mbconv_thumbnail", {"example": (3, 32, 32)}, ShapeError, r"of 4 axes, each at least 1, got \(3, 32, 32\)"),
        ("mbconv_thumbnail", {"example": (0, 3, 32, 32)}, ShapeError, "each at least 1"),
        ("mbconv_thumbnail", {"example": (1, 4, 32, 32)}, ShapeError, r"takes images \(1, 3, 32, 32\)"),
        ("no_such", {}, InputError, "no network named"),
        (7, {}, InputError, "got int"),
    ],
    ids=str,
)
def test_refused(model: Any, how: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        luthier.compile(model, **how)


def test_no_torch_and_no_stray_names() -> None:
    code = "import luthier, sys; luthier.compile('mbconv_thumbnail'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="has no attribute 'compil'"):
        luthier.compil  # noqa: B018
