"""One set of weights for a space: cuts, export, statistics, and a training that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from operator import ge
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from luthier.arch import Attention, Block, Head, Network, Stage
from luthier.cost.tables import Slot, Slots
from luthier.errors import InputError, RunFolderError
from luthier.nn.build import build
from luthier.nn.elastic import Elastic, extreme
from luthier.nn.elastic_layers import sources
from luthier.search.supernet import Sandwich, anywhere, inherit, inherited, sandwich, train_supernet
from luthier.train.hardware import Hardware, open_fabric
from luthier.train.recipe import Recipe
from luthier.train.source import Splits, fingerprint, in_memory

GATES = (
    None, Attention(ratio=0.25), Attention(kind="eca"), Attention(kind="spatial", place="after_sum"),
    Attention(kind="cbam", ratio=0.5, place="after_project"), Attention(kind="coord"), Attention(kind="ese"),
)  # fmt: skip
STEM = Stage(name="stem", blocks=(Block(kind="conv", out_channels=8, stride=2),))
FRAME = Network(name="space", stages=(STEM,), head=Head(num_classes=3, conv_channels=16), resolution=16)


def blocks(
    kinds: Sequence[str], widths: Sequence[int], stride: int, gates: Sequence[Attention | None] = GATES
) -> tuple[Block, ...]:
    return tuple(
        Block(kind=kind, out_channels=width, kernel_size=kernel, expand_ratio=expand, attention=gate, stride=stride)  # type: ignore[arg-type]
        for kind, width, kernel, expand, gate in product(kinds, widths, (3, 5), (1, 2, 4), gates)
    )


SPACE = Slots(
    frame=FRAME,
    slots=(
        Slot(stage="early", choices=blocks(("mbconv", "fused_mbconv", "depthwise_separable"), (8, 12), 1)),
        Slot(stage="late", choices=blocks(("mbconv", "bottleneck"), (16, 24), 2)),
        Slot(
            stage="late",
            choices=(
                None,
                *blocks(("mbconv",), (16, 24), 1),
                *blocks(("basic",), (16, 24), 1, (None, GATES[3], GATES[4])),
            ),
        ),
    ),
    resolutions=(12, 16),
)
SHARED = Elastic(SPACE)
rows = st.tuples(*(st.integers(0, size - 1) for size in SPACE.sizes))


def images(count: int, side: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))


@settings(max_examples=40)
@given(rows)
def test_an_exported_network_computes_what_the_shared_weights_compute(row: tuple[int, ...]) -> None:
    model = SHARED.export(row).train()
    assert model.network == SPACE.network(row)
    x = images(4, model.network.resolution)
    with torch.no_grad():
        assert torch.equal(SHARED(x, [row])[0], model(x))


def part(axis: int, size: int, whole: int) -> slice:
    return slice((whole - size) // 2, (whole + size) // 2) if axis >= 2 else slice(0, size)


@settings(max_examples=20)
@given(rows)
def test_every_exported_weight_is_a_centre_or_a_beginning_of_a_shared_one(row: tuple[int, ...]) -> None:
    """The oracle knows no names: of each weight some shared tensor holds the very numbers at the very places."""
    shared = [parameter.detach().numpy() for parameter in SHARED.parameters()]
    for name, parameter in SHARED.export(row).named_parameters():
        mine = parameter.detach().numpy()
        large = [t for t in shared if t.ndim == mine.ndim and np.all(np.array(mine.shape) <= t.shape)]
        places = [theirs[tuple(map(part, range(4), mine.shape, theirs.shape))] for theirs in large]
        assert any(np.array_equal(mine, place) for place in places), name


def test_the_largest_choice_takes_whole_layers_and_a_small_one_their_middle() -> None:
    choices = tuple(block for block in blocks(("mbconv",), (8, 16), 1, (None,)) if block.expands)
    space = Slots(frame=FRAME, slots=(Slot(stage="body", choices=choices),), resolutions=(16,))
    shared = Elastic(space)
    big, small = extreme(space, largest=True), choices.index(Block(kind="mbconv", out_channels=8, expand_ratio=2))
    whole = {name: tuple(p.shape) for name, p in shared.export(big).named_parameters()}
    assert whole["stages.body.0.expand.conv.weight"] == (32, 8, 1, 1)  # 8 x 4 inner channels
    assert whole["stages.body.0.depthwise.conv.weight"] == (32, 1, 5, 5)
    assert sum(np.prod(shape) for shape in whole.values()) == sum(p.numel() for p in shared.parameters())
    kernel = shared.layers["body/0/mbconv/depthwise/conv"].get_parameter("weight")
    mine = shared.export((small, 0)).get_parameter("stages.body.0.depthwise.conv.weight")
    assert torch.equal(mine, kernel[:16, :, 1:4, 1:4])


def test_a_block_without_an_expansion_shares_nothing_with_those_that_have_one() -> None:
    direct, expanding = (Block(kind="mbconv", out_channels=8, expand_ratio=ratio) for ratio in (1, 2))
    shared = Elastic(Slots(frame=FRAME, slots=(Slot(stage="body", choices=(direct, expanding)),), resolutions=(16,)))
    shared(images(4), [(0, 0)])[0].square().sum().backward()
    touched = {key for key, layer in shared.layers.items() if any(p.grad is not None for p in layer.parameters())}
    body = {key for key in shared.layers if key.startswith("body/0/")}
    assert len(body & touched) == 4  # depthwise and projection, each with its norm
    assert len(body - touched) == 6
    choices = tuple(replace(block, kind="fused_mbconv") for block in (direct, expanding))
    fused = Slots(frame=FRAME, slots=(Slot(stage="body", choices=choices),), resolutions=(16,))
    assert len([key for key in Elastic(fused).layers if key.startswith("body/0/")]) == 4


def test_every_layer_of_every_choice_fits_into_the_shared_one() -> None:
    for index, (place, slot) in enumerate(zip(("early/0", "late/0", "late/1"), SPACE.slots, strict=True)):
        befores = (0, len(SPACE.slots[0].choices) - 1) if index else (0,)  # narrow and wide
        for gene, before in product(range(len(slot.choices)), befores):
            if slot.choices[gene] is None:
                continue
            row = [before, 0, 1, 1]
            row[index] = gene
            model = build(SPACE.network(row))
            keys = sources(SPACE, row, model)
            mine = [name for name, (key, _) in keys.items() if key.startswith(place)]
            assert mine
            for name in mine:
                key, parameter = keys[name]
                largest = SHARED.layers[key].get_parameter(parameter).shape
                assert all(map(ge, largest, model.get_parameter(name).shape)), name


def test_a_gradient_reaches_only_what_a_network_uses() -> None:
    shared = Elastic(SPACE)
    smallest = extreme(SPACE, largest=False)
    shared(images(4, 12), [smallest])[0].square().sum().backward()
    touched = {key for key, layer in shared.layers.items() if any(p.grad is not None for p in layer.parameters())}
    assert not any(key.startswith("late/1/") for key in touched)  # the smallest network skips this slot
    weight = shared.layers["head/conv/conv"].get_parameter("weight")
    assert weight.grad is not None
    assert weight.shape[1] == 24
    assert weight.grad[:, :16].abs().sum() > 0
    assert weight.grad[:, 16:].abs().sum() == 0


def test_networks_of_another_resolution_see_the_same_image_smaller() -> None:
    row = (*extreme(SPACE, largest=False)[:-1], 0)
    x = images(2)
    small = nn.functional.interpolate(x, (12, 12), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.equal(SHARED(x, [row]), SHARED(small, [row]))


def test_bf16_on_a_cpu_keeps_its_slow_kernel_in_fp32() -> None:
    shared = Elastic(TINY)
    seen = []
    recipe = replace(RECIPE, precision="bf16-mixed")
    stepper = Sandwich(shared, recipe, open_fabric(CPU, "bf16-mixed"), 3, draw=anywhere(TINY))
    assert shared.on_block is not None
    keep = shared.on_block

    def noted(block: nn.Module) -> None:
        keep(block)
        for part in block.modules():
            if isinstance(part, nn.Conv2d) and part.groups > 1:
                inner = part._conv_forward
                part._conv_forward = lambda x, *rest, inner=inner, part=part: (  # type: ignore[method-assign,misc]
                    seen.append((part.stride[0], torch.is_autocast_enabled("cpu"))),
                    inner(x, *rest),
                )[1]

    shared.on_block = noted
    loss, _ = stepper.step([(images(6), torch.tensor([0, 1, 2, 0, 1, 2]))], 0.1, (0, 0, 0))
    assert loss.isfinite()
    assert set(seen) == {(1, True), (2, False)}


def test_bf16_images_are_resized_as_well() -> None:
    small = (*extreme(TINY, largest=False)[:-1], TINY.resolutions.index(min(TINY.resolutions)))
    shared = Elastic(TINY)
    x = images(4)
    whole = shared(x, [small])
    with torch.autocast("cpu", torch.bfloat16):
        half = shared(x.bfloat16(), [small])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, rtol=0.05, atol=0.05)


def test_none_is_the_largest() -> None:
    x = images(3)
    with torch.no_grad():
        assert torch.equal(SHARED(x), SHARED(x, [extreme(SPACE, largest=True)])[0])


def test_the_extremes_are_extreme() -> None:
    big, small = extreme(SPACE, largest=True), extreme(SPACE, largest=False)
    picked = [slot.choices[gene] for slot, gene in zip(SPACE.slots, big, strict=False)]
    assert [(b.out_channels, b.expand_ratio, b.kernel_size) for b in picked if b] == [
        (12, 4, 5),
        (24, 4, 5),
        (24, 4, 5),
    ]
    assert SPACE.slots[2].choices[small[2]] is None
    assert (SPACE.resolutions[big[-1]], SPACE.resolutions[small[-1]]) == (16, 12)


def test_ties_of_the_extremes_are_drawn_and_the_others_are_the_callers() -> None:
    rng = np.random.default_rng(0)
    steps = [sandwich(SPACE, rng, anywhere(SPACE), 3) for _ in range(30)]
    assert all(len(step) == 5 for step in steps)
    kinds = {SPACE.slots[0].choices[step[0][0]].attention for step in steps}  # type: ignore[union-attr]
    assert len(kinds) > 3
    assert {step[-1] for step in [sandwich(SPACE, rng, lambda rng, count: np.zeros((count, 4), int), 1)]} == {
        (0, 0, 0, 0)
    }


@pytest.fixture(scope="module")
def splits() -> Splits:
    """Three classes of noisy colours."""
    rng = np.random.default_rng(3)
    labels = np.arange(240) % 3
    pixels = rng.integers(0, 120, (240, 16, 16, 3))
    pixels[np.arange(240), :, :, labels] += 100
    whole = in_memory(pixels.astype(np.uint8), labels)
    parts = [whole.take(np.arange(a, b)) for a, b in ((0, 144), (144, 192), (192, 240))]
    names = ("red", "green", "blue")
    return Splits(*parts, names, (16, 16), 3, "colours", (), (), fingerprint(names, *parts))


TINY = Slots(
    frame=FRAME,
    slots=(
        Slot(stage="early", choices=blocks(("mbconv",), (8, 12), 1, GATES[:3])),
        Slot(stage="late", choices=(None, *blocks(("mbconv",), (16,), 2, GATES[:3]))),
    ),
    resolutions=(12, 16),
)
RECIPE = Recipe(epochs=4, batch_size=24, learning_rate=0.1, augment="none", ema_decay=0.5)
CPU = Hardware(accelerator="cpu")


def trained(
    folder: Path,
    splits: Splits,
    recipe: Recipe = RECIPE,
    epochs: int | None = None,
    space: Slots = TINY,
    others: int = 2,
) -> Elastic:
    torch.manual_seed(1)
    shared = Elastic(space)
    train_supernet(
        shared, splits, recipe, folder=folder, hardware=CPU, show_progress=False, others=others,
        on_epoch=(lambda epoch: epoch.epoch == epochs) if epochs else None,
    )  # fmt: skip
    return shared


def test_whatever_is_cut_from_a_supernet_has_learnt(tmp_path: Path, splits: Splits) -> None:
    whole = trained(tmp_path, splits, replace(RECIPE, epochs=12))
    for row in anywhere(TINY)(np.random.default_rng(5), 6):
        found = inherited(whole, row.tolist(), splits, images=96)
        assert found.n == 48
        assert found.accuracy > 0.8  # chance is 1/3


def test_a_supernet_goes_on_where_it_was_stopped(tmp_path: Path, splits: Splits) -> None:
    whole = trained(tmp_path / "whole", splits)
    trained(tmp_path / "parts", splits, epochs=2)
    resumed = trained(tmp_path / "parts", splits)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(RunFolderError, match="another sandwich"):
        trained(tmp_path / "parts", splits, others=1)
    other = replace(TINY, slots=(TINY.slots[0], replace(TINY.slots[1], choices=TINY.slots[1].choices[::-1])))
    with pytest.raises(RunFolderError, match="another network"):
        trained(tmp_path / "parts", splits, space=other)


def test_statistics_are_the_means_over_batches(splits: Splits) -> None:
    shared = Elastic(TINY)
    model = inherit(shared, (0, 0, 1), splits, images=144)
    stem = model.stages["stem"][0].conv  # type: ignore[index]
    seen = np.random.default_rng(0).permutation(144)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (FRAME.input_mean, FRAME.input_std))
    pixels = torch.stack([splits.train.image(int(i)) for i in seen])
    x = (pixels / 255 - mean) / std
    with torch.no_grad():
        y = [stem.conv(part) for part in (x[:128], x[128:])]
    expected = sum(part.mean((0, 2, 3)) for part in y) / 2
    torch.testing.assert_close(stem.norm.running_mean, expected, rtol=0, atol=1e-5)  # sums in another order
    spread = sum(part.var((0, 2, 3)) for part in y) / 2
    torch.testing.assert_close(stem.norm.running_var, spread, rtol=1e-5, atol=0)
    assert not model.training


def test_equation_1_by_hand(splits: Splits) -> None:
    torch.manual_seed(2)
    shared = Elastic(TINY)
    stepper = Sandwich(shared, RECIPE, open_fabric(CPU, "32-true"), 3, draw=anywhere(TINY), others=1)
    x, labels = images(6), torch.tensor([0, 1, 2, 0, 1, 2])
    stepper._rng = np.random.default_rng(4)
    found = stepper.loss(x, labels, 0.0)
    big, small, drawn = sandwich(TINY, np.random.default_rng(4), anywhere(TINY), 1)
    with torch.no_grad():
        p = [shared(x, [row])[0].double().log_softmax(1) for row in (big, small, drawn)]
    teacher = -p[0][torch.arange(6), labels].mean()
    students = [-(p[0].exp() * log).sum(1).mean() for log in p[1:]]
    torch.testing.assert_close(found.double(), teacher + sum(students), rtol=1e-5, atol=0)
    found.backward()
    # the teacher learns from labels alone: its gradient is that of its own term
    classifier = shared.layers["head/classifier"].get_parameter("bias")
    again = Elastic(TINY)
    again.load_state_dict(shared.state_dict())
    own = nn.functional.cross_entropy(again(x, [big])[0], labels)
    own.backward()
    soft = p[0].exp().float()
    for row in (small, drawn):
        nn.functional.cross_entropy(again(x, [row])[0], soft).backward()
    torch.testing.assert_close(classifier.grad, again.layers["head/classifier"].get_parameter("bias").grad)


def test_only_an_elastic_module_is_trained_so() -> None:
    with pytest.raises(InputError, match="module must be Elastic, got Classifier"):
        Sandwich(build(FRAME), RECIPE, open_fabric(CPU, "32-true"), 3, draw=anywhere(TINY))
