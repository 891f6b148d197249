"""`luthier probe` end to end: on published weights, on data of every form, and refusals in one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from luthier.deploy.onnx_file import to_onnx
from luthier.errors import DataError, InputError, ShapeError
from luthier.files import write_bytes
from luthier.graph.builder import Builder
from luthier.graph.gates import find_gates
from luthier.graph.untrained import random_weights
from luthier.job.probe import ProbeRequest, probe
from luthier.job.probe_images import read_images
from luthier.job.weighted import weighted
from luthier.probe.detectors import analytic
from luthier.probe.gates import gate_range, profile, watch_gates
from luthier.probe.remove import remove_gates
from luthier.probe.synthetic import KINDS, draw
from luthier.probe.watch import Watch

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The analytic detectors as a user's ONNX file."""
    made = analytic()
    path = tmp_path_factory.mktemp("model") / "detectors.onnx"
    write_bytes(path, to_onnx(made.graph, made.constants))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in class folders; sorted names are blue, corner, edge."""
    root = tmp_path_factory.mktemp("pictures")
    for index, kind in enumerate(KINDS):
        (root / f"{index}").mkdir()
        for number, picture in enumerate(draw(kind, 20, 9)):
            Image.fromarray(picture).save(root / f"{index}" / f"{kind}{number}.png")
    return root


def test_known_detectors_are_seen_in_all_parts(model: str, folder: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps.npz"
    request = ProbeRequest(mean=HALF, std=HALF, covered=3, window=8, stride=4)
    found = probe(model, [str(folder)], request, maps=maps)
    (gate,) = found.gates
    assert (found.images, found.class_names, found.class_images) == (60, ("0", "1", "2"), (20, 20, 20))
    assert found.labelled
    assert found.accuracy == 1.0
    by_class = np.array(gate.by_class)
    assert (by_class.argmax(1) == [0, 1, 2]).all()  # corner, blue and edge: the fitting gate
    assert gate.class_share is not None
    assert gate.class_share > 0.8
    assert (gate.kind, gate.channels, gate.macs, gate.params) == ("channel", 3, 18, 24)
    corner = found.covered[0]
    assert corner.label == "0"
    (drawn,) = corner.gates
    falls = np.array(drawn.falls)
    assert drawn.channel == 0
    row, column = np.unravel_index(falls.argmax(), falls.shape)
    assert max(row, column) <= 2  # of 7: the strokes' corner lies in the top left
    stored = np.load(maps)
    assert len(stored["images"]) == 3
    assert stored[f"0:{gate.name}"].shape == (3, 7, 7)
    np.testing.assert_allclose(stored[f"0:{gate.name}"][0], falls, atol=1e-6)  # stored as fp32
    (removal,) = found.removals
    assert removal.macs == 18
    assert removal.right_before == 60
    assert found.together is None


def test_plain_pictures_have_one_class_and_no_truth(model: str, folder: Path) -> None:
    found = probe(model, [str(folder / "0"), str(folder / "1")], ProbeRequest(mean=HALF, std=HALF, covered=0))
    assert (found.images, found.class_names, found.accuracy) == (40, ("all",), None)
    assert found.removals[0].right_before is None
    assert found.gates[0].class_share is None
    assert found.covered == ()


class Blind(nn.Module):
    """Its first gate is a constant, its second is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 3)
        self.dead, self.live = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        nn.init.zeros_(self.dead.weight)
        nn.init.normal_(self.live.weight, std=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = torch.relu(self.second(x * torch.sigmoid(self.dead(x.mean((2, 3), keepdim=True)))))
        x = x * torch.sigmoid(self.live(x.mean((2, 3), keepdim=True)))
        out: torch.Tensor = self.last(x.mean((2, 3)))
        return out


def test_a_constant_block_is_found_removed_and_nothing_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    name = f"{Path(__file__).stem}:Blind"
    found = probe(name, [str(folder)], ProbeRequest(resolution=32, covered=0, tolerance=0.05))
    dead, live = found.gates
    assert dead.variation < 1e-6 < 0.05 < live.variation
    assert dead.fixed_channels == 8
    first = found.removals[0]
    assert (first.lost, first.won, first.verdict) == (0, 0, "removable")
    assert first.macs == 64
    assert first.params == 72
    assert first.macs_share == pytest.approx(64 / found.macs)


@pytest.mark.parametrize(
    "paths,most,names",
    [(["{0}/0/corner0.png", "{0}/1"], 100, 21), (["{0}/2"], 5, 5)],
)
def test_files_and_folders(folder: Path, paths: list[str], most: int, names: int) -> None:
    images = read_images([path.format(folder) for path in paths], most, resolution=32, mean=HALF, std=HALF)
    assert images.inputs.shape == (names, 3, 32, 32)
    assert len(images.names) == names
    assert bool(images.remarks) == (most == 5)


def test_the_network_sees_the_picture_that_is_shown(folder: Path) -> None:
    import base64

    images = read_images([str(folder / "0")], 4, resolution=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    kind, _, data = images.picture(2).partition(",")
    assert kind == "data:image/png;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert np.array_equal(shown, np.asarray(Image.open(images.names[2])))


def test_refusals(model: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a description without weights, whose gates say nothing; name a run folder"):
        probe("mbconv_thumbnail", [str(folder)])
    with pytest.raises(DataError, match="no such file or folder"):
        probe(model, [str(tmp_path / "none.png")])
    with pytest.raises(InputError, match="window must lie between 1 and the image's side 32, got 40"):
        probe(model, [str(folder)], ProbeRequest(window=40))
    with pytest.raises(InputError, match="--tolerance: must lie between 0 and 1, got 3"):
        ProbeRequest(tolerance=3)
    build = Builder()
    bare = build.graph(build.conv("c", "c", build.input("x", (1, 3, 8, 8)), 4))
    write_bytes(tmp_path / "bare.onnx", to_onnx(bare, random_weights(bare)))
    with pytest.raises(InputError, match="has no gate"):
        probe(str(tmp_path / "bare.onnx"), [str(folder)])


class Grey(Blind):
    """Takes another number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, 2, 1)


def test_images_of_another_channel_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    with pytest.raises(ShapeError, match=r"takes an input \(1, 32, 32\), images are RGB and square"):
        probe(f"{Path(__file__).stem}:Grey", [str(folder)], ProbeRequest(resolution=32))


def test_published_mobilenet_has_two_gates_that_are_constants(data_dir: Path, tmp_path: Path) -> None:
    """Of nine gates, those of stage1.0 (fully open) and stage4.0 say the same of 32 photographs: nobody misses them."""
    store = np.load(data_dir / "images" / "imagenet_samples.npz")
    for index in range(0, 1000, 32):
        encoded = store["jpeg"][store["offsets"][index] : store["offsets"][index + 1]].tobytes()
        (tmp_path / f"{index}").mkdir()
        (tmp_path / f"{index}" / "image.jpg").write_bytes(encoded)
    images = read_images([str(tmp_path)], 100, resolution=224, mean=HALF, std=HALF)
    weights = data_dir / "weights" / "mobilenetv3_small_se_imagenet.safetensors"
    made = weighted("tf_mobilenetv3_small_100", batch=8, pretrained=str(weights))
    gates = find_gates(made.graph)
    assert [made.graph.tensors[one.gate].shape[1] for one in gates] == [16, 96, 240, 240, 120, 144, 288, 576, 576]
    (scores,) = made.graph.outputs
    values, before = watch_gates(made.graph, made.constants, gates, [images.inputs], scores=scores)
    assert before is not None
    truth = np.array([int(name) for name in images.class_names])[images.labels]
    assert (before.argmax(1) == truth).mean() > 0.6
    found = [profile(made.graph, one, values[one.mul], images.labels) for one in gates]
    still = [one.name for one in found if one.variation < 1e-3]
    assert still == ["stage1.0.attention.mul", "stage4.0.attention.mul"]
    assert found[0].open == 1.0
    means = {name: values[name].mean.mean(0) for name in still}
    graph, constants = remove_gates(made.graph, made.constants, means)
    assert len(find_gates(graph)) == 7
    assert not any(op.kind == "affine" for op in graph.ops)
    after = Watch(graph, constants, graph.outputs)(images.inputs)[graph.outputs[0]]
    np.testing.assert_allclose(after, before, atol=0.05)  # scores of size 10; the gates vary by a ten thousandth


def test_published_cifar_network_from_onnx(data_dir: Path) -> None:
    archive = np.load(data_dir / "images" / "cifar10_lossless_4k.npz")
    mean, std = np.array([0.5071, 0.4867, 0.4408]), np.array([0.2675, 0.2565, 0.2761])
    inputs = ((archive["images"][:24] / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    made = weighted(str(data_dir / "weights" / "osi_mbconv_se_cifar100.onnx"), batch=8)
    gates = find_gates(made.graph)
    assert [one.kind for one in gates] == ["channel"] * 10
    values, _ = watch_gates(made.graph, made.constants, gates, [inputs])
    for one in gates:
        assert 0 < values[one.mul].mean.min() < values[one.mul].mean.max() < 1
        assert gate_range(made.graph, one.gate) == (0, 1)
