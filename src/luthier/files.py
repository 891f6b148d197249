"""Files that are whole or absent: written to a temporary neighbour, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from luthier.errors import RunFolderError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLOSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def explain(error: OSError, path: Path) -> RunFolderError:
    """One line for a write that the system refused.

    Example:
        >>> import errno
        >>> print(explain(OSError(errno.ENOSPC, "No space left on device"), Path("runs/a/model.onnx")))
        runs/a/model.onnx: the disk is full; free some space and run the same command again, nothing was lost
    """
    if error.errno in _FULL:
        remedy = "the disk is full; free some space and run the same command again, nothing was lost"
    elif error.errno in _CLOSED:
        remedy = "the folder cannot be written to; choose another with --run-dir"
    else:
        remedy = f"cannot be written ({error.strerror or error})"
    return RunFolderError(f"{path}: {remedy}")


@contextlib.contextmanager
def explaining(folder: Path) -> Iterator[None]:
    """Turn a full disk or a refused write, met by a library that writes inside `folder`, into one line.

    Raises:
        RunFolderError: instead of such an OSError; all other errors pass.
    """
    try:
        yield
    except RunFolderError:
        raise
    except OSError as error:
        if error.errno not in _FULL | _CLOSED:
            raise
        raise explain(error, Path(error.filename or folder)) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and takes its place, on failure it is removed.

    Raises:
        RunFolderError: read-only folder, full disk.
    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('whole', 1)
    """
    # the suffix stays last, because some writers choose their format by it
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        # whatever is wrong here was wrong above, where it became a message
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or none, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or none, see `replacing`."""
    write_bytes(path, text.encode())


def append_line(path: Path, line: str) -> None:
    """Append one line and wait until it is on the disk.

    Raises:
        RunFolderError: read-only folder, full disk.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line.rstrip("\n") + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise explain(error, path) from error


def _sync_folder(folder: Path) -> None:
    # a rename is only safe once its folder is; Windows cannot open folders and does not need to
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
