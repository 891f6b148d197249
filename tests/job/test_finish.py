"""The end of a run: what is exported computes what was trained, or is not exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from luthier.arch import encode
from luthier.arch.presets import get
from luthier.arch.scaling import scale
from luthier.cost.budget import Budget
from luthier.cost.summary import cost
from luthier.deploy.latency import Latency, open_session
from luthier.errors import ExportError
from luthier.job import finish
from luthier.job.candidates import Member
from luthier.job.classify import preprocess_document, read_preprocess
from luthier.job.folder import RunFolder
from luthier.nn import build
from luthier.train.preprocess import Preprocess

NETWORK = scale(get("mbconv_thumbnail"), -4, max_resolution=16).with_head(3)
PREPROCESS = Preprocess(NETWORK.resolution)


def images() -> torch.Tensor:
    return torch.randn(5, 3, NETWORK.resolution, NETWORK.resolution, generator=torch.Generator().manual_seed(3))


def trained() -> torch.nn.Module:
    """Random weights, and statistics of norms that are not the initial ones."""
    torch.manual_seed(0)
    module = build(NETWORK).train()
    with torch.no_grad():
        for _ in range(5):
            module(images() + torch.randn(1))
    return module.eval()


def test_export_writes_four_files_that_agree(tmp_path: Path) -> None:
    folder, module = RunFolder(tmp_path), trained()
    check = finish.export(folder, NETWORK, module, preprocess_document(PREPROCESS, ["a", "b", "c"]), images())
    assert check.images == 5
    session = open_session(folder.onnx)
    (spec,) = session.get_inputs()
    assert spec.shape == [1, 3, NETWORK.resolution, NETWORK.resolution]
    with torch.no_grad():
        logits = module(images()).numpy()
    ours = np.concatenate([session.run(None, {spec.name: x[None]})[0] for x in images().numpy()])
    # float32 sums in another order, over some 15 layers
    np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    assert encode.read(folder.network) == NETWORK
    assert set(load_file(folder.weights)) == set(module.state_dict())
    assert read_preprocess(folder.preprocess) == (PREPROCESS, ("a", "b", "c"))


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    folder, module = RunFolder(tmp_path), trained()
    module.head.register_forward_hook(lambda _, __, scores: scores + torch.tensor([0.0, 0.0, 1.0]))
    with pytest.raises(ExportError, match=r"model.onnx: not written, it differs from torch by 1"):
        finish.export(folder, NETWORK, module, json.dumps({}), images())
    assert not folder.onnx.exists()


def test_limits_say_what_kind_their_value_is() -> None:
    price = cost(NETWORK)
    member = Member(0, NETWORK, None, price)
    budget = Budget(max_macs=price.macs, max_memory_bytes=price.peak_activation_bytes - 1, max_latency_s=2e-3)
    rows = {row.name: row for row in finish.limits(budget, member, Latency(1e-3, 1e-5, 10, "test"))}
    assert {name: (row.kind, row.holds) for name, row in rows.items()} == {
        "--max-macs": ("modelled", True),
        "--max-memory": ("modelled", False),
        "--max-latency": ("measured", True),
    }
