"""A checkpoint is whole, ours, and harmless to read; anything else is refused in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from toy_data import toy_net

from luthier.errors import RunFolderError
from luthier.train.checkpoint import load, network_fingerprint, save

IDENTITY = {"recipe": "r", "data": "d"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    save(path, {"identity": IDENTITY, "weights": {"a": torch.arange(1000.0)}, "epoch": 3, "none": None})
    return path


def test_round_trip(saved: Path) -> None:
    state = load(saved, IDENTITY)
    assert torch.equal(state["weights"]["a"], torch.arange(1000.0))
    assert (state["epoch"], state["none"]) == (3, None)
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("where", [100, -600])
def test_one_flipped_bit(saved: Path, where: int) -> None:
    raw = bytearray(saved.read_bytes())
    raw[where] ^= 1
    saved.write_bytes(raw)
    with pytest.raises(RunFolderError, match=r"checkpoint.pt: checkpoint is damaged.*remove it .*--run-dir"):
        load(saved, IDENTITY)


@pytest.mark.parametrize(("length", "message"), [(0, "not a checkpoint"), (50, "damaged"), (2000, "damaged")])
def test_truncated(saved: Path, length: int, message: str) -> None:
    os.truncate(saved, length)
    with pytest.raises(RunFolderError, match=message):
        load(saved, IDENTITY)


def test_a_plain_pickle_is_not_opened(saved: Path) -> None:
    saved.write_bytes(pickle.dumps({"identity": IDENTITY}))
    with pytest.raises(RunFolderError, match=r"not a checkpoint of this version"):
        load(saved, IDENTITY)


def test_another_training(saved: Path) -> None:
    with pytest.raises(RunFolderError, match=r"training with another data; remove it .* choose another --run-dir"):
        load(saved, {"recipe": "r", "data": "other"})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"cannot be read \(No such file"):
        load(tmp_path / "none.pt", IDENTITY)


def test_fingerprint_tells_networks_apart_but_not_weights() -> None:
    assert network_fingerprint(toy_net(seed=0)) == network_fingerprint(toy_net(seed=1))
    assert network_fingerprint(toy_net()) != network_fingerprint(toy_net(norm=False))
    assert network_fingerprint(toy_net(dropout=0.1)) != network_fingerprint(toy_net(dropout=0.2))
