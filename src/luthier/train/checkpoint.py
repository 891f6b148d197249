"""The state of a training on disk: whole or absent, read without executing anything, refused when it is another's."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from luthier import files
from luthier.errors import RunFolderError

_MAGIC: Final = b"luthier.checkpoint/1 "
_DIGEST_CHARS: Final = 64


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them; temp + fsync + rename.

    Raises:
        RunFolderError: the disk is full or the folder cannot be written.
    """
    memory = io.BytesIO()
    torch.save(dict(state), memory)
    payload = memory.getbuffer()
    digest = hashlib.sha256(payload).hexdigest().encode()
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        for part in (_MAGIC, digest, b"\n", payload):
            file.write(part)


def load(path: Path, identity: Mapping[str, str]) -> dict[str, Any]:
    """Read what `save` wrote.

    Args:
        path: the file.
        identity: what the checkpoint must agree with, name -> fingerprint; stored under the key `identity`.
    Raises:
        RunFolderError: unreadable, damaged, of another version, or of another training.
    """
    remedy = "remove it to start again, or choose another --run-dir"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RunFolderError(f"{path}: checkpoint cannot be read ({error.strerror}); {remedy}") from None
    start = len(_MAGIC) + _DIGEST_CHARS + 1
    if not raw.startswith(_MAGIC):
        raise RunFolderError(f"{path}: not a checkpoint of this version of luthier, or damaged; {remedy}")
    payload = memoryview(raw)[start:]
    if hashlib.sha256(payload).hexdigest().encode() != raw[len(_MAGIC) : start - 1]:
        raise RunFolderError(f"{path}: checkpoint is damaged, its checksum does not match; {remedy}")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    other = [name for name, value in identity.items() if state["identity"].get(name) != value]
    if other:
        raise RunFolderError(f"{path}: checkpoint belongs to a training with another {', '.join(other)}; {remedy}")
    return state


def network_fingerprint(module: nn.Module) -> str:
    """sha256 over the names, shapes and types of all weights and over the structure that torch prints."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"\0{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
    return digest.hexdigest()
