"""Plans and objects on disk: the same numbers after a round trip, and nothing damaged or foreign is ever run."""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.engine.numbers import graph_with_numbers

from luthier.arch.presets import get
from luthier.engine import Plan, compile, host, load
from luthier.engine import cache as objects
from luthier.engine.cache import VARIABLE, cache_dir, cached_object
from luthier.engine.plan_file import FORMAT, load_image, save_image
from luthier.errors import PlanError

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def plan() -> Plan:
    graph, constants = graph_with_numbers(get("mbconv_thumbnail"))
    return compile(graph, constants)


@pytest.fixture
def x(plan: Plan) -> np.ndarray:
    return np.random.default_rng(0).normal(size=plan.inputs[0].shape).astype(np.float32)


def test_a_saved_plan_computes_the_same(plan: Plan, x: np.ndarray, tmp_path: Path) -> None:
    plan.save(tmp_path / "p.plan")
    again = load(tmp_path / "p.plan")
    np.testing.assert_array_equal(again(x), plan(x))
    assert dataclasses.replace(again.image, constants=plan.image.constants) == plan.image


def test_running_a_plan_needs_numpy_and_llvmlite_alone(plan: Plan, x: np.ndarray, tmp_path: Path) -> None:
    """Any other installed package is hidden from a fresh interpreter."""
    plan.save(tmp_path / "p.plan")
    np.save(tmp_path / "x.npy", x)
    program = """
import sys
allowed = set(sys.stdlib_module_names) | {"numpy", "llvmlite", "luthier"}
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hide())
import numpy as np
from pathlib import Path
from luthier.engine import load
folder = Path(sys.argv[1])
np.save(folder / "y.npy", load(folder / "p.plan")(np.load(folder / "x.npy")))
"""
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=env, timeout=120)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), plan(x))


def test_damaged_and_foreign_plans_are_refused(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "p.plan"
    plan.save(path)
    whole = path.read_bytes()
    for data, message in (
        (whole[: len(whole) // 2], "damaged or was changed"),
        (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "damaged or was changed"),
        (whole.replace(b"plan %d\n" % FORMAT, b"plan %d\n" % (FORMAT + 1), 1), f"format {FORMAT + 1}, this version"),
        (b"PK\x03\x04", "is not a plan"),
        (b"", "is not a plan"),
    ):
        path.write_bytes(data)
        with pytest.raises(PlanError, match=rf"p\.plan: .*{message}.*compile the network again"):
            load(path)
    with pytest.raises(PlanError, match="cannot be read"):
        load(tmp_path / "none.plan")
    foreign = dataclasses.replace(plan.image, target=dataclasses.replace(host(), cpu="z80"))
    save_image(foreign, path)
    with pytest.raises(PlanError, match="is for the CPU z80"):
        load_image(path)


def test_objects_are_private_and_made_anew_when_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "c"))
    made = []

    def make() -> bytes:
        made.append(1)
        return b"code"

    assert [cached_object("k", make) for _ in range(3)] == [b"code"] * 3
    assert len(made) == 1
    folder = cache_dir()
    assert folder is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    entry = folder / "k.o"
    entry.write_bytes(entry.read_bytes()[:-1] + b"X")
    assert cached_object("k", make) == b"code"
    entry.write_bytes(entry.read_bytes()[:-2])
    assert cached_object("k", make) == b"code"
    assert len(made) == 3
    folder.chmod(0o777)
    assert cache_dir() is None
    assert cached_object("k", make) == b"code"
    assert len(made) == 4, "a folder that others can write to is not read"


def test_key_depends_on_kernels_cpu_and_source(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    from luthier.engine.kernels.matmul import matmul

    kernel = matmul(host(), 1, 7, 8, 9)
    keys = {
        objects.object_key((kernel,), host()),
        objects.object_key((dataclasses.replace(kernel, depth=9),), host()),
        objects.object_key((kernel,), dataclasses.replace(host(), cpu="other")),
    }
    monkeypatch.setattr(objects, "code_version", lambda: "other")
    keys.add(objects.object_key((kernel,), host()))
    assert len(keys) == 4


def test_no_folder_means_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert cache_dir() is None
    assert cached_object("k", lambda: b"fresh") == b"fresh"
