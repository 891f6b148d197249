"""What every test shares: fixed seeds, one thread, the folder of real data, and an honest count of what was skipped."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

SEED = 20250101
DATA_VARIABLE = "LUTHIER_DATA"

# Before a test imports torch, NumPy or scikit-learn, which read it once: xdist runs one worker per core.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# The same examples in every run: a failure here is a failure everywhere.  Shared machines have no honest deadline.
hypothesis.settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")


# helpers that several folders of tests share stand beside this file
sys.path.insert(0, str(Path(__file__).parent))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are rewritten on demand."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the stored outputs in tests/golden")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether this run rewrites golden files."""
    return bool(request.config.getoption("--update-golden"))


def pytest_report_header() -> str:
    """Say what a repetition of this run needs."""
    return f"seed {SEED}, {DATA_VARIABLE}={os.environ.get(DATA_VARIABLE, '(not set)')}"


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Start every test from the same random state; NumPy and torch only when something has imported them already."""
    random.seed(SEED)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(SEED)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(SEED)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data that LUTHIER_DATA names; a test that asks for it is skipped where there is none."""
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        pytest.skip(f"{DATA_VARIABLE} is not set")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"{DATA_VARIABLE} names {folder}, which is not a folder", pytrace=False)
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where LUTHIER_DATA is set, a test of real data either runs or fails: it cannot go missing unseen."""
    report = yield
    wants_data = "data_dir" in getattr(item, "fixturenames", ())
    if report.skipped and wants_data and os.environ.get(DATA_VARIABLE) and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although {DATA_VARIABLE} is set: {_reason(report)}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skipped tests by reason."""
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.section("skipped tests by reason")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"skipped {count}: {reason}")
    if not reasons:
        terminalreporter.line("skipped 0")


def _reason(report: pytest.TestReport) -> str:
    """The text given to `pytest.skip`, without its place and prefix."""
    where = report.longrepr
    return str(where[2] if isinstance(where, tuple) else where).removeprefix("Skipped: ")
