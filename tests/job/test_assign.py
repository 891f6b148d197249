"""Mixed precision under each kind of limit, on a network with one layer that cannot do with few bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.quant.gated import gated_block

from luthier.device.registry import get
from luthier.errors import BudgetError, InputError
from luthier.job.assign import Wish, assign_numbers
from luthier.job.noise import Case

DEVICE = "snapdragon_8_gen2"


def block() -> Case:
    """Channel 5 in front of the depthwise layer is 400 times as loud as the others, and SiLU lets nothing be folded."""
    graph, constants, images = gated_block(80, batch=1)
    constants["cw.weight"][5] = np.abs(constants["cw.weight"][5]) * 400
    constants["deep.weight"][5] /= 400
    return Case("block", "made", graph, constants, images[:32], images[32:])


def test_a_limit_on_energy_keeps_bits_where_they_count() -> None:
    case, device = block(), get(DEVICE)
    every = assign_numbers(case, device, Wish("energy", 1.0))
    assert {name for _, name in every.numbers} == {"W8A16"}  # nothing is asked: nothing is given up
    assert any("W8A16 multiplies as fp16" in remark for remark in every.remarks)
    wide, byte, _ = every.uniform
    assert wide.energy_j is not None
    assert byte.energy_j is not None
    limit = 0.3 * wide.energy_j + 0.7 * byte.energy_j
    found = assign_numbers(case, device, Wish("energy", limit))
    assert found.chosen.energy_j is not None
    assert found.chosen.energy_j <= limit
    assert found.chosen.energy_j == pytest.approx(
        (found.chosen.compute_j or 0) + (found.chosen.weight_j or 0) + (found.chosen.activation_j or 0)
    )
    assert dict(found.numbers)["deep"] == "W8A16"
    assert found.chosen.measured_db is not None
    assert byte.measured_db is not None
    assert found.chosen.measured_db > byte.measured_db + 6
    assert [mixture.name for mixture in found.uniform] == ["W8A16", "W8A8", "W4A8"]


def test_a_limit_on_size_and_on_loss() -> None:
    case, device = block(), get(DEVICE)
    labels = case.outputs(case.graph, case.constants).argmax(1)
    small = assign_numbers(case, device, Wish("size", 1500.0))
    assert small.chosen.weight_bytes <= 1500
    assert {name for _, name in small.numbers} > {"W4A8"}
    kept = assign_numbers(case, device, Wish("loss", 0.05, labels=labels))
    assert kept.chosen.accuracy is not None
    assert kept.chosen.accuracy >= 0.95
    assert kept.chosen.accuracy == kept.chosen.agreement  # those labels are the answers in fp32
    assert (kept.chosen.energy_j or 0.0) < (kept.uniform[0].energy_j or 0.0)


def test_what_cannot_be_is_told() -> None:
    case, device = block(), get(DEVICE)
    with pytest.raises(BudgetError, match=r"--max-size: no mixture of .* keeps 10 B on .*; the least is"):
        assign_numbers(case, device, Wish("size", 10.0))
    with pytest.raises(InputError, match="assign: needs two number types to choose from, got W8A8"):
        assign_numbers(case, device, Wish("size", 10.0, ("W8A8",)))
    with pytest.raises(InputError, match="states too little to model energy"):
        assign_numbers(case, replace(device, energy=None), Wish("energy", 1.0))
