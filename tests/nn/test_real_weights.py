"""Published weights on real images; needs the data folder."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from luthier.arch import presets
from luthier.nn import build, load_pretrained

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pretrained_accuracy.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that measures the whole sets; here it runs on their first images."""
    spec = importlib.util.spec_from_file_location("pretrained_accuracy", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("index, images, floor", [(0, 50, 39), (1, 100, 74)])
@torch.inference_mode()
def test_first_photographs_are_predicted_as_by_timm(
    index: int, images: int, floor: int, script: ModuleType, data_dir: Path
) -> None:
    """Equal classes and scores; the floor is the whole set's top-1 less two standard deviations."""
    target = script.TARGETS[index]
    ours = script.load(target, data_dir)
    theirs = timm.create_model(target.preset).eval()
    theirs.load_state_dict(load_file(data_dir / "weights" / target.weights), strict=False)
    correct = 0
    for x, y in script.batches(data_dir / "images" / "imagenet_samples.npz", ours, limit=images):
        found, wanted = ours(x), theirs(x)
        # one layer sums 1024 terms in another order; scores are of the order of ten
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert torch.equal(found.argmax(1), wanted.argmax(1))
        correct += int((found.argmax(1) == y).sum())
    assert correct >= floor


def _plain_resnet20(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published network written out: option A shortcuts, no module of ours."""

    def conv_bn(name: str, index: int, x: Tensor, stride: int = 1) -> Tensor:
        y = F.conv2d(x, state[f"{name}conv{index}.weight"], stride=stride, padding=1)
        norm = [state[f"{name}bn{index}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(y, *norm)

    x = F.relu(conv_bn("", 1, x))
    for layer in (1, 2, 3):
        for block in range(3):
            name, stride = f"layer{layer}.{block}.", 2 if layer > 1 and block == 0 else 1
            y = conv_bn(name, 2, F.relu(conv_bn(name, 1, x, stride)))
            if stride == 2:
                quarter = y.shape[1] // 4
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])


@torch.inference_mode()
def test_resnet20_equals_the_network_written_out_and_knows_its_images(data_dir: Path) -> None:
    file = data_dir / "weights" / "resnet20_cifar10.safetensors"
    network = presets.get("resnet20")
    ours = build(network).eval()
    report = load_pretrained(ours, file, classifier="match")
    assert report.naming == "ResNet"
    lossless = np.load(data_dir / "images" / "cifar10_lossless_4k.npz")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def normalised(pixels: np.ndarray) -> Tensor:
        return ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()

    x, y = normalised(lossless["images"][:1000]), torch.from_numpy(lossless["labels"][:1000].astype(np.int64))
    scores = ours(x)
    torch.testing.assert_close(scores[:50], _plain_resnet20(load_file(file), x[:50]), rtol=1e-4, atol=1e-4)
    # 99.8 % on all 4 000
    assert float((scores.argmax(1) == y).float().mean()) >= 0.993

    store = np.load(data_dir / "images" / "cifar10.npz")
    chosen = np.flatnonzero(store["is_test"])[::10]
    blob, offsets = store["jpeg"], store["offsets"]
    pixels = [np.asarray(Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes()))) for i in chosen]
    top1 = float((ours(normalised(np.stack(pixels))).argmax(1).numpy() == store["labels"][chosen]).mean())
    # 81.0 % on all 10 000; the standard deviation of 1 000 images is 1.2 %
    assert top1 == pytest.approx(0.810, abs=0.037)
