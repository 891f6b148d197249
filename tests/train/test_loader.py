"""Batches: complete, repeatable, sharded, and never a lone image in training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.errors import InputError
from luthier.train.loader import loader
from luthier.train.read_folder import read_folder
from luthier.train.source import ArraySource, in_memory
from luthier.train.transforms import make_transforms

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
PLAIN = make_transforms(4, train=False, native_hw=(4, 4), mean=ZERO, std=ONE)
CROPS = make_transforms(4, train=True, native_hw=(32, 32), mean=ZERO, std=ONE)


def numbered(n: int) -> ArraySource:
    """Image i is i everywhere, and so is its label."""
    pixels = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 4, 4, 3))
    return in_memory(np.ascontiguousarray(pixels), np.arange(n))


def labels_of(batches: object) -> list[int]:
    return torch.cat([y for _, y in batches]).tolist()


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 3))
def test_evaluation_sees_each_image_once(n: int, batch_size: int, world_size: int) -> None:
    seen = []
    for rank in range(world_size):
        for x, y in loader(
            numbered(n), PLAIN, batch_size, shuffle=False, seed=0, epoch=0, rank=rank, world_size=world_size
        ):
            assert len(x) <= batch_size
            assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)
            seen += y.tolist()
    assert sorted(seen) == list(range(n))


@given(st.integers(2, 60), st.integers(2, 20), st.integers(1, 3), st.integers(0, 5))
def test_training_shards_are_equal_and_have_no_lone_image(n: int, batch_size: int, world_size: int, epoch: int) -> None:
    sizes, seen = [], []
    for rank in range(world_size):
        batches = loader(
            numbered(n), PLAIN, batch_size, shuffle=True, seed=1, epoch=epoch, rank=rank, world_size=world_size
        )
        sizes.append([len(y) for _, y in batches])
        seen += labels_of(batches) if len(batches) else []
    assert all(size == sizes[0] for size in sizes)
    assert all(size > 1 for size in sizes[0][1:])
    assert len(set(seen)) == len(seen) >= n - (world_size - 1) - world_size


def test_batch_size_one_is_kept() -> None:
    assert len(loader(numbered(5), PLAIN, 1, shuffle=True, seed=0, epoch=0)) == 5


def test_epochs_and_seeds_differ_and_repeat() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return labels_of(loader(numbered(50), PLAIN, 8, shuffle=True, seed=seed, epoch=epoch))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


def all_pixels(source: object, num_workers: int, epoch: int = 0) -> torch.Tensor:
    batches = loader(source, CROPS, 8, shuffle=True, seed=3, epoch=epoch, num_workers=num_workers)
    return torch.cat([x for x, _ in batches])


# A process with threads of its own forks the workers; Python 3.12 and later warn of it.
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("lazy", [False, True])
def test_augmentation_is_the_same_with_any_number_of_workers(make_tree: Callable[..., Path], lazy: bool) -> None:
    root = make_tree({"a": 10, "b": 10}, hw=(4, 4))
    source = read_folder(root, in_memory_bytes=0 if lazy else 10**9).train
    alone = all_pixels(source, 0)
    assert torch.equal(alone, all_pixels(source, 2))
    assert not torch.equal(alone, all_pixels(source, 0, epoch=1))


def test_callers_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    all_pixels(numbered(20), 0)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"num_workers": -2}, "num_workers must be >= 0, got -2"),
        ({"rank": 2, "world_size": 2}, r"rank must lie in 0 \.\. 1, got 2"),
    ],
)
def test_refused_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        loader(numbered(4), PLAIN, **{"batch_size": 2, "shuffle": True, "seed": 0, "epoch": 0, **arguments})
