"""Files of one idea, each on the map; every error explained; nothing that ties the repository to one machine."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
from pathlib import Path

import pytest

from luthier import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "luthier"
MAX_LINES = 400
# Written in two halves, so that this file does not find itself.
NEIGHBOUR = re.compile(r"\.\./" + "shared")
HOME = re.compile(r"(?<![\w.~*})-])/(?:work" + r"|root|home/\w+|Users/\w+|mnt)/")


def own_files() -> list[Path]:
    """Every file that git tracks or would track; the whole tree where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        return sorted(ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())
    parts = ("src", "tests", "docs", "benchmarks", "examples")
    return sorted(f for part in parts for f in (ROOT / part).rglob("*") if f.is_file() and f.suffix != ".pyc")


def machine_words(text: str, name: str) -> list[str]:
    """One line per mention of a folder that exists only on somebody's machine."""
    patterns = [HOME] if name == "Makefile" else [HOME, NEIGHBOUR]
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), 1)
        if any(pattern.search(line) for pattern in patterns)
    ]


def source_files() -> list[Path]:
    """The Python files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def too_long(files: list[Path], limit: int = MAX_LINES) -> list[str]:
    """Files past the hard stop, with their length."""
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    return [f"{file.name}: {lines} lines, at most {limit}" for file, lines in lengths.items() if lines > limit]


def test_no_source_file_is_too_long() -> None:
    assert len(source_files()) >= 3
    assert too_long(source_files()) == []


def test_a_long_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("x = 1\n" * (MAX_LINES + 1))
    (tmp_path / "short.py").write_text("x = 1\n" * MAX_LINES)
    assert too_long(sorted(tmp_path.iterdir())) == ["long.py: 401 lines, at most 400"]


def test_every_module_is_on_the_map() -> None:
    names = {file.relative_to(PACKAGE).as_posix() for file in source_files() if file.name != "__init__.py"}
    lines = re.findall(r"^- `([\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.M)
    listed = set(lines)
    assert len(lines) == len(listed), "docs/architecture.md lists a file twice"
    assert sorted(names - listed) == [], "add a line for each of these to docs/architecture.md"
    assert sorted(listed - names) == [], "docs/architecture.md lists files that do not exist"


def test_every_error_has_its_paragraph() -> None:
    classes = {n for n, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.LuthierError)}
    headings = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.M))
    assert "SpecError" in classes
    assert classes == headings


def test_the_example_in_the_readme_runs() -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, attempted = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=flags)
    assert attempted >= 1
    assert failed == 0


def test_nothing_names_a_folder_of_one_machine() -> None:
    found = []
    for file in own_files():
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights, images and other data
        found += machine_words(text, file.relative_to(ROOT).as_posix())
    assert found == []


@pytest.mark.parametrize("folder", ["../" + "shared/data", "/work" + "/main", "/root" + "/x", '"/home' + '/ann/data"'])
def test_a_planted_machine_folder_is_found(folder: str) -> None:
    assert machine_words(f"open({folder})", "docs/a.md") == [f"docs/a.md:1: open({folder})"]


@pytest.mark.parametrize("text", ["net/work/x", "https://host/home/page", "shared/data", "/proc/cpuinfo"])
def test_an_innocent_path_is_left_alone(text: str) -> None:
    assert machine_words(text, "docs/a.md") == []
