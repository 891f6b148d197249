"""Wrong use and bad input: exit 2 or 3, one clear line, no traceback, nothing written."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_line import assert_one_line
from PIL import Image
from safetensors.torch import save_file

from luthier.arch import encode, presets
from luthier.job.request import SCHEMA
from luthier.nn.build import build


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


# -- images in folders -----------------------------------------------------------------------------------------------


def make_tree(root: Path, classes: int = 3, count: int = 6) -> Path:
    generator = np.random.default_rng(0)
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class{label}" / f"{i}.png")
    return root


def bomb() -> bytes:
    """A PNG of a few bytes that declares 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def truncate(root: Path) -> None:
    path = root / "class1" / "2.png"
    path.write_bytes(path.read_bytes()[:100])


FOLDERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "one_class": (lambda r: [shutil.rmtree(r / f"class{n}") for n in (1, 2)], ("only one class ('class0')",)),
    "no_class": (lambda r: [shutil.rmtree(r / f"class{n}") for n in range(3)], ("one folder per class",)),
    "empty_class": (lambda r: (r / "class9").mkdir(), ("class9", "holds no images", "at least 1")),
    "truncated": (truncate, ("class1/2.png", "truncated", "--skip-bad")),
    "zero_bytes": (lambda r: (r / "class1" / "2.png").write_bytes(b""), ("class1/2.png", "0 bytes", "--skip-bad")),
    "not_an_image": (lambda r: (r / "class1" / "2.png").write_bytes(b"hello"), ("class1/2.png", "not an image")),
    "bomb": (
        lambda r: (r / "class1" / "2.png").write_bytes(bomb()), ("class1/2.png", "image too large"),
    ),
    "two_images": (
        lambda r: [(r / f"class{n}" / f"{i}.png").unlink() for n in range(3) for i in range(4)], ("class",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_a_bad_folder(luthier: Any, look: Any, run: Path, tmp_path: Path, case: str) -> None:
    spoil, words = FOLDERS[case]
    root = make_tree(tmp_path / "images")
    spoil(root)
    before = look(root)
    ended = luthier("fit", root, "--run-dir", run, "--json")
    assert_one_line(ended, 2, *words)
    assert len(ended.err.splitlines()) == 1
    assert not run.exists()
    assert look(root) == before


def test_bad_files_are_counted(luthier: Any, run: Path, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images")
    (root / "class0" / "0.png").write_bytes(b"")
    truncate(root)
    assert_one_line(luthier("fit", root, "--run-dir", run), 2, "class0/0.png", "2 of 18 files are bad", "--skip-bad")


def test_skip_bad_counts_and_lists_what_it_skips(luthier: Any, run: Path, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "images", count=12)
    (root / "class0" / "0.png").write_bytes(b"")
    truncate(root)
    (tmp_path / "tiny.json").write_text(encode.to_json(presets.get("mbconv_thumbnail")))
    ended = luthier(
        "train", tmp_path / "tiny.json", root, "--resolution", 16, "--epochs", 1, "--skip-bad",
        "--run-dir", run, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "2 of 36 files skipped as unreadable" in ended.err
    notes = "\n".join(ended.result["data"]["notes"])
    assert f"skipped: {root / 'class0' / '0.png'}" in notes
    assert f"skipped: {root / 'class1' / '2.png'}" in notes
    data = ended.result["data"]
    assert data["num_train"] + data["num_val"] + data["num_test"] == 34
    assert "class1/2.png" in (run / "report.html").read_text()


# -- archives --------------------------------------------------------------------------------------------------------

X = np.zeros((30, 8, 8, 3), np.uint8)
Y = np.arange(30) % 3


def saved(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def float_with(value: float) -> np.ndarray[Any, Any]:
    x = np.zeros((30, 8, 8, 3), np.float32)
    x[7, 3, 2, 1] = value
    return x


def torn(path: Path) -> None:
    memory = io.BytesIO()
    np.savez(memory, x=X, y=Y)
    path.write_bytes(memory.getvalue()[:2000])


def with_objects(path: Path) -> None:
    np.savez(path, x=np.array([X[0], None], dtype=object), y=Y)


def with_a_text_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", "no array")
        archive.writestr("y.npy", "no array")


ARCHIVES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "empty": (lambda p: p.write_bytes(b""), ()),
    "not_a_zip": (lambda p: p.write_bytes(b"hello" * 100), ()),
    "torn": (torn, ()),
    "text_members": (with_a_text_member, ()),
    "objects": (with_objects, ("object",)),
    "no_labels": (saved(x=X), ("array 'y' is missing",)),
    "channels_first": (saved(x=X.transpose(0, 3, 1, 2), y=Y), ("(30, 3, 8, 8)", "channels come last")),
    "two_axes": (saved(x=X[:, :, 0, 0], y=Y), ("(N, H, W, C)", "(30, 8)")),
    "too_few_labels": (saved(x=X, y=Y[:-1]), ("must have shape (30,)", "got (29,)")),
    "text_labels": (saved(x=X, y=Y.astype(str)), ("y must be integers",)),
    "negative_label": (saved(x=X, y=Y - 1), ("y[0]", "got -1")),
    "label_gap": (saved(x=X, y=Y * 2), ("class 1", "no training image")),
    "label_too_large": (
        saved(x=X, y=Y, class_names=np.array(["a", "b"])), ("y[2]", "must lie in 0 .. 1", "2 class_names", "got 2"),
    ),
    "one_class": (saved(x=X, y=Y * 0), ("at least 2 classes",)),
    "float_above": (saved(x=float_with(1.5), y=Y), ("x[7]", "1.5", "[0, 1]", "divide by 255")),
    "float_below": (saved(x=float_with(-0.5), y=Y), ("x[7]", "-0.5", "[0, 1]")),
    "nan": (saved(x=float_with(np.nan), y=Y), ("x[7]", "nan", "[0, 1]")),
    "infinite": (saved(x=float_with(np.inf), y=Y), ("x[7]", "inf", "[0, 1]")),
    "int_pixels": (saved(x=X.astype(np.int64), y=Y), ("int64", "astype(np.uint8)")),
    "no_images": (saved(x=X[:0], y=Y[:0]), ("at least 1",)),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_bad_archive(luthier: Any, run: Path, tmp_path: Path, case: str) -> None:
    make, words = ARCHIVES[case]
    path = tmp_path / "images.npz"
    make(path)
    ended = luthier("fit", path, "--run-dir", run)
    assert_one_line(ended, 2, str(path), *words)
    assert len(ended.err.splitlines()) == 1
    assert not run.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", ("gone: no such file or folder", "expected a folder of class folders")),
        ("gone.npz", ("gone.npz: no such file or folder",)),
        ("text.txt", ("text.txt: neither a folder nor an .npz file",)),
        ("two\nlines", ("no such file or folder",)),
        ("[bold]gone[/bold]", ("[bold]gone[/bold]: no such file or folder",)),
    ],
)
def test_a_path_that_is_no_data(luthier: Any, run: Path, tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    (tmp_path / "text.txt").write_text("hello")
    ended = luthier("fit", tmp_path / name, "--run-dir", run)
    assert_one_line(ended, 2, *words)
    assert not run.exists()


def test_an_unknown_data_set_of_torchvision(luthier: Any, run: Path) -> None:
    assert_one_line(luthier("fit", "torchvision:CIFAR11", "--run-dir", run), 2, "CIFAR1")
    assert not run.exists()


# -- arguments -------------------------------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "unknown_unit": (("--max-latency", "2 parsecs"), ("--max-latency", "'parsecs'", "ns us µs ms s")),
    "no_unit": (("--max-latency", "2"), ("--max-latency", "no unit in '2'")),
    "no_number": (("--max-size", "much"), ("--max-size", "'much'")),
    "zero": (("--max-macs", "0"), ("--max-macs", "at least 1")),
    "negative": (("--max-memory", "-5KiB"), ("--max-memory",)),
    "too_little_time": (("--time-limit", "3s"), ("--time-limit 3s", "at least 10s")),
    "time_without_unit": (("--time-limit", "60"), ("--time-limit", "no unit")),
    "unknown_device": (("--device", "jetson"), ("device 'jetson': unknown", "known are host")),
    "energy_unit": (("--max-energy", "3MJ"), ("--max-energy", "'MJ'", "pJ nJ")),
    "energy_unknown": (("--device", "stm32f746", "--max-energy", "3mJ"), ("--max-energy", "stm32f746", "no energy")),
    "latency_unknown": (("--device", "stm32f746", "--max-latency", "1s"), ("--max-latency", "stm32f746", "fp32")),
    "unknown_accelerator": (("--accelerator", "tpu"), ("--accelerator", "auto, cpu, cuda", "'tpu'")),
    "unknown_model": (("--model", "efficientnet_b9"), ("'efficientnet_b9'", "did you mean efficientnet_b")),
    "unknown_weights": (("--pretrained", "none.safetensors"), ("none.safetensors", "no such file")),
    "unknown_weights_of_a_model": (
        ("--model", "mbconv_thumbnail", "--pretrained", "none.safetensors"), ("none.safetensors", "no such file"),
    ),
    "unknown_option": (("--max-mac", "1M"), ("--max-mac",)),
    "unknown_flag": (("--fast",), ("No such option: --fast", "luthier fit --help")),
    "missing_value": (("--max-macs",), ("--max-macs", "requires an argument")),
    "no_integer": (("--seed", "x"), ("--seed",)),
    "negative_seed": (("--seed", "-1"), ("--seed",)),
    "no_threads": (("--threads", "0"), ("--threads",)),
    "no_resolution": (("--resolution", "0"), ("--resolution",)),
    "too_many": (("more",), ("unexpected extra argument", "more")),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_a_bad_argument(luthier: Any, data: Path, run: Path, case: str) -> None:
    given, words = ARGUMENTS[case]
    ended = luthier("fit", data, *given, "--run-dir", run) if case != "missing_value" else luthier("fit", data, *given)
    assert_one_line(ended, 2, *words)
    assert not run.exists()


def test_weights_for_another_network(luthier: Any, data: Path, run: Path, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file(build(presets.get("mobilenetv3_small_075")).state_dict(), file)
    ended = luthier("fit", data, "--model", "mbconv_thumbnail", "--pretrained", file, "--run-dir", run)
    assert_one_line(ended, 2, str(file))
    assert not run.exists()
    file.write_bytes(b"not weights")
    ended = luthier("fit", data, "--pretrained", file, "--run-dir", run)
    assert_one_line(ended, 2, str(file), "not a safetensors file")
    assert not run.exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), ("Missing argument 'MODEL'",)),
        (("mbconv_thumbnail",), ("Missing argument 'DATA'", "luthier train --help")),
        (("none.json", "digits"), ("none.json", "cannot be read as a network")),
        (("mbconv_thumbnail", "digits", "--epochs", "0"), ("--epochs",)),
    ],
)
def test_bad_arguments_of_train(luthier: Any, run: Path, given: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_one_line(luthier("train", *given, "--run-dir", run), 2, *words)
    assert not run.exists()


def test_nothing_to_convert_to(luthier: Any, tmp_path: Path) -> None:
    assert_one_line(luthier("data", "convert", tmp_path / "store.npz"), 2, "name OUT.npz, --tree FOLDER, or both")


def test_an_unknown_command(luthier: Any) -> None:
    assert_one_line(luthier("fitt"), 2, "No such command 'fitt'", "luthier --help")


def test_no_command_shows_the_help(luthier: Any) -> None:
    ended = luthier()
    assert (ended.code, ended.out) == (2, "")
    for command in ("fit", "train", "run", "report"):
        assert f"\n  {command} " in ended.err
    assert "Traceback" not in ended.err


def test_help_and_version_are_no_errors(luthier: Any) -> None:
    assert luthier("--version").out.startswith("luthier ")
    shown = luthier("fit", "--help")
    assert (shown.code, shown.err) == (0, "")
    assert "--max-latency" in shown.out


# -- budgets that nothing fits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--max-macs", "1k"), ("mbconv_thumbnail@phi=-4", "--max-macs 1k", "would fit with --max-macs ")),
        (("--max-params", "10"), ("nearest that exists is mbconv_thumbnail@phi=-4", "would fit with --max-params ")),
        (("--max-memory", "1KiB"), ("peak activation memory", "would fit with --max-memory ")),
        (("--max-size", "1KiB"), ("weights", "would fit with --max-size ")),
        (
            ("--max-latency", "1ns", "--max-macs", "1M"),
            ("latency", "--max-latency 1ns", "would fit with --max-latency "),
        ),
        (
            ("--max-macs", "1k", "--max-params", "1k"),
            ("exceeds --max-macs", "exceeds --max-params", "would fit with --max-"),
        ),
    ],
)
def test_an_impossible_budget_names_the_nearest_and_what_would_have_to_give(
    luthier: Any, data: Path, run: Path, given: tuple[str, ...], words: tuple[str, ...]
) -> None:
    ended = luthier("fit", data, *given, "--time-limit", "20s", "--run-dir", run, "--json")
    assert_one_line(ended, 3, "no network fits the limits", *words)
    assert not run.exists()


# -- run folders -----------------------------------------------------------------------------------------------------


def test_a_run_of_another_version(luthier: Any, look: Any, data: Path, run: Path) -> None:
    run.mkdir()
    (run / "run.toml").write_text('schema = "luthier.run/99"\n[request]\ncommand = "fit"\n')
    before = look(run)
    ended = luthier("fit", data, "--run-dir", run)
    assert_one_line(ended, 2, str(run / "run.toml"), "luthier.run/99", SCHEMA, "choose another --run-dir")
    assert look(run) == before


def test_somebody_elses_folder(luthier: Any, look: Any, data: Path, run: Path) -> None:
    run.mkdir()
    (run / "thesis.tex").write_text("precious")
    before = look(run)
    assert_one_line(
        luthier("fit", data, "--run-dir", run), 2, str(run), "holds other files", "choose another --run-dir"
    )
    assert look(run) == before


def test_a_file_where_the_folder_should_be(luthier: Any, data: Path, run: Path) -> None:
    run.write_text("precious")
    assert_one_line(luthier("fit", data, "--run-dir", run), 2, "is a file, not a folder")
    assert run.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_read_only_place(luthier: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() == 0:
        # root may write anywhere but into the kernel's own file systems
        place = Path("/sys/luthier")
    else:
        parent = tmp_path_factory.mktemp("closed")
        parent.chmod(0o555)
        place = parent / "run"
    ended = luthier("fit", data, "--run-dir", place)
    assert_one_line(ended, 2, str(place), "--run-dir")
    assert not place.exists()
