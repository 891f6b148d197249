"""An exported folder: written whole or not at all, never over somebody else's files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from luthier import files
from luthier.deploy.embedded import sources
from luthier.deploy.embedded.manifest import NAME, Manifest, is_exported, sha256
from luthier.errors import InputError


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a folder that holds something else than an export.

    Raises:
        InputError: it is not empty, holds no manifest, and is not to be written over; or it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (is_exported(folder) or force):
        raise InputError(f"-o {folder}: holds other files; name another folder, or give --force to write into it")


def write_folder(folder: Path, manifest: Manifest, code: bytes, samples: Mapping[str, bytes]) -> Manifest:
    """Write all files, the manifest last.

    The files of an earlier export, whose names stand in its manifest, are taken away first.

    Returns:
        The manifest with the checksums.
    Raises:
        RunFolderError: a full disk, or a folder that cannot be written to.
    """
    content: dict[str, bytes] = {manifest.object: code, **samples}
    texts = {f"{manifest.name}.h": sources.header(manifest)}
    if manifest.triple.startswith("wasm"):
        texts["example.mjs"] = sources.wasm_example(manifest)
    else:
        texts |= {"example.c": sources.example(manifest), "CMakeLists.txt": sources.cmake(manifest)}
    if manifest.triple.startswith("thumb"):
        texts |= {"board.c": sources.BOARD_C, "board.ld": sources.BOARD_LD}
    content |= {name: text.encode() for name, text in texts.items()}
    manifest = replace(manifest, files=tuple((name, sha256(data)) for name, data in sorted(content.items())))
    with files.explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _remove_earlier(folder)
    for name, data in content.items():
        files.write_bytes(folder / name, data)
    files.write_text(folder / NAME, manifest.text())
    return manifest


def _remove_earlier(folder: Path) -> None:
    try:
        listed = json.loads((folder / NAME).read_text("utf-8"))["files"]
        names = [str(name) for name, _ in listed]
    except (OSError, ValueError, TypeError, KeyError):
        names = []
    for name in (NAME, *names):
        if Path(name).name == name:
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()
