"""Evaluation against scikit-learn; the epoch file and its torn last line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix
from toy_data import NUM_CLASSES, toy_net, toy_source

from luthier.errors import RunFolderError
from luthier.train.metrics import append_epoch, evaluate, read_epochs, summarise, write_epochs
from luthier.train.results import Epoch
from luthier.train.transforms import make_transforms

HALF = (0.5, 0.5, 0.5)
EPOCHS = [Epoch(n, 0.1 / n, 1.5, 1.25, 0.5, 2.0, 1000.0) for n in (1, 2, 3)]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_evaluation_equals_sklearn(batch_size: int) -> None:
    source, module = toy_source(50, seed=4), toy_net().train()
    transform = make_transforms(8, train=False, native_hw=(8, 8), mean=HALF, std=HALF)
    found = evaluate(module, source, transform=transform, num_classes=NUM_CLASSES, batch_size=batch_size)
    assert module.training  # as it was
    with torch.no_grad():
        scores = module.eval()(transform(source.pixels))
    expected = confusion_matrix(source.labels, scores.argmax(1).numpy(), labels=range(NUM_CLASSES))
    assert np.array_equal(np.array(found.confusion), expected)
    assert found.n == 50
    assert found.accuracy == expected.trace() / 50
    assert found.per_class_accuracy == tuple(expected.diagonal() / expected.sum(1))
    assert found.loss == pytest.approx(float(F.cross_entropy(scores, torch.from_numpy(source.labels))), rel=1e-5)


def test_a_class_without_images_has_no_accuracy() -> None:
    assert summarise([[0, 0], [1, 3]], 1.0).per_class_accuracy == (None, 0.75)


def test_epochs_round_trip_and_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_epochs(path, EPOCHS[:1])
    append_epoch(path, EPOCHS[1])
    append_epoch(path, EPOCHS[2])
    assert read_epochs(path) == tuple(EPOCHS)
    path.write_bytes(path.read_bytes()[:-20])
    assert read_epochs(path) == tuple(EPOCHS[:2])


def test_a_damaged_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_epochs(path, EPOCHS)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{", lines[2]]))
    with pytest.raises(RunFolderError, match=r"metrics.jsonl: line 2 is not an epoch"):
        read_epochs(path)
