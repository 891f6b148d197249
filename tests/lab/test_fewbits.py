"""Labs on number types: energies by formula, twins that differ in number types alone, one training end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.cost.macs import graph_macs
from luthier.graph.from_network import from_network
from luthier.lab import energy, placement
from luthier.lab.experiment import Order, Place
from luthier.lab.registry import build

pytestmark = pytest.mark.xdist_group("lab")


def test_the_chapters_multiplier_is_the_only_difference_of_the_tables() -> None:
    """Horowitz: 1.1 pJ in FP16 and 0.2 pJ in INT8; the chapter: four times INT8, so 0.3 pJ less a multiplication."""
    found = energy.modelled("FP16")
    less_uj = found["horowitz_uj"] - found["chapter_uj"]
    macs_uj = graph_macs(from_network(energy.network_of())) * 0.3e-6
    # the products of gates and activations multiply too, but far less
    assert macs_uj < less_uj < 1.1 * macs_uj
    integers = energy.modelled("INT8")
    assert integers["horowitz_uj"] == pytest.approx(integers["chapter_uj"])


def test_mixed_depthwise_layers_save_traffic_alone() -> None:
    fp16, mixed = energy.modelled("FP16"), energy.modelled("W8A16 in depthwise layers")
    saved = {table: fp16[f"{table}_uj"] - mixed[f"{table}_uj"] for table in ("horowitz", "chapter")}
    # no multiplier is cheaper, so the price of one does not matter; and nothing outside of those layers changes
    assert saved["horowitz"] == pytest.approx(saved["chapter"])
    assert saved["horowitz"] == pytest.approx(fp16["horowitz_depthwise_uj"] - mixed["horowitz_depthwise_uj"])
    assert 0 < saved["horowitz"] < 0.1 * fp16["horowitz_uj"]


def test_places_differ_in_the_gate_alone() -> None:
    nets = {name: placement.network_of(place) for name, place in placement.PLACES.items()}
    macs = {name: graph_macs(from_network(net)) for name, net in nets.items()}
    assert macs["none"] < macs["before"] == macs["behind"]


def test_one_training_end_to_end(lab_data: Path, tmp_path: Path) -> None:
    arm = build(Order("placement", "quick", lab_data)).arm("behind")
    numbers = arm.measure(Place(0, tmp_path / "p"))
    assert numbers["block_db_W8A8"] > numbers["block_db_W4A8"] > numbers["block_db_W4A4"]
    assert numbers["gate_db_W8A8"] == pytest.approx(numbers["gate_predicted_db_W8A8"], abs=2)
    assert {"loss_W4A4", "qat_loss_W4A4", "qat_loss_W4A8", "loss_W8A8", "loss_W4A8"} <= set(numbers)
    found = build(Order("energy", "quick", lab_data))
    halves = found.arm("FP16").measure(Place(0, tmp_path / "a"))
    integers = found.arm("INT8").measure(Place(0, tmp_path / "b"))
    # the same training, to the last bit
    assert halves["fp32_accuracy"] == integers["fp32_accuracy"]
    assert halves["train_loss"] == integers["train_loss"]
    assert halves["block_db"] > integers["block_db"] + 10
