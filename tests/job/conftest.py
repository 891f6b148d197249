from __future__ import annotations

from pathlib import Path

import pytest

from luthier.arch import presets
from luthier.job.candidates import Member, scaled_members
from luthier.job.study import Study


@pytest.fixture(scope="session")
def family() -> list[Member]:
    """Six members, smallest first."""
    found = scaled_members(presets.get("mbconv_thumbnail").with_head(3), 32, phis=(-4, -2, 0, 1, 2, 4))
    assert len(found) == 6
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


@pytest.fixture
def study(journal: Path) -> Study:
    return Study(journal)
