"""Batches of one epoch, the same for the same seed and epoch whatever the number of worker processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from luthier.errors import InputError
from luthier.train.source import ArraySource, Source
from luthier.train.transforms import ImageTransform

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
_Rows: TypeAlias = tuple[int, npt.NDArray[np.int64]]

_MAX_WORKERS: Final = 8


def loader(
    source: Source,
    transform: ImageTransform,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    epoch: int,
    num_workers: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Batch]:
    """One epoch of batches.

    Args:
        source: the images.
        transform: of (3, H, W) and (B, 3, H, W) uint8 to float32, such as `make_transforms` returns.
        batch_size: images per batch and process, >= 1; the last batch may be shorter.
        shuffle: draw a new order from (seed, epoch), and count this as training: a last batch of one image is
            left out, because batch normalisation cannot train on it.
        seed: of order and augmentation, >= 0.
        epoch: >= 0.
        num_workers: processes that load; 0 = this one; None = 0 for images in memory, else one a core, 8 at most.
        rank: which process of several this is, 0 .. world_size-1.  The image order is the same in all; each takes
            every `world_size`-th.  In training all take equally many (up to world_size-1 images are left out);
            in evaluation none is left out or repeated, so the shares may differ by one.
        world_size: number of processes, >= 1.
    Returns:
        A `DataLoader` of (images (B, 3, H, W) float32, labels (B,) int64).  It shards by itself: hand it to
        Lightning Fabric with `use_distributed_sampler=False`.
    Raises:
        InputError: an argument outside its range.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
        ("epoch", epoch, 0),
        ("num_workers", num_workers or 0, 0),
        ("world_size", world_size, 1),
    ):
        if value < least:
            raise InputError(f"loader: {name} must be >= {least}, got {value}")
    if not 0 <= rank < world_size:
        raise InputError(f"loader: rank must lie in 0 .. {world_size - 1}, got {rank}")
    order = epoch_order(len(source), shuffle=shuffle, seed=seed, epoch=epoch)
    if shuffle:
        order = order[: len(order) - len(order) % world_size]
    order = order[rank::world_size]
    batches = [(n, order[at : at + batch_size]) for n, at in enumerate(range(0, len(order), batch_size))]
    if shuffle and batch_size > 1 and len(batches) > 1 and len(batches[-1][1]) == 1:
        batches.pop()
    if num_workers is None:
        num_workers = 0 if isinstance(source, ArraySource) else min(os.cpu_count() or 1, _MAX_WORKERS)
    dataset = _Batches(source, transform, (seed, epoch, rank), batches)
    # Its own generator: a DataLoader draws its workers' base seed from torch's global one otherwise.
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size=None, shuffle=False, num_workers=num_workers, generator=generator)


def epoch_order(n: int, *, shuffle: bool, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Rows 0 .. n-1 as this epoch visits them.

    Example:
        >>> sorted(epoch_order(4, shuffle=True, seed=0, epoch=3).tolist())
        [0, 1, 2, 3]
    """
    rows = np.arange(n, dtype=np.int64)
    return np.random.default_rng([seed, epoch]).permutation(rows) if shuffle else rows


class _Batches(Dataset[Batch]):
    """Item i is the whole i-th batch, so that images in memory are transformed together."""

    def __init__(
        self, source: Source, transform: ImageTransform, seeds: tuple[int, int, int], batches: list[_Rows]
    ) -> None:
        self.source, self.transform, self.seeds, self.batches = source, transform, seeds, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        number, rows = self.batches[index]
        with _random_state((*self.seeds, number)):
            if isinstance(self.source, ArraySource):
                images = self.transform(self.source.images(rows))
            else:
                images = torch.stack([self.transform(self.source.image(int(row))) for row in rows])
        return images, torch.from_numpy(self.source.labels[rows])


@contextmanager
def _random_state(seeds: tuple[int, ...]) -> Iterator[None]:
    """Seed torch's CPU generator for one batch and put it back, so that the training loop's own draws stay its own.

    Not `torch.manual_seed`: that would reset the accelerator's generators too.
    """
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        torch.set_rng_state(before)
