from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

from luthier import files
from luthier.errors import InputError, RunFolderError


def refusing(code: int) -> Any:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return refuse


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.json"
    files.write_text(path, "été\n")
    assert path.read_bytes() == "été\n".encode()
    files.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_failure_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_text(path, "old")

    def write_half() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError("in the middle")

    with pytest.raises(ZeroDivisionError, match="in the middle"):
        write_half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "model.onnx") as temporary:
        assert temporary.suffix == ".onnx"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "the disk is full; free some space and run the same command again"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "the folder cannot be written to; choose another with --run-dir"),
        (errno.EACCES, "the folder cannot be written to"),
        (errno.EIO, "cannot be written"),
    ],
)
@pytest.mark.parametrize("how", ["write_text", "append_line"])
def test_a_refused_write_is_explained_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str, how: str
) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old\n")
    monkeypatch.setattr(os, "fsync", refusing(code))
    with pytest.raises(RunFolderError, match=rf"a\.txt: {remedy}"):
        getattr(files, how)(path, "new")
    assert path.read_text().startswith("old\n")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_lines_are_appended_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "log" / "a.jsonl"
    for line in ("one", "two\n", "three"):
        files.append_line(path, line)
    assert path.read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize(("code", "text"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written to")])
def test_a_librarys_refused_write_is_explained(code: int, text: str) -> None:
    with pytest.raises(RunFolderError, match=rf"study: .*{text}"), files.explaining(Path("run")):
        raise OSError(code, os.strerror(code), "study")
    with pytest.raises(RunFolderError, match=rf"run: .*{text}"), files.explaining(Path("run")):
        raise OSError(code, os.strerror(code))


def test_other_errors_pass_unexplained() -> None:
    with pytest.raises(FileNotFoundError, match="No such file"), files.explaining(Path("run")):
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    with pytest.raises(RunFolderError, match=r"^as it was$"), files.explaining(Path("run")):
        raise RunFolderError("as it was")


def test_the_explanation_is_a_users_error() -> None:
    error = files.explain(OSError(errno.ENOSPC, "x"), Path("a"))
    assert isinstance(error, InputError)
    assert isinstance(error, OSError)
    assert error.exit_code == 2
