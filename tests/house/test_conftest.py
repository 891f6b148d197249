"""The house rules of running tests, shown on a planted test file: skips are counted, data tests cannot go missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
PLANTED = """
import pytest

def test_on_data(data_dir):
    if not (data_dir / "x.npz").exists():
        pytest.skip("no x.npz")

def test_on_a_gpu():
    pytest.skip("no GPU")
"""


def run_planted(tmp_path: Path, data: Path | None, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the planted file under our conftest, in an interpreter of its own."""
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "test_planted.py").write_text(PLANTED)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LUTHIER_", "PYTEST_"))}
    if data is not None:
        env["LUTHIER_DATA"] = str(data)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(tmp_path)]
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_without_data_skips_are_counted_by_reason(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run_planted(tmp_path, None, *options)
    assert done.returncode == 0, done.stdout
    assert "skipped 1: LUTHIER_DATA is not set" in done.stdout
    assert "skipped 1: no GPU" in done.stdout


@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_with_data_a_skipped_data_test_fails(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run_planted(tmp_path, tmp_path, *options)
    assert done.returncode == 1, done.stdout
    assert "was skipped although LUTHIER_DATA is set: no x.npz" in done.stdout
    assert "1 failed, 1 skipped" in done.stdout


def test_a_data_folder_that_is_missing_fails(tmp_path: Path) -> None:
    done = run_planted(tmp_path, tmp_path / "nowhere")
    assert done.returncode == 1, done.stdout
    assert "which is not a folder" in done.stdout


def test_with_data_in_place_the_test_runs(tmp_path: Path) -> None:
    (tmp_path / "x.npz").touch()
    done = run_planted(tmp_path, tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
