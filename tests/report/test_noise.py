"""What the page of an analysis says, from made-up findings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.documents import from_text, to_text
from luthier.quant.results import GateNoise, NoiseAnalysis, Remedy, SourceNoise, TensorNoise
from luthier.report import noise


def made() -> NoiseAnalysis:
    def tensor(name: str, kind: str, depth: float, measured: float | None, block: str) -> TensorNoise:
        return TensorNoise(
            tensor=name, op=name, kind=kind, block=block, depth=depth, predicted_db=20.0, exact_gates_db=21.0,
            white_db=15.0, measured_db=measured,
        )  # fmt: skip

    return NoiseAnalysis(
        model="<b>net</b>", weights="trained", numbers="W4A8", equalized=True, images=64, calibration_images=96,
        tensors=(
            tensor("a", "conv", 0.2, 20.5, "one"), tensor("g", "conv", 0.3, 19.0, "one"),
            tensor("y", "linear", 1.0, None, ""),
        ),
        sources=(
            SourceNoise(
                op="a", tensor="a", part="weights", share=0.75, alone_db=21.0, channel=3, channel_share=0.5,
                widest_channel=2, widest=9.0, median=1.0, why="a: its rounded weights; 9 times",
            ),
        ),
        gates=(
            GateNoise(
                op="gate", block="one", signal_gain_db=-3.0, noise_gain_db=-1.0, own_share=0.25, before_db=20.0,
                after_db=18.0, law_error_db=0.5,
            ),
        ),
        output_predicted_db=20.0, output_sources_db=19.0, output_measured_db=20.5, output_calibration_db=20.1,
        agreement=0.96875, weight_bytes=2048,
        remedies=(Remedy(name="a in W8A16", ops=("a",), output_db=26.5, agreement=1.0, weight_bytes=4096),),
    )  # fmt: skip


def test_sentences_hold_the_findings() -> None:
    found = made()
    assert noise.headline(found) == (
        "<b>net</b> in W4A8: SQNR of the outputs 20.5 dB measured, 20.0 dB predicted; the largest output is that of "
        "fp32 on 96.9 % of 64 images"
    )
    assert noise.cause(found).startswith("75 % of the noise: a: its rounded weights")
    assert noise.mended(found) == (
        "a in W8A16 brings +6.0 dB (to 26.5 dB) and 100.0 % agreement, with weights of 4 KiB instead of 2 KiB"
    )
    assert noise.mended(replace(found, remedies=())) == ""
    assert noise.cause(replace(found, sources=())) == "no op makes an error"


def test_errors_are_of_tensors_that_have_one() -> None:
    found = made()
    assert found.errors_db() == [0.5, 1.0]
    assert found.median_error_db() == 0.75
    assert found.median_error_db("white_db") == pytest.approx(4.75)
    assert [row[1] for row in noise.laws(found).rows] == ["0.75", "4.75"]
    assert replace(found, tensors=()).median_error_db() == 0.0


def test_the_page_escapes_names_and_shows_every_part() -> None:
    page = noise.render(made(), "1.2.3")
    assert "<b>net</b>" not in page
    for part in ("How noise piles up", "Where it comes from", "Gates", "What mends it", "Predicted against measured"):
        assert part in page
    bare = noise.render(replace(made(), gates=(), remedies=()), "1.2.3")
    assert "What mends it" not in bare
    assert "exact gates" in bare


def test_the_depth_chart_follows_what_blocks_hand_on() -> None:
    figure = noise.depth(made()).figure
    assert list(figure.data[0].x) == [30.0, 100.0]
    assert list(figure.data[0].y) == [19.0, None]
    assert [trace.name for trace in figure.data] == ["measured", "predicted", "predicted, gates exact", "by variances"]
    assert len(noise.depth(replace(made(), gates=())).figure.data) == 3


def test_findings_come_back_from_json() -> None:
    found = made()
    assert from_text(NoiseAnalysis, to_text(found, "n/1"), "n/1", "n.json") == found
