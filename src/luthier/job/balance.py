"""`luthier scale MODEL --diagnose`: are depth, width and resolution in balance with each other and with the images?

A layer is unproductive where what it reads already exceeds the image on every path: its window shows it nothing new
(Richter et al. 2021, arXiv:2106.12307).  Resolution is unused where no pixel of the last map sees all of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from luthier.arch.network import Network
from luthier.cost.receptive_field import LayerField, layer_fields, receptive_fields
from luthier.errors import InputError
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph
from luthier.job.resolve import described, resolve_graph
from luthier.job.results import Balance

if TYPE_CHECKING:
    from luthier.nn.build import Classifier
    from luthier.nn.results import BlockUse

#: images that are run: enough for covariances of some hundred channels, since every pixel of a map counts
IMAGES: Final = 64
#: pixels of a batch, so that all its maps fit into memory
_BATCH_PIXELS: Final = 16 * 96 * 96
#: effective rank over width: below, a block's width is hardly used; above, it is used up
_IDLE, _FULL = 0.4, 0.75


def diagnose(
    model: str, *, resolution: int | None = None, images: str | None = None, object_px: int | None = None,
    pretrained: str | None = None,
) -> Balance:  # fmt: skip
    """Hold fields and widths against the input.

    Args:
        model: what `luthier.job.resolve.resolve_graph` takes; to be run on images it must be a network of ours.
        resolution: side of the input in pixels; None = the model's own.
        images: see `luthier.train.data.load_data`; None = theory only.
        object_px: side of what is to be recognised, in pixels of the input.
        pretrained: weights to run; None = a run folder's own, else random ones.
    Raises:
        InputError: the model, the images or the weights cannot be used; one line.
    """
    network = described(model)
    if network is None:
        if images is not None or pretrained is not None:
            raise InputError(
                f"--images, --pretrained: run networks of ours, got {model}; leave them out for the theory"
            )
        graph, _ = resolve_graph(model, resolution=resolution)
    else:
        network = network if resolution is None else replace(network, resolution=resolution)
        graph = from_network(network)
    _, _, height, width = graph.tensors[graph.inputs[0]].shape
    layers = layer_fields(graph)
    if not layers:
        raise InputError(f"{model}: no convolution or pool reads the image, so there is no field to speak of")
    weights, said = "", ""
    uses: tuple[BlockUse, ...] = ()
    if network is not None and images is not None:
        weights, said, uses = _run(model, network, graph, images, pretrained)
    elif pretrained is not None:
        raise InputError(f"--pretrained {pretrained}: weights change only what is run; add --images DATA")
    return Balance(
        model=model, image_hw=(height, width), object_px=object_px, layers=layers, weights=weights, images=said,
        uses=uses, advice=advise(layers, uses, (height, width), object_px),
    )  # fmt: skip


def block_centres(graph: Graph) -> dict[str, tuple[float, float]]:
    """Of every block the middle of the field of its map's middle pixel, as (row, column) of the image."""
    fields = receptive_fields(graph, gates=False)
    found = {}
    for op in graph.ops:
        shape = graph.output_shape(op)
        path = fields.get(op.outputs[0])
        if path is not None and len(shape) == 4 and path.widest[0].jump > 0:
            h, w = path.widest
            found[op.block] = (h.centre(shape[2] // 2), w.centre(shape[3] // 2))
    return found


def advise(
    layers: Sequence[LayerField], uses: Sequence[BlockUse], image_hw: tuple[int, int], object_px: int | None
) -> tuple[str, ...]:
    """Plain sentences, each with its numbers."""
    windows = [layer for layer in layers if max(layer.window) > 1] or list(layers)
    found = [*_depth(windows, image_hw), *_resolution(windows, image_hw)]
    if object_px is not None:
        found += _object(windows, object_px)
    return (*found, *_effective(windows, uses, image_hw, object_px), *_width(uses))


def _depth(windows: Sequence[LayerField], image_hw: tuple[int, int]) -> list[str]:
    side = min(image_hw)
    surely = [layer for layer in windows if layer.beyond(image_hw)]
    partly = [layer for layer in windows if layer.beyond(image_hw, on_widest=True) and layer not in surely]
    found = []
    if surely:
        needed = ceil(max(min(layer.entering) for layer in surely))
        blocks = len({layer.block for layer in surely})
        found.append(
            f"depth: {len(surely)} of {len(windows)} layers with a window, from {surely[0].name} on, read more than "
            f"the {side} px image on every path and see nothing new; {needed} px (gamma {needed / side:.2f}) would "
            f"give them something to see, or take {blocks} block{'s' * (blocks > 1)} out"
        )
    if partly:
        found.append(
            f"depth: {len(partly)} {'more' if surely else f'of {len(windows)}'} layers, from {partly[0].name} on, "
            f"exceed the {side} px image on their widest path, and see anew only what came along shortcuts; further "
            "depth widens nothing"
        )
    return found or [f"depth: every layer with a window reads less than the {side} px image"]


def _resolution(windows: Sequence[LayerField], image_hw: tuple[int, int]) -> list[str]:
    side, field = max(image_hw), int(max(min(layer.field) for layer in windows))
    if field >= side:
        return [f"resolution: the widest field, {field} px, holds the {side} px image"]
    last = max(windows, key=lambda layer: min(layer.field))
    # a further layer like the widest one adds (window - 1) * jump pixels, at that layer's own jump
    step = (max(last.window) - 1) * max(last.jump)
    return [
        f"resolution: no pixel of the last map sees more than {field} of {side} px; what lies farther apart meets only "
        f"in the average. {ceil((side - field) / step)} more layers like {last.name}, or {field} px (gamma "
        f"{field / side:.2f}), close the gap"
    ]


def _object(windows: Sequence[LayerField], object_px: int) -> list[str]:
    whole = next((layer for layer in windows if min(layer.field) >= object_px), None)
    beyond = [layer for layer in windows if layer.beyond((object_px, object_px))]
    pixels = object_px / max(windows[-1].jump)
    found = [f"object: {object_px} px are {pixels:.1f} pixels of the last map on a side"]
    if whole is None:
        found[0] += "; no layer sees it whole: more depth, or a smaller picture of it"
    else:
        found[0] += f"; {whole.name} is the first layer that can see it whole"
    if beyond:
        found.append(f"object: {len(beyond)} layers, from {beyond[0].name} on, add only what stands around it")
    return found


def _effective(
    windows: Sequence[LayerField], uses: Sequence[BlockUse], image_hw: tuple[int, int], object_px: int | None
) -> list[str]:
    if not uses:
        return []
    last, side = uses[-1], min(image_hw)
    theory = min(int(max(min(layer.field) for layer in windows)), side)
    used = min(last.effective_px, theory)  # a square about a pixel off the middle reaches past the image
    found = [
        f"field in use: 95 % of what moves {last.name} comes from {used} px, "
        f"{100 * used / theory:.0f} % of the {theory} px that it can see"
    ]
    if object_px is not None and used < object_px:
        found.append(f"field in use: that is less than the {object_px} px of the object")
    return found


def _width(uses: Sequence[BlockUse]) -> list[str]:
    wide = [use for use in uses if use.channels > 1]
    idle = [use for use in wide if use.effective_rank < _IDLE * use.channels]
    full = [use for use in wide if use.effective_rank > _FULL * use.channels]

    def said(use: BlockUse) -> str:
        return f"{use.name} varies in {use.effective_rank:.0f} of {use.channels} directions"

    found = []
    if idle:
        least = min(idle, key=lambda use: use.effective_rank / use.channels)
        found.append(
            f"width: {len(idle)} of {len(wide)} blocks use less than {100 * _IDLE:.0f} % of theirs; {said(least)}"
        )
    if full:
        most = max(full, key=lambda use: use.effective_rank / use.channels)
        found.append(
            f"width: {len(full)} of {len(wide)} blocks use more than {100 * _FULL:.0f} % of theirs; {said(most)}: they "
            "gain first from a larger beta"
        )
    if wide and not found:
        found.append(f"width: every block varies in {100 * _IDLE:.0f} to {100 * _FULL:.0f} % of its directions")
    return found


def _run(
    model: str, network: Network, graph: Graph, images: str, pretrained: str | None
) -> tuple[str, str, tuple[BlockUse, ...]]:
    """Where the weights come from, what was run, and what every block made of it."""
    import torch

    from luthier.nn.build import build
    from luthier.nn.effective import block_uses
    from luthier.train.data import load_data
    from luthier.train.transforms import make_transforms

    splits = load_data(images)
    if network.in_channels != splits.in_channels:
        raise InputError(f"MODEL {network.name}: in_channels must be 3 for images, got {network.in_channels}")
    torch.manual_seed(0)
    module = build(network)
    weights = _fill(module, model, pretrained)
    (r, g, b), (dr, dg, db) = network.input_mean, network.input_std
    transform = make_transforms(
        network.resolution, train=False, native_hw=splits.image_hw, mean=(r, g, b), std=(dr, dg, db)
    )
    # spread over the validation images: a trained network has not fitted them
    count = min(IMAGES, len(splits.val))
    rows = [index * len(splits.val) // count for index in range(count)]
    size = max(2, _BATCH_PIXELS // network.resolution**2)
    batches = (
        torch.stack([transform(splits.val.image(row)) for row in rows[at : at + size]]) for at in range(0, count, size)
    )
    return weights, f"{count} validation images of {splits.origin}", block_uses(module, batches, block_centres(graph))


def _fill(module: Classifier, model: str, pretrained: str | None) -> str:
    from luthier.nn.pretrained import load_pretrained

    own = Path(model) / "model.safetensors"
    source = pretrained or (str(own) if own.is_file() else None)
    if source is None:
        return "random, as initialised"
    load_pretrained(module, source)
    return source
