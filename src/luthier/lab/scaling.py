"""Lab `scaling`: a small baseline grown twofold and fourfold in work, in four ways, on two data sets.

Asked: does growing depth, width and resolution together gain more than growing one of them by the same real work, and
does it need squeeze-and-excitation?
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from luthier.arch.block import Attention, Block, Head, Stage
from luthier.arch.network import Network
from luthier.cost.macs import graph_params
from luthier.graph.from_network import from_network
from luthier.lab import ways
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Numbers, Order, Place, Size
from luthier.lab.result import Curve

QUESTION: Final = (
    "If an engine twice and four times as strong is needed, does it pay to grow depth, width and resolution together, "
    "rather than one of them? And is squeeze-and-excitation part of what makes that work?"
)
TOGETHER: Final = (
    "Making a network only deeper, only wider or only sharper helps with diminishing returns; grown together in fixed "
    "proportions (alpha * beta^2 * gamma^2 ~ 2) it gains more for the same work."
)
ATTENTION: Final = "Squeeze-and-excitation is not an addition but part of the engine that makes compound scaling work."

WAYS: Final = ("depth", "width", "resolution", "compound")
MULTIPLES: Final = (2, 4)
PLAIN: Final = " without SE"


@dataclass(frozen=True)
class Amount:
    """Images and epochs of one size."""

    train: int
    val: int
    test: int
    epochs: int


@dataclass(frozen=True)
class DataSet:
    """One data set and the baseline that grows on it.

    Attributes:
        file: of the data folder; a store of JPEG images.
        side: of the baseline's input; max_side: the images' own, which no member exceeds.
        stem_channels: of the first convolution, whose stride is 2.
        first_stride: of the first stage; the second's is 2.
        batch_size, learning_rate: of the recipe.
        amounts: images and epochs by size.
    """

    name: str
    file: str
    num_classes: int
    side: int
    max_side: int
    stem_channels: int
    first_stride: int
    batch_size: int
    learning_rate: float
    amounts: dict[Size, Amount]


DATA: Final = (
    DataSet("cifar10", "images/cifar10.npz", 10, 16, 32, 12, 1, 64, 0.1, {
        "quick": Amount(500, 100, 500, 2), "standard": Amount(5_000, 500, 5_000, 16),
        "full": Amount(45_000, 5_000, 10_000, 60),
    }),
    DataSet("rsscn7", "rs/rsscn7_96.npz", 7, 48, 96, 8, 2, 32, 0.05, {
        "standard": Amount(1_400, 140, 700, 24),
        "full": Amount(1_960, 140, 700, 100),
    }),
)  # fmt: skip


def baseline(data: DataSet) -> Network:
    """A stem and two stages of MBConv blocks with squeeze-and-excitation: 0.5 M MACs at 16 px, 1.2 M at 48 px."""
    gate = Attention(kind="se")

    def stage(name: str, channels: int, repeats: int, stride: int) -> Stage:
        block = Block(kind="mbconv", out_channels=channels, expand_ratio=3, stride=stride, attention=gate)
        return Stage(name=name, blocks=(block, *(replace(block, stride=1),) * (repeats - 1)))

    return Network(
        name=f"baseline_{data.name}",
        stages=(
            Stage(name="stem", blocks=(Block(kind="conv", out_channels=data.stem_channels, stride=2),)),
            stage("fine", 12, 3, data.first_stride),
            stage("coarse", 24, 4, 2),
        ),
        head=Head(num_classes=data.num_classes),
        resolution=data.side,
        activation="relu",
        channel_divisor=2,
    )


def members(data: DataSet) -> dict[str, ways.Grown]:
    """Every network of a data set by the name of its arm; equal real work at each multiple is checked.

    Raises:
        SpecError: a member's work is not within the tolerance of its multiple's.
    """
    base = baseline(data)
    found = {"base": ways.grow(base, 1, 1, base.resolution)}
    found[f"base{PLAIN}"] = _plain(found["base"])
    for multiple in MULTIPLES:
        sharper = ways.resolution_only(base, multiple, data.max_side)
        target, real = sharper.macs, sharper.macs / found["base"].macs
        together = ways.compound(base, target, real, data.max_side)
        at = {
            f"depth {multiple}x": ways.depth_only(base, target, real),
            f"width {multiple}x": ways.width_only(base, target, real),
            f"resolution {multiple}x": sharper,
            f"compound {multiple}x": together,
            f"compound {multiple}x{PLAIN}": _plain(together),
        }
        ways.check_equal(f"lab scaling, {data.name}", target, [(name, member.macs) for name, member in at.items()])
        found |= at
    return found


def _plain(member: ways.Grown) -> ways.Grown:
    """The same member without squeeze-and-excitation."""
    network = ways.without_attention(member.network)
    return replace(member, network=network, macs=ways.real_macs(network))


def build(order: Order) -> Experiment:
    """The lab of one size."""
    controls: list[Arm] = []
    arms: list[Arm] = []
    claims: list[Claim] = []
    curves: list[Curve] = []
    for data in _sets(order.size):
        path = order.file(data.file)
        found = members(data)
        epochs = data.amounts[order.size].epochs
        base = found.pop("base")
        controls.append(_arm(data, "base", base, path, order.size, epochs))
        controls.append(_arm(data, "base twice as long", base, path, order.size, 2 * epochs))
        arms += [_arm(data, name, member, path, order.size, epochs) for name, member in found.items()]
        claims += _claims(data.name)
        curves.append(_curve(data.name))
    seeds = order.seeds or {"quick": 2, "standard": 5, "full": 8}[order.size]
    return Experiment(
        name="scaling",
        title="depth, width, resolution, or all together",
        question=QUESTION,
        size=order.size,
        # the controls first: whether the floors can be met is known early
        arms=(*controls, *arms),
        claims=tuple(claims),
        seeds=seeds,
        settings=_settings(order.size),
        too_small="a smoke run, too small for a verdict" if order.size == "quick" else "",
        curves=tuple(curves),
    )


def _sets(size: Size) -> list[DataSet]:
    """The smoke run has one data set."""
    return [data for data in DATA if size in data.amounts]


def _arm(data: DataSet, name: str, member: ways.Grown, path: Path, size: Size, epochs: int) -> Arm:
    network = member.network
    facts = {
        "macs": float(member.macs),
        "params": float(graph_params(from_network(network))),
        "blocks": round(member.depth, 3),
        "width": round(member.width, 3),
        "pixels": float(network.resolution),
    }
    measure = partial(_measure, data=data, network=network, path=path, size=size, epochs=epochs)
    work = member.macs * epochs * data.amounts[size].train / 1e9
    return Arm(f"{data.name} {name}", measure, facts, data.name, work)


def _measure(place: Place, *, data: DataSet, network: Network, path: Path, size: Size, epochs: int) -> Numbers:
    from luthier.lab.images import splits
    from luthier.lab.training import fit, seeded
    from luthier.train.recipe import Recipe

    amount = data.amounts[size]
    images = splits(
        path, network.resolution, train=amount.train, val=amount.val, test=amount.test, seed=place.seed
    )  # fmt: skip
    recipe = Recipe(
        epochs=epochs, batch_size=data.batch_size, learning_rate=data.learning_rate, warmup_epochs=1, augment="none"
    )  # fmt: skip
    return fit(seeded(network, place.seed), network, images, recipe, place)


def _settings(size: Size) -> dict[str, str]:
    amounts = "; ".join(
        f"{data.name} {a.train:,} training, {a.val:,} validation, {a.test:,} test images, {a.epochs} epochs, "
        f"batch {data.batch_size}, rate {data.learning_rate:g}"
        for data in _sets(size)
        for a in (data.amounts[size],)
    )
    return {
        "images": amounts,
        "recipe": "SGD with Nesterov momentum 0.9, one epoch of warm-up and a cosine, weight decay 5e-4, no "
        "augmentation, fp32; the epoch that is best on validation is judged on test",
        "equal work": f"real MACs of all ways at 2x and at 4x lie within {ways.TOLERANCE:.0%} of the resolution arm's",
    }


def _claims(name: str) -> list[Claim]:
    floor = Floor(
        Contrast(f"{name}: base, twice as long - base", ((1, f"{name} base twice as long"), (-1, f"{name} base"))), 1.0
    )

    def less(first: str, second: str) -> Contrast:
        return Contrast(f"{name}: {first} - {second}", ((1, f"{name} {first}"), (-1, f"{name} {second}")))

    def with_gates(multiple: int) -> Contrast:
        """What growing gains with gates, less what it gains without."""
        grown = f"{name} compound {multiple}x"
        terms = ((1, grown), (-1, f"{name} base"), (-1, f"{grown}{PLAIN}"), (1, f"{name} base{PLAIN}"))
        return Contrast(f"{name}: gain of compound {multiple}x with SE - without SE", terms)

    together = [
        Claim(
            f"Together beats one at a time, {name}, {multiple}x", TOGETHER,
            tuple(less(f"compound {multiple}x", f"{way} {multiple}x") for way in WAYS[:-1]), (floor,),
        )
        for multiple in MULTIPLES
    ]  # fmt: skip
    gates = Claim(
        f"Scaling needs SE, {name}", ATTENTION, tuple(with_gates(multiple) for multiple in MULTIPLES), (floor,)
    )
    return [*together, gates]


def _curve(name: str) -> Curve:
    series = [(way, (f"{name} base", *(f"{name} {way} {m}x" for m in MULTIPLES))) for way in WAYS]
    plain = (f"{name} base{PLAIN}", *(f"{name} compound {m}x{PLAIN}" for m in MULTIPLES))
    return Curve(
        name, "macs", "MACs of one image", "accuracy", "test accuracy, %",
        (*series, (f"compound{PLAIN}", plain)),
    )  # fmt: skip
