"""The page of the engine: its examples run."""

from __future__ import annotations

import doctest
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_examples_of_the_engines_page_run() -> None:
    failed, attempted = doctest.testfile(str(ROOT / "docs" / "engine.md"), module_relative=False)
    assert attempted >= 10
    assert failed == 0
