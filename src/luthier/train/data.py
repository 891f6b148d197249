"""The door to image data: `load_data` reads what the user named, whatever its form."""

from __future__ import annotations

from pathlib import Path

from luthier.errors import DataError
from luthier.train.parts import Parts, divide
from luthier.train.pixels import path_text
from luthier.train.read_digits import read_digits
from luthier.train.read_folder import read_folder
from luthier.train.read_named import PREFIX, read_named
from luthier.train.read_npz import read_npz
from luthier.train.source import Source, Splits, channel_mean_std
from luthier.train.split import check_shares

__all__ = ["Source", "Splits", "channel_mean_std", "load_data", "load_judges"]

DIGITS = "digits"


def load_data(
    spec: str | Path | None,
    *,
    seed: int = 0,
    val_share: float = 0.1,
    test_share: float = 0.1,
    skip_bad: bool = False,
) -> Splits:
    """Read, check and divide a data set for image classification.

    Args:
        spec: a folder with one subfolder per class (or `train/`, `val/`, `test/` of such), an `.npz` archive,
            `torchvision:NAME`, or `digits`, which None means too.
        seed: draws the splits that are not given; the same seed and data give the same splits.
        val_share: part of each class for validation, in [0, 1), where none is given.
        test_share: the same for the test.
        skip_bad: leave out image files that cannot be decoded, and list them, instead of refusing the data.
    Returns:
        Train, validation and test images that share none, and what there is to say about them.
    Raises:
        InputError: shares or seed outside their range.
        DataError: the data cannot be used; one line that names the file, the limit, the value and the remedy.
    Example:
        >>> splits = load_data("digits")
        >>> len(splits.train), len(splits.val), len(splits.test), splits.image_hw
        (1439, 179, 179, (8, 8))
    """
    check_shares(val_share, test_share, seed)
    origin = DIGITS if spec is None else str(spec)
    return divide(_read(origin, skip_bad), origin, seed=seed, val_share=val_share, test_share=test_share)


def load_judges(spec: str, *, skip_bad: bool = False) -> tuple[Source, tuple[str, ...], bool]:
    """Labelled images to look at a finished network with: those given for the test, else all.

    Args:
        spec, skip_bad: see `load_data`.
    Returns:
        The images, the names of their classes, and whether they were given for the test.
    Raises:
        DataError: the data cannot be used.
    Example:
        >>> images, names, held_out = load_judges("digits")
        >>> len(images), len(names), held_out
        (1797, 10, False)
    """
    parts = _read(spec, skip_bad)
    return parts.test or parts.train, parts.class_names, parts.test is not None


def _read(origin: str, skip_bad: bool) -> Parts:
    if origin == DIGITS:
        return read_digits()
    if origin.startswith(PREFIX):
        return read_named(origin, skip_bad=skip_bad)
    path = Path(origin)
    try:
        exists, is_folder, is_file = path.exists(), path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:  # a name too long, or with a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path_text(path)[:200]}: cannot be read ({reason})") from None
    if is_folder:
        return read_folder(path, skip_bad=skip_bad)
    if is_file and path.suffix.lower() == ".npz":
        return read_npz(path)
    expected = f"expected a folder of class folders, an .npz file, {PREFIX}NAME, or {DIGITS}"
    if not exists:
        raise DataError(f"{path_text(path)}: no such file or folder; {expected}")
    raise DataError(f"{path_text(path)}: neither a folder nor an .npz file; {expected}")
