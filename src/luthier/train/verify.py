"""Decode every file once, in threads: what cannot be read is known before training, and small data stays in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from luthier.errors import DataError
from luthier.train.pixels import PixelArray, bombs_as_errors, decode_rgb, path_text
from luthier.train.source import Keys, Labels, content_key

#: Images of one size are kept decoded up to this many bytes; beyond it they are decoded when needed.
IN_MEMORY_BYTES: Final = 512 * 2**20
_PROGRESS_FILES: Final = 1000
_CHUNK: Final = 256


@dataclass(frozen=True, eq=False)
class Checked:
    """What one pass over N files found.

    Attributes:
        sizes_hw: (N, 2) int64, zero where the file is bad.
        keys: (N,) content hashes of the files' bytes.
        kinds: conversions that were needed, one entry each.
        errors: row -> message, for bad files.
        pixels: (N, H, W, 3) uint8 if all good images have one size and fit `IN_MEMORY_BYTES`, else None.
    """

    sizes_hw: Labels = field(repr=False)
    keys: Keys = field(repr=False)
    kinds: tuple[str, ...] = field(repr=False)
    errors: dict[int, str]
    pixels: PixelArray | None = field(repr=False)


@dataclass(frozen=True, eq=False)
class _Decoded:
    hw: tuple[int, int] = (0, 0)
    pixels: PixelArray | None = None  # none when bad, or too large to hold
    kinds: tuple[str, ...] = ()
    key: int = 0
    error: str = ""


def verify_files(files: Sequence[Path], what: str = "images", in_memory_bytes: int = IN_MEMORY_BYTES) -> Checked:
    """Decode each file completely and keep the pixels if they are small and alike.

    More than 1,000 files show a progress bar on stderr.

    Args:
        files: N paths.
        what: named beside the progress bar.
        in_memory_bytes: what the decoded pixels may take.
    """
    n = len(files)
    sizes = np.zeros((n, 2), np.int64)
    keys = np.zeros(n, np.uint64)
    kinds: list[str] = []
    errors: dict[int, str] = {}
    held: PixelArray | None = None
    uniform = True
    results = _decoded(files, in_memory_bytes // max(n, 1))
    if n > _PROGRESS_FILES:
        console = Console(stderr=True)
        label = escape(f"checking {what}")
        hidden = not console.is_terminal
        results = iter(track(results, label, total=n, console=console, transient=True, disable=hidden))
    for row, result in enumerate(results):
        if result.error:
            errors[row] = result.error
            continue
        sizes[row], keys[row] = result.hw, result.key
        kinds += result.kinds
        if uniform and held is None and result.pixels is not None:
            held = np.zeros((n, *result.pixels.shape), np.uint8)
        if held is not None and result.pixels is not None and result.pixels.shape == held.shape[1:]:
            held[row] = result.pixels
        else:
            uniform, held = False, None
    return Checked(sizes, keys, tuple(kinds), errors, held)


def _decoded(files: Sequence[Path], keep_bytes: int) -> Iterator[_Decoded]:
    """In order, a chunk at a time, so that futures do not pile up over a million files."""
    remaining = iter(files)
    with bombs_as_errors(), ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        while chunk := list(islice(remaining, _CHUNK)):
            yield from pool.map(partial(_decode, keep_bytes=keep_bytes), chunk)


def _decode(file: Path, keep_bytes: int) -> _Decoded:
    shown = path_text(file)
    try:
        if not file.is_file():
            raise DataError(f"{shown}: not a regular file")
        raw = file.read_bytes()
        pixels, kinds = decode_rgb(raw, shown)
    except OSError as error:
        return _Decoded(error=f"{shown}: cannot be read ({error.strerror or error})")
    except DataError as error:
        message = str(error)
        return _Decoded(error=message if message.startswith(shown) else f"{shown}: {message}")
    hw = (pixels.shape[0], pixels.shape[1])
    return _Decoded(hw, pixels if pixels.nbytes <= keep_bytes else None, kinds, content_key(raw))
