"""The whole analysis on a network with one bad channel: found, explained and mended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.quant.gated import gated_block

from luthier.errors import InputError
from luthier.graph.builder import Builder
from luthier.job.noise import Case, analyze_noise

Array = np.ndarray[Any, Any]


def sick() -> Case:
    """Channel 5 behind the expansion is 400 times as loud as the others, and the depthwise kernel takes that back."""
    graph, constants, images = gated_block(96, function="hard_swish")
    constants["cw.weight"][5] = np.abs(constants["cw.weight"][5]) * 400
    constants["deep.weight"][5] /= 400
    return Case("sick", "made", graph, constants, images[:48], images[48:])


def test_the_bad_channel_is_found_and_mended() -> None:
    case = sick()
    said: list[str] = []
    found = analyze_noise(case, equalize=False, say=lambda share, what: said.append(what))
    assert found.median_error_db() < 1.0 < found.median_error_db("white_db")
    worst = found.sources[0]
    assert (worst.tensor, worst.part, worst.widest_channel) == ("wide", "rounding", 5)
    assert worst.share > 0.5
    assert worst.widest > 50 * worst.median
    assert "because channel 5 reaches" in worst.why
    assert abs(sum(source.share for source in found.sources) - 1) < 1e-9
    # the depthwise layer reads that tensor: with 16 bits for it the noise falls by most of that share
    best = found.remedies[0]
    assert best.output_db > found.output_measured_db + 6
    alone = next(remedy for remedy in found.remedies if remedy.ops == ("deep",))
    assert alone.output_db > found.output_measured_db + 3
    # that loud channel is what equalisation is for
    equal = next(remedy for remedy in found.remedies if remedy.name == "channels equalised")
    assert equal.output_db > found.output_measured_db + 3
    again = analyze_noise(case, remedies=False)
    assert again.output_measured_db == pytest.approx(equal.output_db, abs=0.01)
    assert said[0] == "quantising"
    assert any(what.startswith("trying") for what in said)
    (gate,) = found.gates
    assert gate.op == "gated"
    assert {tensor.tensor for tensor in found.tensors} == set(case.graph.tensors)
    assert [tensor.depth for tensor in found.tensors if tensor.tensor in ("x", "y")] == [0.0, 1.0]


def test_a_healthy_network_agrees() -> None:
    graph, constants, images = gated_block(96)
    found = analyze_noise(Case("well", "made", graph, constants, images[:48], images[48:]), "W4A8", remedies=False)
    assert found.remedies == ()
    assert found.numbers == "W4A8"
    assert abs(found.output_predicted_db - found.output_measured_db) < 1
    # 10 classes: chance is a tenth
    assert 0.3 < found.agreement <= 1
    assert any("its rounded weights" in source.why for source in found.sources)


def test_wrong_numbers_and_two_inputs() -> None:
    case = sick()
    with pytest.raises(InputError, match="numbers 'W3A8': must be one of fp32"):
        analyze_noise(case, "W3A8")
    build = Builder()
    a, b = (build.input(name, (1, 2, 4, 4)) for name in "ab")
    two = Case("two", "none", build.graph(build.add("y", a, b)), {}, case.images, case.images)
    with pytest.raises(InputError, match="two: noise is told of networks with one input, got 2"):
        analyze_noise(two)
