from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from luthier.errors import RunFolderError
from luthier.job.folder import Clock, RunFolder, environment, finished, open_run
from luthier.job.request import Request

REQUEST = Request(command="fit", data="digits")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that a user without rights can reach; pytest's own cannot be entered by others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def powerless() -> Iterator[None]:
    """Without the rights of root, to whom no folder is read-only."""
    if os.name != "posix" or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


def test_a_new_run_writes_its_request_first(tmp_path: Path) -> None:
    with open_run(tmp_path / "a" / "run", REQUEST) as folder:
        assert names(folder.path) == {"run.toml", ".lock"}
        assert Request.read(folder.run_toml) == REQUEST


def test_resuming_changes_nothing(tmp_path: Path) -> None:
    with open_run(tmp_path, REQUEST) as folder:
        before = folder.run_toml.stat()
    with open_run(tmp_path, REQUEST) as folder:
        assert folder.run_toml.stat() == before


def test_paths_are_inside_and_distinct() -> None:
    folder = RunFolder(Path("r"))
    paths = [
        folder.run_toml, folder.network, folder.weights, folder.onnx, folder.preprocess, folder.study, folder.metrics,
        folder.result, folder.report, folder.clock, folder.final(0), folder.final(1), folder.trial(3, 0),
        folder.trial(3, 1), folder.trial(31, 0),
    ]  # fmt: skip
    assert len(set(paths)) == len(paths)
    assert all(path.parts[0] == "r" for path in paths)


def test_another_request_is_refused_and_the_folder_is_left_alone(tmp_path: Path) -> None:
    with open_run(tmp_path, REQUEST) as folder:
        content = folder.run_toml.read_bytes()
    with (
        pytest.raises(RunFolderError, match=r"run\.toml: this run was started with --seed 0, now asked for 1"),
        open_run(tmp_path, Request(command="fit", data="digits", seed=1)),
    ):
        pass
    assert folder.run_toml.read_bytes() == content
    assert names(tmp_path) == {"run.toml", ".lock"}


def test_other_peoples_files_are_not_mixed_with_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with (
        pytest.raises(RunFolderError, match=r"holds other files and no run\.toml; choose another --run-dir"),
        open_run(tmp_path, REQUEST),
    ):
        pass
    assert names(tmp_path) == {"thesis.tex"}


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("precious")
    with pytest.raises(RunFolderError, match="run: is a file, not a folder"), open_run(path, REQUEST):
        pass
    assert path.read_text() == "precious"


def test_below_a_file_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RunFolderError, match=r"file.run: cannot be written"), open_run(tmp_path / "file/run", REQUEST):
        pass


def test_a_read_only_folder_is_refused(public: Path, powerless: None) -> None:
    with (
        pytest.raises(RunFolderError, match=r"run: the folder cannot be written to; choose another with --run-dir"),
        open_run(public / "run", REQUEST),
    ):
        pass


def test_a_read_only_run_is_refused(public: Path) -> None:
    with open_run(public, REQUEST):
        pass
    (public / ".lock").chmod(stat.S_IRUSR)
    public.chmod(0o555)
    try:
        code = (
            "import os, sys\n"
            "from pathlib import Path\n"
            "from luthier.job.folder import open_run\n"
            "from luthier.job.request import Request\n"
            "if os.geteuid() == 0: os.seteuid(65534)\n"
            "with open_run(Path(sys.argv[1]), Request(command='fit', data='digits')): pass\n"
        )
        ended = subprocess.run([sys.executable, "-c", code, str(public)], capture_output=True, text=True, check=False)
    finally:
        public.chmod(0o755)
    assert ended.returncode != 0
    assert "RunFolderError" in ended.stderr.splitlines()[-1]
    assert "the folder cannot be written to" in ended.stderr.splitlines()[-1]


def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    with open_run(tmp_path, REQUEST):
        code = (
            "import sys\nfrom pathlib import Path\nfrom luthier.errors import RunFolderError\n"
            "from luthier.job.folder import open_run\nfrom luthier.job.request import Request\n"
            "try:\n"
            "    with open_run(Path(sys.argv[1]), Request(command='fit', data='digits')): print('entered')\n"
            "except RunFolderError as error: print(error)\n"
        )
        heard = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout
        assert "another luthier process works here; wait for it or choose another --run-dir" in heard
    again = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert again.stdout.strip() == "entered"


def test_the_lock_falls_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from luthier.job.folder import open_run\nfrom luthier.job.request import Request\n"
        "with open_run(Path(sys.argv[1]), Request(command='fit', data='digits')):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -9
    with open_run(tmp_path, REQUEST) as folder:
        assert folder.run_toml.exists()


def test_an_unfinished_or_missing_run_has_no_result(tmp_path: Path) -> None:
    assert finished(tmp_path / "none", REQUEST) is None
    with open_run(tmp_path, REQUEST):
        pass
    assert finished(tmp_path, REQUEST) is None
    with pytest.raises(RunFolderError, match="--seed"):
        finished(tmp_path, Request(command="fit", data="digits", seed=3))


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    with open_run(tmp_path, REQUEST) as folder:
        folder.result.write_text('{"schema": "luthier.result/1"}')
    with pytest.raises(RunFolderError, match=r"result\.json: not a result of this version"):
        finished(tmp_path, REQUEST)


# -- clock -----------------------------------------------------------------------------------------------------------


def test_the_clock_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json", 10.0, _before_s=4.0)
    assert 4.0 <= clock.elapsed_s < 5.0
    assert clock.left_s == pytest.approx(6.0, abs=0.5)
    clock.save()
    again = Clock.resume(clock.path, 10.0)
    assert again.elapsed_s == pytest.approx(clock.elapsed_s, abs=0.5)
    first = again.elapsed_s
    time.sleep(0.02)
    assert again.elapsed_s > first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": 1}', '{"elapsed_s": "x"}', '{"elapsed_s": null}'])
def test_a_clock_that_cannot_be_read_starts_at_zero(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clock.json"
    path.write_text(content)
    assert Clock.resume(path, 10.0).elapsed_s < 1.0
    assert Clock.resume(tmp_path / "none" / "clock.json", 10.0).elapsed_s < 1.0


def test_the_environment_names_versions() -> None:
    found = environment()
    assert {"luthier", "python", "system", "processors", "torch", "optuna", "onnxruntime"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())
