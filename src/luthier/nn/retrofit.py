"""Attention put into a finished network of any kind, so that it computes the same as before, and can learn.

    y = x * g(z(x)),   g(z) = 2 sigmoid(z) or 1 + tanh(z),   z = 0 at first                          (1)

g(0) is exactly 1, so that no bit of the output changes; the gradient of the last layer of z is not zero.  The places
are found in a trace of the module (`luthier.graph.sites`), not by the names of its classes: each is the result of a
module inside that is called once, and the gate is hung behind that module.  Nothing else is touched: all weights keep
their names, the gates' are `retrofit.<number>.<layer>.weight`.

Mechanism and limitations: a layer whose convolution is called as a function, in a module that returns something else,
is no place.  Where an activation is not a module called once, the gate stands before it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from torch import Tensor, nn

from luthier.arch.block import REDUCED, Activation, Attention, AttentionKind, Spec
from luthier.errors import InputError, ShapeError
from luthier.graph.from_torch import with_calls
from luthier.graph.sites import SiteKind, find_sites
from luthier.nn.attention import GateFunction, make_attention

#: words that stand for places
SETS: Final = ("auto", "stage", "block")
#: inside such a kind: unlike ReLU, none of a narrow layer's few units can be off for all images
_INNER: Final[Activation] = "silu"
_GATES: Final = "retrofit"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a gate can stand.

    Attributes:
        name: dotted path of the module behind which it stands, the innermost of those that return the same.
        aliases: all of these; of a gated place all modules of the layer and the gate.
        kind: whether a layer or a residual sum ends there.
        shape: (C, H, W) of what the module returns.
        closes_block, gated: see `luthier.graph.sites.Site`.
        closes_stage: it closes the last block before the map changes its size.
    """

    name: str
    aliases: tuple[str, ...]
    kind: SiteKind
    shape: tuple[int, int, int]
    closes_block: bool
    closes_stage: bool
    gated: bool


@dataclass(frozen=True, kw_only=True)
class Insertion(Spec):
    """One gate: everything that is needed to put it in again.

    Attributes:
        path: of the module behind which it stands.
        channels: that it rescales.
        attention: what it is; its `place` and `gate` are not used.
        gate: the squashing function; the last two of `GateFunction` are 1 at 0.
    """

    path: str
    channels: int
    attention: Attention
    gate: GateFunction = "double_sigmoid"

    @property
    def reduced(self) -> int | None:
        """Width between the two layers; None where the kind has none."""
        if self.attention.kind not in REDUCED:
            return None
        return self.attention.reduced(self.channels, self.channels)


def find_places(module: nn.Module, input_shape: Sequence[int]) -> tuple[Place, ...]:
    """Every place of a network, in the order in which it runs.

    Args:
        module: any; it is traced in evaluation mode and not changed.
        input_shape: (N, C, H, W).
    Raises:
        GraphError: it cannot be traced.
        InputError: it has no place.
    Example:
        >>> layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU()]
        >>> [(p.name, p.shape, p.closes_stage) for p in find_places(nn.Sequential(*layers), (1, 3, 12, 12))]
        [('1', (8, 10, 10), True), ('4', (16, 3, 3), True)]
    """
    graph, _, calls = with_calls(module, input_shape)
    places: list[Place] = []
    for site in find_sites(graph):
        tensors = (*site.tensors, site.result)
        found = [calls[tensor] for tensor in tensors if tensor in calls]
        paths = () if not found else tuple(chain(*found)) if site.gated else found[-1]
        if paths and not places_at(places, paths[-1]):
            places.append(Place(
                name=paths[-1], aliases=paths, kind=site.kind, shape=site.shape[1:],
                closes_block=site.closes_block, closes_stage=False, gated=site.gated,
            ))  # fmt: skip
    if not places:
        raise InputError(
            f"{type(module).__name__}: holds no convolution behind which attention could stand; "
            "it must write a map of several pixels, in a module of its own"
        )
    last = {place.shape[1:]: place.name for place in places if place.closes_block}
    return tuple(replace(place, closes_stage=place.name in last.values()) for place in places)


def places_at(places: Sequence[Place], name: str) -> list[Place]:
    """The place that a module's path names, if any."""
    return [place for place in places if name in place.aliases]


def choose_places(places: Sequence[Place], words: Sequence[str]) -> tuple[Place, ...]:
    """The places that a user named, in the network's order.

    Args:
        places: of `find_places`.
        words: names, or one of `SETS`: `block` every end of a block, `stage` the last of each size of the map, `auto`
            blocks where there are residual or inverted ones, else stages.  Of these, gated places are left out.
    Raises:
        InputError: no such place, or it carries attention already.
    """
    if len(words) == 1 and words[0] in SETS:
        plain = all(place.closes_block for place in places if place.kind == "layer")
        by_stage = words[0] == "stage" or (words[0] == "auto" and plain)
        wanted = [place for place in places if (place.closes_stage if by_stage else place.closes_block)]
        free = tuple(place for place in wanted if not place.gated)
        if not free:
            raise InputError(
                f"--places {words[0]}: the network carries attention at all {len(wanted)} of them already; "
                f"name others: {', '.join(place.name for place in places if not place.gated) or 'there are none'}"
            )
        return free
    chosen: list[Place] = []
    for word in words:
        found = places_at(places, word)
        if not found:
            valid = ", ".join(place.name for place in places)
            raise InputError(f"--places {word}: no such place; valid are {', '.join(SETS)} (alone), {valid}")
        if found[0].gated:
            free_names = ", ".join(place.name for place in places if not place.gated)
            raise InputError(f"--places {word}: carries attention already; free are {free_names or 'none'}")
        chosen += [place for place in found if place not in chosen]
    return tuple(place for place in places if place in chosen)


def light_attention(kind: AttentionKind, reduction: int = 16) -> Attention:
    """The usual form of a kind, C / reduction wide inside, at least 1."""
    return Attention(kind=kind, ratio=1 / reduction, reference="gated", rounding="half_up", activation=_INNER)


def insertion(place: Place, attention: Attention, gate: GateFunction = "double_sigmoid") -> Insertion:
    """A gate at a place.

    Raises:
        ShapeError: the width inside would be less than 1, or more than the place has channels.
    """
    channels = place.shape[0]
    if attention.kind in REDUCED:
        reduced = attention.reduced(channels, channels)
        if attention.reduced_channels is None and attention.ratio * channels < 1:
            raise ShapeError(
                f"{place.name}: reduction {1 / attention.ratio:g} must be at most its {channels} channels; "
                "lower it or choose other places"
            )
        if reduced > channels:
            raise ShapeError(f"{place.name}: width {reduced} must be at most its {channels} channels")
    return Insertion(path=place.name, channels=channels, attention=attention, gate=gate)


class _Behind:
    """A forward hook that sends a module's result through a gate; a copy of the network copies both together."""

    def __init__(self, gate: nn.Module) -> None:
        self.gate = gate

    def __call__(self, module: nn.Module, args: object, output: Tensor) -> Tensor:
        gated: Tensor = self.gate(output)
        return gated


class _Gates(nn.ModuleList):
    """The gates of a network, in the order of their insertion; called by a network that runs its children in turn."""

    def forward(self, x: Tensor) -> Tensor:
        """x itself."""
        return x


def attach(module: nn.Module, insertions: Sequence[Insertion]) -> nn.Module:
    """A copy of a network with gates, each neutral at first; those that it has stay.

    The first layers are drawn from torch's global random state.

    Raises:
        InputError: the module cannot be copied, or has no part of a path.
    """
    try:
        module = copy.deepcopy(module)
    except Exception as error:  # a user's module may hold anything
        raise InputError(f"{type(module).__name__}: cannot be copied ({str(error).splitlines()[0][:160]})") from None
    gates = gates_of(module)
    if gates is None:
        gates = _Gates()
        module.add_module(_free_name(module), gates)
    for one in insertions:
        try:
            target = module.get_submodule(one.path)
        except AttributeError:
            raise InputError(f"{type(module).__name__}: has no part {one.path!r} to put a gate behind") from None
        gate = make_attention(one.attention, one.channels, in_channels=one.channels, activation=_INNER, gate=one.gate)
        gate.start_neutral()
        weight = next((p for p in (*target.parameters(), *module.parameters()) if p.is_floating_point()), None)
        gate = gate if weight is None else gate.to(device=weight.device, dtype=weight.dtype)
        gates.append(gate.train(module.training))
        target.register_forward_hook(_Behind(gate))
    return module


def insert(
    module: nn.Module,
    places: Sequence[Place],
    spec: Attention | Sequence[Attention],
    *,
    gate: GateFunction = "double_sigmoid",
) -> nn.Module:
    """A copy of a network with attention at places; it computes the same, bit for bit, until it is trained.

    Args:
        module: any network of images.
        places: of `find_places`.
        spec: the same for all places, or one for each, see `light_attention`.
        gate: equation (1).
    Raises:
        ShapeError: see `insertion`.
        InputError: see `attach`.
    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU()).eval()
        >>> gated = insert(net, find_places(net, (1, 3, 8, 8)), light_attention("se", 8))
        >>> x = torch.randn(2, 3, 8, 8)
        >>> torch.equal(gated(x), net(x)), sorted(set(gated.state_dict()) - set(net.state_dict()))[0]
        (True, 'retrofit.0.expand.bias')
    """
    specs = [spec] * len(places) if isinstance(spec, Attention) else list(spec)
    return attach(module, [insertion(place, one, gate) for place, one in zip(places, specs, strict=True)])


def gates_of(module: nn.Module) -> nn.ModuleList | None:
    """The gates that `attach` put in; None where it did not."""
    return next((part for part in module.children() if isinstance(part, _Gates)), None)


def gate_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of all gates that were put in."""
    gates = gates_of(module)
    return [] if gates is None else list(gates.parameters())


@contextmanager
def without(module: nn.Module, numbers: Sequence[int]) -> Iterator[None]:
    """In the block, the gates of these numbers hand on what they are given.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3))
        >>> gated = insert(net, find_places(net, (1, 3, 8, 8)), light_attention("eca"))
        >>> torch.nn.init.ones_(gates_of(gated)[0].conv.weight).shape
        torch.Size([1, 1, 3])
        >>> x = torch.randn(1, 3, 8, 8)
        >>> with without(gated, [0]):
        ...     same = torch.equal(gated(x), net(x))
        >>> same, torch.equal(gated(x), net(x))
        (True, False)
    """
    gates = gates_of(module)
    assert gates is not None
    silenced = [gates[number] for number in numbers]
    for gate in silenced:
        gate.__dict__["forward"] = _same
    try:
        yield
    finally:
        for gate in silenced:
            del gate.__dict__["forward"]


def _same(x: Tensor) -> Tensor:
    return x


def _free_name(module: nn.Module) -> str:
    name = _GATES
    while hasattr(module, name):
        name += "_"
    return name
