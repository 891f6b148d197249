"""Image folders made on the spot; `toy_data` made importable, for tests and for a script in its own process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeTree = Callable[..., Path]

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """make_tree({"cat": 5, "dog": 5}) writes five different images a class and returns the folder."""

    def make(
        counts: dict[str, int], name: str = "pets", hw: tuple[int, int] = (12, 10), mode: str = "RGB", seed: int = 0
    ) -> Path:
        rng = np.random.default_rng(seed)
        root = tmp_path / name
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (*hw, 3), dtype=np.uint8)
                Image.fromarray(pixels).convert(mode).save(root / folder / f"{index:03d}.png")
        return root

    return make
