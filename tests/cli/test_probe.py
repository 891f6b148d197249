"""`luthier probe` as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from luthier.deploy.onnx_file import to_onnx
from luthier.files import write_bytes
from luthier.probe.detectors import analytic
from luthier.probe.synthetic import draw


def test_one_document_and_one_page(tmp_path: Path, luthier: Any) -> None:
    made, images = analytic(), tmp_path / "images"
    write_bytes(tmp_path / "net.onnx", to_onnx(made.graph, made.constants))
    images.mkdir()
    for index, picture in enumerate(draw("corner", 4, 1)):
        Image.fromarray(picture).save(images / f"{index}.png")
    page = tmp_path / "page.html"
    ended = luthier(
        "probe", tmp_path / "net.onnx", images, "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--covered", 1,
        "--fill", "blur", "--html", page, "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    result = ended.result
    assert (result["images"], result["fill"], result["accuracy"]) == (4, "blur", None)
    assert len(result["gates"]) == 1
    assert result["removals"][0]["verdict"] in ("removable", "needed", "undecided")
    assert "picture" not in result["covered"][0]
    assert "no gate can be removed" in ended.err or "remove it" in ended.err
    assert '<section id="covered">' in page.read_text("utf-8")


@pytest.mark.parametrize(
    "arguments,message",
    [
        ((), "probe: name MODEL and IMAGES, or --detectors"),
        (("efficientnet_b0",), "probe: name MODEL and IMAGES, or --detectors"),
        (("efficientnet_b0", "--detectors"), "--detectors: brings its own networks and pictures"),
        (("efficientnet_b0", "digits", "--fill", "black"), "--fill black: must be one of grey, mean, blur"),
        (("efficientnet_b0", "digits", "--mean", "0.5"), "--mean 0.5: must be three numbers"),
        (("efficientnet_b0", "digits", "--std", "0,1,1"), "--std 0,1,1: must be above 0"),
        (("efficientnet_b0", "digits", "--tolerance", "0"), "--tolerance: must lie between 0 and 1"),
        (("mobilenetv2_100", "digits"), "a description without weights"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str, luthier: Any) -> None:
    ended = luthier("probe", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
