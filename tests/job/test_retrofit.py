"""The greedy share-out of a budget, limits beside a model's own cost, and the bill of single gates."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from luthier.arch import presets
from luthier.arch.encode import to_json
from luthier.cost import graph_macs, graph_params
from luthier.cost.budget import Budget
from luthier.device.registry import get
from luthier.errors import BudgetError, InputError, RunFolderError, SpecError, UnitError
from luthier.graph.from_torch import from_torch
from luthier.job.billing import Gated, Meter
from luthier.job.module import Retrofitted, load_module
from luthier.job.reduction import Room, greedy, measure
from luthier.job.resolve import described, resolve, resolve_graph
from luthier.job.results import Bill, Trial
from luthier.job.retrofit_request import RetrofitRequest
from luthier.nn.retrofit import attach, choose_places, find_places, gates_of, insertion, light_attention

SHAPE = (1, 3, 8, 8)


def trial(place: str, reduction: int, gain: float, macs: int, params: int = 0) -> Trial:
    return Trial(
        place=place, reduction=reduction, gain_nats=gain, params=params, macs=macs, budget_share=macs / 100,
        chosen=False,
    )  # fmt: skip


offers = st.lists(
    st.builds(
        trial, st.sampled_from("abc"), st.sampled_from([4, 8, 16]), st.floats(-0.1, 0.3), st.integers(1, 120)
    ),
    min_size=1, max_size=9, unique_by=lambda t: (t.place, t.reduction),
)  # fmt: skip


@given(offers)
def test_greedy_keeps_the_budget_and_buys_no_loss(trials: list[Trial]) -> None:
    room = Room(100, None)
    affordable = [t for t in trials if t.macs <= 100 and t.gain_nats > 0]
    if not affordable:
        with pytest.raises(BudgetError, match=r"retrofit: (no gate lowers the validation loss|the cheapest gate)"):
            greedy(trials, room)
        return
    marked = greedy(trials, room)
    assert [replace(t, chosen=False) for t in marked] == trials
    bought = [t for t in marked if t.chosen]
    assert sum(t.macs for t in bought) <= 100
    assert all(t.gain_nats > 0 for t in bought)
    assert len({t.place for t in bought}) == len(bought)
    gain = sum(t.gain_nats for t in bought)
    # no single step is left that fits and gains
    for offer in trials:
        others = [t for t in bought if t.place != offer.place]
        fits = offer.macs + sum(t.macs for t in others) <= 100
        assert not fits or offer.gain_nats + sum(t.gain_nats for t in others) <= gain + 1e-12
    # half the best of all combinations, or one of its gates alone, is within reach of every greedy choice
    places = sorted({t.place for t in trials})
    choices = product(*([None, *(t for t in trials if t.place == place)] for place in places))
    best = max(
        sum(t.gain_nats for t in chosen if t)
        for chosen in choices
        if sum(t.macs for t in chosen if t) <= 100
    )  # fmt: skip
    assert gain <= best + 1e-12


def test_the_budget_goes_where_it_gains_most_per_mac() -> None:
    offers = [trial("a", 16, 0.03, 20), trial("a", 4, 0.06, 90), trial("b", 16, 0.04, 50), trial("c", 16, -1, 1)]
    assert [(t.place, t.reduction) for t in greedy(offers, Room(100, None)) if t.chosen] == [("a", 16), ("b", 16)]
    # with more room the wider gate replaces the narrower one
    assert [(t.place, t.reduction) for t in greedy(offers, Room(200, None)) if t.chosen] == [("a", 4), ("b", 16)]


def test_room() -> None:
    assert Room(100, 10).share(50, 9) == 0.9
    assert Room.of(Budget(max_macs=110, max_params=50), 100, 40) == Room(10, 10)
    with pytest.raises(InputError, match=r"--reduction auto: shares out a budget; give --max-macs or --max-params"):
        Room.of(Budget(max_latency_s=1.0), 100, 40)
    with pytest.raises(BudgetError, match="--max-macs 100 leave no room beside the network itself"):
        Room.of(Budget(max_macs=100), 100, 40)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    ).eval()  # fmt: skip


def test_gains_are_what_switching_one_gate_off_loses() -> None:
    base = network()
    places = find_places(base, SHAPE)
    x = torch.randn(4, 3, 8, 8)

    def train_gates(module: nn.Module, reduction: int) -> None:
        learning = [name for name, p in module.named_parameters() if p.requires_grad]
        assert learning
        assert all(name.startswith("retrofit.") for name in learning)
        for gate in gates_of(module) or ():
            nn.init.constant_(gate.get_submodule("expand").bias, 0.1 * reduction)  # type: ignore[arg-type]

    def loss(module: nn.Module) -> float:
        with torch.inference_mode():
            return float(module(x).square().sum())

    trials = measure(
        base, places, lambda place, r: insertion(place, light_attention("se", r)), SHAPE, Room(1000, None),
        train_gates, loss,
    )  # fmt: skip
    assert [(t.place, t.reduction) for t in trials] == [("1", 4), ("3", 4), ("1", 8)]
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    factor = 2 * torch.sigmoid(torch.tensor(0.4))
    middle = torch.relu(base[2](torch.relu(base[0](x))))  # type: ignore[index]
    doubled = torch.relu(base[2](factor * torch.relu(base[0](x))))  # type: ignore[index]
    head = base[4:]  # type: ignore[index]
    wanted = head(doubled).square().sum() - head(factor * doubled).square().sum()
    assert trials[1].gain_nats == pytest.approx(float(wanted), rel=1e-4)  # sums in another order
    alone = head(factor * middle).square().sum() - head(factor * doubled).square().sum()
    assert trials[0].gain_nats == pytest.approx(float(alone), rel=1e-4)
    assert (trials[0].params, trials[0].macs) == (8 * 2 + 2 + 2 * 8 + 8, 8 * 2 + 2 * 8)
    assert trials[0].budget_share == 32 / 1000


def test_bill_of_single_gates_adds_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    base = network()
    places = choose_places(find_places(base, SHAPE), ["block"])
    inserted = [insertion(place, light_attention("se", 2)) for place in places]
    module = attach(base, inserted)
    gated = Gated.read(module, SHAPE, 2)
    bare, _ = from_torch(base, SHAPE)
    assert (graph_macs(gated.without), graph_params(gated.without)) == (graph_macs(bare), graph_params(bare))
    assert [op.attrs for op in gated.without.ops] == [op.attrs for op in bare.ops]
    meter = Meter(get("raspberry_pi_4"), 1, seconds=0.01)
    before, after, turns = meter.whole(gated)
    assert turns.runtime.startswith("Luthier, ")
    bills = [meter.gate(gated, n, one, places[n].shape[1:], before) for n, one in enumerate(inserted)]
    assert sum(bill.macs for bill in bills) == after.macs - before.macs == 8 * 4 * 2 + 4 * 2 * 2
    assert sum(bill.params for bill in bills) == after.params - before.params
    assert [bill.shape for bill in bills] == [(8, 6, 6), (4, 4, 4)]
    assert [bill.reduced for bill in bills] == [4, 2]
    assert before.energy_j is not None
    assert after.energy_j is not None
    # energy is linear in the ops, but for where their tensors wait
    assert sum(bill.energy_j or 0 for bill in bills) == pytest.approx(after.energy_j - before.energy_j, rel=0.5)
    graph, values = gated.deployed(gated.graph)
    assert not any(op.kind == "affine" for op in graph.ops)  # both factors stand before a layer that carries them
    assert set(values) == set(graph.constants)


BILL = Bill(
    params=1000, macs=20_000, weight_bytes=4000, peak_activation_bytes=512, latency_s=1e-3, latency_spread_s=0.0,
    target_latency_s=None, energy_j=None,
)  # fmt: skip


def test_limits_beside_the_models_own() -> None:
    request = RetrofitRequest(
        command="retrofit", model="m", max_macs="+1%", max_params="2k", max_size="+ 0.5 %", max_latency="+10%"
    )
    found = request.budget(BILL)
    assert found.max_latency_s == pytest.approx(1.1e-3)
    assert replace(found, max_latency_s=None) == Budget(max_macs=20_200, max_params=2000, max_size_bytes=4020)
    with pytest.raises(UnitError, match="--max-macs: expected a number with a unit"):
        replace(request, max_macs="many").budget(BILL)
    with pytest.raises(InputError, match=r"--max-macs 1%: a share is what may be added .* such as \+1%"):
        replace(request, max_macs="1%").budget(BILL)
    with pytest.raises(InputError, match="--max-energy: the file of --device host does not say what it takes"):
        replace(request, max_energy="+1%").budget(BILL)
    with pytest.raises(InputError, match="--max-latency: the file of --device esp32 does not say"):
        replace(request, device="esp32").budget(BILL)


def test_words_of_the_request() -> None:
    request = RetrofitRequest(command="retrofit", model="m")
    with pytest.raises(InputError, match="--attention: must be one of se, ese, eca, spatial, cbam, coord, got 'x'"):
        _ = replace(request, attention="x").kind
    for text in ("0", "-4", "1.5", "many"):
        with pytest.raises(
            InputError, match=f"--reduction: must be a whole number of at least 1, or auto, got '{text}'"
        ):
            _ = replace(request, reduction=text).fixed_reduction
    with pytest.raises(InputError, match="--reduction auto: eca has no reduction; se, cbam, coord have one"):
        _ = replace(request, reduction="auto", attention="eca", data="digits").fixed_reduction
    with pytest.raises(InputError, match="--reduction auto: measures what gates gain on images; name them with --data"):
        _ = replace(request, reduction="auto").fixed_reduction


def test_a_request_is_kept_and_compared(tmp_path: Path) -> None:
    request = RetrofitRequest(command="retrofit", model="m", max_macs="+1%")
    request.write(tmp_path / "run.toml", {})
    assert RetrofitRequest.read(tmp_path / "run.toml") == request
    with pytest.raises(RunFolderError, match=r"started with --max-macs \+2%, now asked for \+1%"):
        request.refuse_other(replace(request, max_macs="+2%"), tmp_path / "run.toml")


# -- MODEL as a module ---------------------------------------------------------------------------------------------


def test_descriptions_take_the_classes_of_the_data(tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    file.write_text(to_json(presets.get("mbconv_thumbnail")))
    made = load_module(str(file), num_classes=7)
    assert made.weights == "random"
    assert made.module(torch.zeros(made.input_shape)).shape == (1, 7)
    with pytest.raises(InputError, match="an ONNX file is no module that can be trained"):
        load_module("m.onnx")
    with pytest.raises(InputError, match=r"--pretrained w\.pt: fills presets and network\.json"):
        load_module("torchvision.models:resnet18", pretrained="w.pt", resolution=32)
    with pytest.raises(InputError, match="does not say the side of its square input; give --resolution"):
        load_module("torchvision.models:resnet18")


def test_a_retrofitted_folder_as_model(tmp_path: Path) -> None:
    base = presets.get("mbconv_thumbnail")
    record = Retrofitted(
        model="mbconv_thumbnail", network=base, resolution=32, mean=base.input_mean, std=base.input_std, insertions=()
    )
    record.write(tmp_path / "retrofit.json")
    assert Retrofitted.read(tmp_path / "retrofit.json") == record
    assert described(str(tmp_path)) is None
    with pytest.raises(InputError, match=r"holds a network with attention put in \(retrofit\.json\)"):
        resolve(str(tmp_path))
    with pytest.raises(InputError, match=r"model\.onnx"):
        resolve_graph(str(tmp_path))
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        load_module(str(tmp_path))
    (tmp_path / "retrofit.json").write_text("{}")
    with pytest.raises(SpecError, match=r"retrofit\.json: expected schema 'luthier\.retrofit/1'"):
        load_module(str(tmp_path))
