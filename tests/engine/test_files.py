"""Plans and objects on disk: the same numbers after a round trip, and nothing damaged or foreign is ever run."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.engine.numbers import graph_with_numbers

from luthier.arch.presets import get
from luthier.engine import Plan, compile, host, load
from luthier.engine import cache as objects
from luthier.engine.cache import VARIABLE, cache_dir, cached_object
from luthier.engine.plan_file import FORMAT, checksum, load_image, save_image
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
        (whole[:-1], "damaged or was changed"),
        (whole + b"\0", "damaged or was changed"),
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


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_is_found(plan: Plan, tmp_path: Path, data: st.DataObject) -> None:
    """Wherever it is: name, digest, lengths, header, code or weights."""
    path = tmp_path / "p.plan"
    if not path.exists():
        plan.save(path)
    whole = bytearray(path.read_bytes())
    parts = [(0, 80), (0, len(whole)), (len(whole) - plan.image.constants.nbytes, len(whole))]
    first, end = data.draw(st.sampled_from(parts))
    whole[data.draw(st.integers(first, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    flipped = tmp_path / "flipped.plan"
    flipped.write_bytes(whole)
    with pytest.raises(PlanError, match="compile the network again"):
        load_image(flipped)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12), st.integers(0, 9))
def test_checksum_is_its_equation(words: list[int], odd_bytes: int) -> None:
    """Against the sums in Python's own integers."""
    values = np.frombuffer(np.array(words, "<u8").tobytes() + bytes(range(1, odd_bytes + 1)), np.uint8)
    filled = values.tobytes() + bytes(-len(values) % 8)
    row = [int.from_bytes(filled[at : at + 8], "little") for at in range(0, len(filled), 8)]
    total, state = 0, 0
    for word in row:  # SplitMix64
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
        total += (z ^ z >> 31 | 1) * word
    text = b"%d " % len(values) + (total % 2**64).to_bytes(8, "little")
    assert checksum(values) == hashlib.sha256(text).hexdigest()


def test_a_plan_that_is_saved_over_lives_on(plan: Plan, x: np.ndarray, tmp_path: Path) -> None:
    """Weights are mapped: the old file stays until nobody uses it."""
    plan.save(tmp_path / "p.plan")
    first, want = load(tmp_path / "p.plan"), plan(x)
    image = plan.image
    zeroed = dataclasses.replace(image, constants=np.zeros_like(image.constants))
    save_image(zeroed, tmp_path / "p.plan")
    np.testing.assert_array_equal(first(x), want)
    assert not load_image(tmp_path / "p.plan").constants.any()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux can")
def test_without_memory_the_size_is_named(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "p.plan")
    program = """
import dataclasses, resource, sys
from pathlib import Path
from luthier.engine.plan import Plan
from luthier.engine.plan_file import load_image
from luthier.errors import InputError
image = load_image(Path(sys.argv[1]))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
try:
    Plan(dataclasses.replace(image, arena_bytes=1 << 30))
except InputError as error:
    print(error)
"""
    env = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "p.plan")], env=env, timeout=120, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"engine: no memory for the activations: 1,02[4-8]\.\d MiB wanted \(.*\)\n$", done.stdout)


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
