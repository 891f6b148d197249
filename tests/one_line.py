"""How the command line complains: one line, no traceback."""

from __future__ import annotations

from typing import Any


def assert_one_line(ended: Any, code: int, *words: str) -> None:
    """The complaint is the last line and the only one that begins with our name; what came before is progress."""
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    lines = ended.err.splitlines()
    assert [line for line in lines if line.startswith("luthier:")] == lines[-1:]
    assert "[docs/errors.md#" in lines[-1]
    for word in words:
        assert word in lines[-1]
