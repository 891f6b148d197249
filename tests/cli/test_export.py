"""`luthier export` from the command line: compiled for four kinds of machines, run there, equal to the engine."""

from __future__ import annotations

import ctypes
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.cli.conftest import Ended, in_process
from tests.engine.numbers import graph_with_numbers

from luthier.arch import Attention, Block, Head, Network, Stage, encode
from luthier.deploy.onnx_file import to_onnx
from luthier.engine import compile as compile_graph
from luthier.graph import attrs as kinds
from luthier.graph.builder import Builder
from luthier.graph.from_onnx import from_onnx
from luthier.graph.untrained import random_weights
from luthier.quant import packed, quantize
from luthier.quant.integer import run as integer_run

pytestmark = pytest.mark.xdist_group("export")
Array = np.ndarray[Any, Any]
#: target -> programs, and a file, of the Debian packages that its test takes
TOOLS = {
    "host": ("gcc", "cmake"),
    "aarch64-linux": ("aarch64-linux-gnu-gcc", "/usr/aarch64-linux-gnu/include/stdio.h", "qemu-aarch64"),
    "armv7em-none": ("arm-none-eabi-gcc", "qemu-system-arm"),
    "wasm32": ("wasm-ld", "node"),
}
SIDE = 12


def small_network() -> Network:
    """A stem, a fused block, one with a gate and SiLU, a head: every kind of kernel of the family."""
    gated = Block(
        kind="mbconv", out_channels=12, kernel_size=3, stride=2, expand_ratio=3, activation="silu",
        attention=Attention(kind="se", ratio=0.25),
    )  # fmt: skip
    blocks = (
        Block(kind="conv", out_channels=8, kernel_size=3, stride=1),
        Block(kind="fused_mbconv", out_channels=12, kernel_size=3, stride=2, expand_ratio=2),
        Block(kind="mbconv", out_channels=12, kernel_size=5, expand_ratio=2),
        gated,
    )
    return Network(
        name="small", stages=(Stage(name="s", blocks=blocks),), head=Head(num_classes=5), resolution=SIDE,
        activation="relu6",
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as an ONNX file with weights, images to calibrate on, and the same network quantised."""
    made = tmp_path_factory.mktemp("export")
    graph, constants = graph_with_numbers(small_network())
    (made / "small.onnx").write_bytes(to_onnx(graph, constants))
    (made / "small.network.json").write_text(encode.to_json(small_network()))
    images = np.random.default_rng(7).normal(size=(16, 3, SIDE, SIDE)).astype(np.float32)
    np.save(made / "images.npy", images)
    # functions of sums, and one convolution left in fp32 between integers
    graph, constants = graph_with_numbers(replace(small_network(), activation="hard_swish"))
    keep = [op.name for op in graph.ops if op.kind == "conv"][3:4]
    packed.save(made / "quantized.safetensors", *quantize(graph, constants, images, keep=keep))
    return made


def there(tool: str) -> bool:
    """Whether a program is on the path, or a file exists."""
    return Path(tool).exists() if tool.startswith("/") else shutil.which(tool) is not None


def needs(target: str) -> None:
    """Skip where the machine has no compiler or emulator for a target."""
    missing = [tool for tool in TOOLS[target] if not there(tool)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


def run(*words: object, at: Path) -> str:
    """A program that must end well; what it says."""
    ended = subprocess.run([str(w) for w in words], cwd=at, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "warning" not in ended.stderr.lower(), ended.stderr
    return ended.stdout


def on_host(made: Path) -> str:
    run("cmake", "-B", "build", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror -pedantic", at=made)
    run("cmake", "--build", "build", at=made)
    return run("build/example", at=made)


def on_aarch64(made: Path) -> str:
    run("aarch64-linux-gnu-gcc", "-static", "-O2", "example.c", "net.o", "-o", "example", at=made)
    return run("qemu-aarch64", "example", at=made)


def on_cortex_m7(made: Path) -> str:
    flags = "-mcpu=cortex-m7 -mthumb -mfloat-abi=hard -O2 --specs=rdimon.specs -Wl,--no-warn-execstack -T board.ld"
    run("arm-none-eabi-gcc", *flags.split(), "example.c", "board.c", "net.o", "-o", "example", at=made)
    emulator = "qemu-system-arm -M mps2-an500 -display none -serial none -monitor none -semihosting -kernel"
    return run(*emulator.split(), "example", at=made)


def on_node(made: Path) -> str:
    exports = [f"--export={name}" for name in ("net_init", "net_run", "__heap_base")]
    run("wasm-ld", "--no-entry", *exports, "net.o", "-o", "net.wasm", at=made)
    return run("node", "example.mjs", at=made)


RUNS: dict[str, Callable[[Path], str]] = {
    "host": on_host, "aarch64-linux": on_aarch64, "armv7em-none": on_cortex_m7, "wasm32": on_node,
}  # fmt: skip


def exported(folder: Path, to: Path, *words: object) -> dict[str, Any]:
    ended = in_process("export", folder / "small.onnx", "-o", to, "--json", *words)
    assert ended.code == 0, ended.err
    return ended.result


def _difference(said: str) -> float:
    found = re.fullmatch(r"max_abs_difference (\S+), tolerance \S+\n", said)
    assert found, said
    return float(found[1])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("target", RUNS)
def test_the_example_computes_what_the_engine_computes(
    target: str, precision: str, folder: Path, tmp_path: Path
) -> None:
    """fp32 within the order of sums; integers, functions by table, bit for bit on every machine."""
    needs(target)
    words = ("--target", target, "--precision", precision, "--calibrate", folder / "images.npy")
    found = exported(folder, tmp_path, *words)
    assert found["undefined"] == []
    assert found["data_bytes"] == 0
    # the stored output is the meaning of the network, not only what the engine said
    graph, constants = from_onnx(folder / "small.onnx")
    expected = np.fromfile(tmp_path / "expected_output.bin", np.float32)
    x = np.fromfile(tmp_path / "input.bin", np.float32).reshape(1, 3, SIDE, SIDE)
    images = np.load(folder / "images.npy")
    np.testing.assert_array_equal(x, images[:1])
    if precision == "int8":
        graph, constants = quantize(graph, constants, images, from_sums=(), compile=compile_graph)
        want = integer_run(graph, constants, {graph.inputs[0]: x})[graph.outputs[0]]
        np.testing.assert_array_equal(expected, want.ravel())
        assert found["tolerance"] == 0
    difference = _difference(RUNS[target](tmp_path))
    assert difference <= found["tolerance"] <= 2e-5 * np.abs(expected).max()


def test_numbers_between_integers(folder: Path, tmp_path: Path) -> None:
    """A folder of `luthier quantize`, with functions computed from sums: on a Cortex-M7, within one level."""
    needs("armv7em-none")
    words = ("export", folder, "--target", "armv7em-none", "--precision", "int8", "-o", tmp_path, "--json")
    ended = in_process(*words)
    assert ended.code == 0, ended.err
    found = ended.result
    assert found["tolerance"] > 0
    assert _difference(on_cortex_m7(tmp_path)) <= found["tolerance"]


def test_a_wrong_output_is_seen(folder: Path, tmp_path: Path) -> None:
    """The example can fail: one number of the stored output is changed."""
    needs("host")
    found = exported(folder, tmp_path)
    expected = np.fromfile(tmp_path / "expected_output.bin", np.float32)
    expected[2] += 2 * found["tolerance"]
    expected.tofile(tmp_path / "expected_output.bin")
    with pytest.raises(AssertionError, match="max_abs_difference"):
        on_host(tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
def test_a_library_is_reentrant_and_keeps_to_its_arena(
    target: str, precision: str, folder: Path, tmp_path: Path
) -> None:
    """Two arenas in turns, filled with NaN, guard words behind them; and shared runs by workers in any order."""
    needs("host")
    words = ("--target", target, "--precision", precision, "--calibrate", folder / "images.npy", "--threads", 2)
    found = exported(folder, tmp_path, *words, "--order", "nhwc")
    run("gcc", "-shared", "-o", "libnet.so", "net.o", at=tmp_path)
    library = ctypes.CDLL(str(tmp_path / "libnet.so"))
    guard, size = 64, found["arena_bytes"]
    arenas = [np.full(size + guard + 256, 0xFF, np.uint8) for _ in range(2)]
    starts = [-arena.ctypes.data % 128 for arena in arenas]
    places = [ctypes.c_void_p(arena.ctypes.data + start) for arena, start in zip(arenas, starts, strict=True)]
    x = np.fromfile(tmp_path / "input.bin", np.float32)
    y = np.zeros(5, np.float32)
    pointers = ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data)
    assert library.net_init(places[0], ctypes.c_size_t(size)) == 0
    assert library.net_init(places[0], ctypes.c_size_t(size - 1)) == 2
    assert library.net_init(ctypes.c_void_p(places[0].value + 4), ctypes.c_size_t(size)) == 1
    part = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
    calls = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, part, ctypes.c_void_p, ctypes.c_size_t)
    def parallel(user: int, work: Any, step: int, tasks: int) -> None:
        calls.append((user, tasks))
        for worker, (low, high) in enumerate(((tasks // 2, tasks), (0, tasks // 2))):
            work(step, low, high, worker)

    outputs = []
    for place in (*places, places[0]):
        y[:] = np.nan
        library.net_run(place, *pointers)
        outputs.append(y.copy())
    y[:] = np.nan
    library.net_run_parallel(places[1], *pointers, parallel, ctypes.c_void_p(77))
    outputs.append(y.copy())
    expected = np.fromfile(tmp_path / "expected_output.bin", np.float32)
    for output in outputs:
        np.testing.assert_array_equal(output, outputs[0])
        assert np.abs(output - expected).max() <= found["tolerance"]
    assert calls or precision != "int8", "small maps of numbers are not cut"
    assert all(user == 77 and tasks > 1 for user, tasks in calls)
    for arena, start in zip(arenas, starts, strict=True):
        assert (arena[start + size :] == 0xFF).all()
        assert (arena[:start] == 0xFF).all()


def test_real_images_on_every_machine(data_dir: Path, folder: Path, tmp_path: Path) -> None:
    """Photographs through the integers of all targets whose tools are here: the same bits."""
    with np.load(data_dir / "images" / "imagenet_samples.npz") as held:
        jpeg, offsets = held["jpeg"], held["offsets"]
    photographs = [Image.open(io.BytesIO(jpeg[a:b].tobytes())) for a, b in pairwise(offsets[:9])]
    pixels = np.stack([np.asarray(one.convert("RGB").resize((SIDE, SIDE))) for one in photographs])
    images = np.ascontiguousarray((pixels.transpose(0, 3, 1, 2) / np.float32(127.5) - 1).astype(np.float32))
    np.save(tmp_path / "photographs.npy", images)
    ran = []
    for target, tools in TOOLS.items():
        if all(there(tool) for tool in tools):
            to = tmp_path / target
            words = ("--target", target, "--precision", "int8", "--calibrate", tmp_path / "photographs.npy")
            assert exported(folder, to, *words)["tolerance"] == 0
            assert _difference(RUNS[target](to)) == 0.0
            ran.append((to / "expected_output.bin").read_bytes())
    assert ran
    assert len(set(ran)) == 1


# ---- files for other run times


@pytest.mark.parametrize(("kind", "file"), [("onnx", "model.onnx"), ("onnx-qdq", "model_qdq.onnx"),
                                            ("torch-export", "model.pt2")])  # fmt: skip
def test_files_for_other_run_times_agree_with_torch(kind: str, file: str, folder: Path, tmp_path: Path) -> None:
    words = ("export", folder / "small.onnx", "--format", kind, "-o", tmp_path, "--calibrate", folder / "images.npy")
    found = in_process(*words, "--json").result
    assert (tmp_path / file).stat().st_size == found["bytes"]
    assert found["max_abs_error"] <= (0.1 if kind == "onnx-qdq" else 1e-4) * found["scale"]
    document = json.loads((tmp_path / "manifest.json").read_text())
    assert document["schema"] == "luthier.model_file/1"
    assert document["sha256"] == found["sha256"]
    assert in_process(*words).code == 0, "an export may be written over"


# ---- flash and RAM


def test_analyze_reads_what_was_exported(folder: Path, tmp_path: Path) -> None:
    words = ("--target", "armv7em-none", "--precision", "int8", "--calibrate", folder / "images.npy")
    made = exported(folder, tmp_path, *words)
    found = in_process("analyze", tmp_path, "--device", "stm32f746", "--json").result
    assert found["fits"]
    assert found["violations"] == []
    assert found["flash_limit_bytes"] == 1 << 20
    assert found["ram_limit_bytes"] == 320 << 10
    assert found["flash_bytes"] == made["code_bytes"] + made["constant_bytes"] == made["flash_bytes"]
    assert found["ram_bytes"] == made["arena_bytes"] + 4 * (3 * SIDE * SIDE + 5)
    if shutil.which("arm-none-eabi-size"):  # the same by a tool of others
        text, data, bss = run("arm-none-eabi-size", "net.o", at=tmp_path).splitlines()[1].split()[:3]
        assert (int(text), int(data), int(bss)) == (found["flash_bytes"], 0, 0)
    tight = in_process("analyze", tmp_path, "--device", "stm32f746", "--max-memory", "1KiB", "--json")
    assert tight.code == 0
    assert not tight.result["fits"]
    assert "exceeds --max-memory 1KiB" in tight.result["violations"][0]


def test_a_changed_export_is_refused(folder: Path, tmp_path: Path) -> None:
    exported(folder, tmp_path)
    header = tmp_path / "net.h"
    header.write_text(header.read_text().replace("ARENA_BYTES ", "ARENA_BYTES 1"))
    refused(in_process("analyze", tmp_path, "--device", "stm32f746"), "net.h", "not what was exported")
    header.unlink()
    refused(in_process("analyze", tmp_path, "--device", "stm32f746"), "net.h", "missing")


# ---- bad input


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("luthier:")]
    for word in words:
        assert word in line, line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "z80"), ("--target z80", "armv7em-none", "wasm32", "LLVM triple")),
        (("--target", "z80-none-eabi"), ("--target z80-none-eabi", "LLVM has no 'z80'")),
        (("--target", "s390x-linux-gnu"), ("s390x-linux-gnu", "highest byte")),
        (("--target", "aarch64-apple-darwin"), ("aarch64-apple-darwin", "not ELF")),
        (("--target", "armv7em-none", "--precision", "bf16"), ("bf16", "armv7em-none", "fp32, int8")),
        (("--precision", "int4"), ("int4", "fp32, bf16, int8")),
        (("--precision", "int8"), ("--calibrate",)),
        (("--name", "9lives"), ("--name 9lives",)),
        (("--order", "chwn"), ("nchw or nhwc",)),
        (("--format", "tflite"), ("--format tflite", "torch-export")),
    ],
)
def test_what_cannot_be_exported(words: tuple[str, ...], said: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    refused(in_process("export", folder / "small.onnx", "-o", to, *words), *said)
    assert not to.exists()


def test_other_peoples_files_stay(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    refused(in_process("export", folder / "small.onnx", "-o", tmp_path), str(tmp_path), "--force")
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.tex", "manifest.json"}
    exported(folder, tmp_path, "--force")
    first = {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert "example.c" in first
    exported(folder, tmp_path, "--target", "wasm32")
    second = {path.name for path in tmp_path.iterdir()}
    assert "example.mjs" in second
    assert "example.c" not in second
    assert "thesis.tex" in second


def test_an_op_without_code_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Builder()
    graph = build.graph(build.op("odd", kinds.Softmax(), build.input("x", (1, 4))))
    (tmp_path / "m.onnx").write_bytes(to_onnx(graph, random_weights(graph)))
    monkeypatch.setattr("luthier.engine.lower.Lowering._channels", _lacking)
    refused(in_process("export", tmp_path / "m.onnx", "-o", tmp_path / "out"), "odd", "softmax")
    assert not (tmp_path / "out").exists()


def _lacking(self: Any, op: Any, kind: str) -> None:
    from luthier.errors import UnsupportedError

    raise UnsupportedError(f"engine: {op.name}: op {op.kind} is not compiled yet")


def test_what_a_c_library_would_have_to_do_is_refused(folder: Path, tmp_path: Path) -> None:
    """A CPU without an instruction that rounds: SiLU would call floorf."""
    ended = in_process("export", folder / "small.onnx", "--target", "riscv64-unknown-linux-gnu", "-o", tmp_path / "out")
    refused(ended, "floorf", "riscv64-unknown-linux-gnu")
