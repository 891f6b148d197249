"""What is kept on disk: object files, so that the same kernels are compiled once, and what the tuner has found.

An entry is named by a hash of everything that decides its content: this package's own source, LLVM's version, the CPU
and the kernels.  It begins with a hash of its content, so an entry that was cut short or changed is seen and made anew;
one for another CPU has another name.  The folder belongs to the user alone (mode 0700); a folder that others could
write to is not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import llvmlite.binding as llvm

from luthier.engine.kernels.kernel import Kernel
from luthier.engine.target import Target
from luthier.errors import RunFolderError
from luthier.files import write_bytes

#: names another folder than the system's for caches; empty = no cache
VARIABLE: Final = "LUTHIER_CACHE"
_MAGIC: Final = b"luthier object\n"


def cache_dir(kind: str = "objects") -> Path | None:
    """The user's folder for one kind of entries, made if missing; None where there is none that is safe to use."""
    named = os.environ.get(VARIABLE)
    if named == "":
        return None
    try:
        base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "luthier"
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = base / kind
        folder.mkdir(exist_ok=True, mode=0o700)
        return folder if _private(folder) else None
    except (OSError, RuntimeError):
        return None


def _private(folder: Path) -> bool:
    """Whether nobody else can write here."""
    if sys.platform == "win32":
        return True
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


@cache
def code_version() -> str:
    """A hash of the source that emits code."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def object_key(kernels: Sequence[Kernel], target: Target) -> str:
    """Name of the entry for these kernels in this order."""
    parts = (code_version(), str(llvm.llvm_version_info), repr(target), *map(repr, kernels))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def cached_object(key: str, make: Callable[[], bytes]) -> bytes:
    """The object file called `key`, read or made.

    A folder that cannot be written to makes the next compilation slow and nothing else.
    """
    folder = cache_dir()
    if folder is None:
        return make()
    path = folder / f"{key}.o"
    code = read_entry(path)
    if code is None:
        code = make()
        write_entry(path, code)
    return code


def write_entry(path: Path, content: bytes) -> None:
    """Write an entry, whole or not at all; where the folder cannot be written to, nothing happens."""
    with contextlib.suppress(RunFolderError):
        write_bytes(path, _MAGIC + hashlib.sha256(content).digest() + content)


def read_entry(path: Path) -> bytes | None:
    """The content of a whole, unchanged entry of our own."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head = len(_MAGIC) + hashlib.sha256().digest_size
    content = data[head:]
    whole = data[:head] == _MAGIC + hashlib.sha256(content).digest()
    return content if whole and _owned(path) else None


def _owned(path: Path) -> bool:
    if sys.platform == "win32":
        return True
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
