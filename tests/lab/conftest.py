from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def lab_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 240 training and 20 test images of 32 px, ten classes of noise."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (260, 32, 32, 3), np.uint8)
    labels = np.arange(260) % 10
    encoded = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=90)
        encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    np.savez(
        root / "images" / "cifar10.npz", jpeg=np.concatenate(encoded), offsets=np.cumsum([0, *map(len, encoded)]),
        labels=labels, is_test=np.arange(260) >= 240,
    )  # fmt: skip
    return root
