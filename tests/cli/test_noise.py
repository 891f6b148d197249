"""`luthier quantize --analyze` and limits on mixed number types, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import in_process
from tests.quant.test_quantize import small

from luthier.deploy.onnx_file import to_onnx


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network and images in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    graph, constants, images = small(images=64)
    Path("net.onnx").write_bytes(to_onnx(graph, constants))
    np.save("images.npy", images)


def test_an_analysis_is_said_drawn_and_kept_as_numbers() -> None:
    words = ("--numbers", "W4A8", "--analyze", "--html", "noise.html", "--json")
    ended = in_process("quantize", "net.onnx", "--data", "images.npy", *words)
    assert ended.code == 0, ended.err
    assert "in W4A8: SQNR of the outputs" in ended.err
    assert "% of the noise:" in ended.err
    found = ended.result
    assert found["output_measured_db"] == pytest.approx(found["output_predicted_db"], abs=1.5)
    assert found["output_measured_db_kind"] == "measured"
    assert sum(source["share"] for source in found["sources"]) == pytest.approx(1)
    assert found["gates"][0]["op"]
    assert len(found["remedies"]) >= 2
    page = Path("noise.html").read_text()
    assert "How noise piles up" in page
    assert "What mends it" in page
    assert not Path("net-w4a8").exists()  # it writes no network


def test_a_limit_makes_a_mixed_network() -> None:
    ended = in_process(
        "quantize", "net.onnx", "--data", "images.npy", "--max-size", "1.3KiB", "--device", "snapdragon_8_gen2",
        "-o", "out", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert ended.result["numbers"] == "mixed"
    assert ended.result["weight_bytes_after"] <= 1.3 * 1024
    assert "number types by layer" in ended.err
    assert "W4A8:" in ended.err
    assert "W8A16 multiplies as fp16" in ended.err
    assert Path("out/quantized.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--max-size", "1KiB", "--max-energy", "1uJ"), 2, "one limit at a time, got --max-energy, --max-size"),
        (("--html", "x.html"), 2, "--html x.html: shows an analysis; give --analyze too"),
        (("--max-size", "1KiB", "--candidates", "W8A8"), 2, "needs two number types to choose from, got W8A8"),
        (("--max-size", "1KiB", "--candidates", "W8A8,W5A8"), 2, "numbers 'W5A8': must be one of fp32"),
        (("--max-size", "10B", "--device", "snapdragon_8_gen2"), 3, "--max-size: no mixture of"),
    ],
)
def test_wrong_wishes_are_one_line(words: tuple[str, ...], code: int, message: str) -> None:
    ended = in_process("quantize", "net.onnx", "--data", "images.npy", *words)
    assert ended.code == code
    assert message in ended.err
    assert "Traceback" not in ended.err
