"""Effective fields against convolutions of ones, effective ranks against known spectra, and a trained network."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.arch import Block, Head, Network, Stage, presets
from luthier.cost.receptive_field import receptive_fields
from luthier.errors import DataError
from luthier.graph import from_network
from luthier.nn import build, load_pretrained
from luthier.nn.build import Classifier
from luthier.nn.effective import _Moments, block_uses, effective_rank, holding_side, participation_ratio


def centres_of(network: Network) -> dict[str, tuple[float, float]]:
    """Middle of the field of every block's middle pixel."""
    graph = from_network(network)
    paths = receptive_fields(graph, gates=False)
    found = {}
    for op in graph.ops:
        shape = graph.output_shape(op)
        if op.block != "head" and len(shape) == 4 and shape[2] > 1:
            h, w = paths[op.outputs[0]].widest
            found[op.block] = (h.centre(shape[2] // 2), w.centre(shape[3] // 2))
    return found


def uniform_chain(depth: int, kernel: int, side: int) -> Classifier:
    """Linear convolutions whose weights are all one: the chain that Luo et al. solve."""
    block = Block(kind="conv", out_channels=1, kernel_size=kernel, norm=False, activation="identity")
    network = Network(
        name="chain", stages=(Stage(name="body", blocks=(block,) * depth),), head=Head(num_classes=2), resolution=side,
        channel_divisor=1,
    )  # fmt: skip
    module = build(network)
    for name, weight in module.named_parameters():
        if name.endswith("conv.weight"):
            torch.nn.init.ones_(weight)
    return module


@pytest.mark.parametrize(("depth", "kernel"), [(1, 3), (3, 3), (8, 3), (4, 5)])
def test_a_chain_of_ones_has_the_field_of_a_convolved_box(depth: int, kernel: int) -> None:
    side = depth * (kernel - 1) + 5
    side += 1 - side % 2
    module = uniform_chain(depth, kernel, side)
    uses = block_uses(module, [torch.rand(2, 3, side, side)], centres_of(module.network))
    line = np.ones(1)
    for index, use in enumerate(uses):
        line = np.convolve(line, np.ones(kernel))
        reach = np.arange(len(line)) - (len(line) - 1) // 2
        # a square of half side h holds (share of the line within h)^2, because the gradient is an outer product
        shares = [(line[abs(reach) <= half].sum() / line.sum()) ** 2 for half in range(len(line))]
        half = next(h for h, share in enumerate(shares) if share >= 0.95 * (1 - 1e-12))
        assert use.effective_px == 2 * half + 1, index
        assert use.effective_px <= 1 + (index + 1) * (kernel - 1)
    # Luo et al., section 2.2: a box of n layers has the deviation sqrt(n (k^2 - 1) / 12)
    assert np.sqrt((line * reach**2).sum() / line.sum()) == pytest.approx(math.sqrt(depth * (kernel**2 - 1) / 12))


def test_deep_fields_grow_with_the_root_of_the_depth() -> None:
    sides = {}
    for depth in (4, 16):
        module = uniform_chain(depth, 3, 2 * depth + 5)
        sides[depth] = block_uses(module, [torch.rand(1, 3, 2 * depth + 5, 2 * depth + 5)], centres_of(module.network))
    ratio = sides[16][-1].effective_px / sides[4][-1].effective_px
    assert 1.7 < ratio < 2.3  # sqrt(16 / 4) = 2, on whole odd pixels
    assert (1 + 2 * 16) / (1 + 2 * 4) > 3.6  # while the theoretical field grows with the depth itself


@given(
    eigenvalues=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=12),
    scale=st.floats(0.1, 10),
    zeros=st.integers(0, 5),
)
def test_ranks_lie_between_one_and_the_width(eigenvalues: list[float], scale: float, zeros: int) -> None:
    values = np.array(eigenvalues)
    rank, ratio = effective_rank(values), participation_ratio(values)
    # participation is the exponential of another entropy (Renyi's of order 2), which never exceeds Shannon's
    assert 1 - 1e-9 <= ratio <= rank * (1 + 1e-9)
    assert rank <= len(values) * (1 + 1e-9)
    assert effective_rank(np.append(values * scale, np.zeros(zeros))) == pytest.approx(rank)
    assert participation_ratio(np.append(values * scale, np.zeros(zeros))) == pytest.approx(ratio)


def test_ranks_written_out() -> None:
    assert effective_rank(np.array([4.0, 1.0])) == pytest.approx(0.8**-0.8 * 0.2**-0.2)
    assert participation_ratio(np.array([4.0, 1.0])) == pytest.approx(25 / 17)
    halves = 0.5 ** np.arange(1, 40)  # shares 1/2, 1/4, ...: entropy 2 ln 2, sum of squares 1/3
    assert effective_rank(halves) == pytest.approx(4, rel=1e-6)
    assert participation_ratio(halves) == pytest.approx(3, rel=1e-6)
    assert (effective_rank(np.zeros(4)), participation_ratio(np.zeros(4))) == (1, 1)


def test_moments_recover_a_known_spectrum_batch_by_batch() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(600, 5))
    rows -= rows.mean(0)
    whitened = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T, bias=True))).T
    spectrum = np.array([9.0, 4.0, 1.0, 0.25, 0.0])
    turned = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    rows = whitened * np.sqrt(spectrum) @ turned.T + 1e3
    maps = torch.from_numpy(rows.reshape(6, 10, 10, 5)).movedim(-1, 1)
    moments = _Moments(5)
    for part in maps.split(4):
        moments.add(part)
    found = np.sort(moments.eigenvalues())[::-1]
    np.testing.assert_allclose(found, spectrum, rtol=1e-6, atol=1e-6)  # the mean is 1e3: squares lose six digits
    assert found[-1] == 0


@given(
    height=st.integers(1, 9), width=st.integers(1, 9), share=st.floats(0.01, 1), seed=st.integers(0, 99),
    offset=st.sampled_from([0.0, 0.5]),
)  # fmt: skip
def test_the_square_that_holds_a_share_is_the_smallest(
    height: int, width: int, share: float, seed: int, offset: float
) -> None:
    mass = np.random.default_rng(seed).random((height, width)) + 1e-3
    centre = (height // 2 - offset, width // 2 - offset)

    def held(side: float) -> float:
        rows, columns = (abs(np.arange(n) - at) <= (side - 1) / 2 for n, at in zip(mass.shape, centre, strict=True))
        return float(mass[rows][:, columns].sum() / mass.sum())

    side = holding_side(mass, centre, share)
    assert held(side) >= share - 1e-9
    assert side == 1 or held(side - 2) < share
    assert holding_side(np.zeros((3, 3)), (1, 1)) == 1


def test_nothing_of_the_module_changes_and_bad_input_is_said() -> None:
    module = build(presets.get("mbconv_thumbnail"))
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    centres = centres_of(module.network)
    uses = block_uses(module, [torch.rand(3, 3, 32, 32)], centres)
    assert [use.name for use in uses] == [placed.name for placed in module.network.walk()]
    assert [use.channels for use in uses] == [placed.block.out_channels for placed in module.network.walk()]
    assert all(1 <= use.participation <= use.effective_rank <= use.channels for use in uses)
    assert module.training
    assert all(weight.requires_grad for weight in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(DataError, match="expected at least 1 image"):
        block_uses(module, [], centres)
    with pytest.raises(DataError, match=r"block stem\.0 is not finite"):
        block_uses(module, [torch.full((1, 3, 32, 32), torch.nan)], centres)


def test_a_trained_network_on_real_images(data_dir: Path) -> None:
    network = presets.get("resnet20")
    module = build(network)
    load_pretrained(module, str(data_dir / "weights" / "resnet20_cifar10.safetensors"))
    images = _cifar(data_dir, network, 48)
    uses = block_uses(module, images.split(16), centres_of(network))
    fields = receptive_fields(from_network(network), gates=False)
    last_op = {op.block: op.outputs[0] for op in from_network(network).ops}
    for use in uses:
        assert use.effective_px <= fields[last_op[use.name]].widest[0].size
    sides = [use.effective_px for use in uses]
    assert sides[0] == 3
    assert sides == sorted(sides)
    # Luo et al.: much smaller than the theoretical field
    assert fields[last_op["stage3.1"]].widest[0].size > 2 * sides[-2]
    # the block before ten classes varies in fewer directions than the one before it, of equal width
    assert uses[-1].effective_rank < 0.7 * uses[-2].effective_rank
    assert uses[-1].channels == uses[-2].channels


def _cifar(data_dir: Path, network: Network, count: int = 64) -> torch.Tensor:
    stored = np.load(data_dir / "images" / "cifar10_lossless_4k.npz")["images"][:count]
    images = torch.from_numpy(stored).movedim(-1, 1).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.input_mean, network.input_std))
    return (images - mean) / std
