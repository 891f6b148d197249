"""A folder that one process at a time works in, and that only its own kind of work may fill."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from luthier import files
from luthier.errors import RunFolderError


@contextlib.contextmanager
def hold(folder: Path, identity: str) -> Iterator[None]:
    """Create a folder or go on in it, and keep other processes out until the block ends.

    Args:
        identity: name of the file that says what is done here; a folder with other files and without it is refused.
    Raises:
        RunFolderError: it is a file, holds something else, or cannot be written; another process works in it.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent, hold(Path(parent) / "run", "run.toml"):
        ...     sorted(path.name for path in (Path(parent) / "run").iterdir())
        ['.lock']
    """
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: is a file, not a folder; choose another --run-dir")
    unmarked = folder.is_dir() and not (folder / identity).exists()
    if unmarked and any(path.name != ".lock" for path in folder.iterdir()):
        raise RunFolderError(f"{folder}: holds other files and no {identity}; choose another --run-dir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as error:
        raise files.explain(error, folder) from None
    with lock:
        _keep_out(lock.fileno(), folder)
        yield


def _keep_out(descriptor: int, path: Path) -> None:
    """Keep other processes out of a folder for as long as `descriptor`, a file in it, is open.

    Raises:
        RunFolderError: another process works there.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two processes on one folder are the user's care
        return
    try:
        # the kernel drops the lock with the process, so that a killed run never blocks its successor
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RunFolderError(
            f"{path}: another luthier process works here; wait for it or choose another --run-dir"
        ) from None
