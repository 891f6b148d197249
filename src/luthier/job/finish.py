"""The end of every run: export, check against torch, measure on this machine, test once, write the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from luthier import files
from luthier.arch import encode
from luthier.arch.network import Network, Placed
from luthier.cost.budget import Budget
from luthier.cost.summary import Cost, cost
from luthier.deploy.latency import Latency, measure_latency, open_session
from luthier.deploy.onnx_file import OnnxCheck, check_onnx, to_onnx
from luthier.errors import ExportError
from luthier.graph.fold import fold_constants, fold_norm_into_conv, take_constants
from luthier.graph.from_network import from_network
from luthier.graph.op import Graph
from luthier.intervals import wilson
from luthier.job.candidates import Member
from luthier.job.folder import RunFolder
from luthier.job.request import option
from luthier.job.result import Data, Layer, Limit, Winner
from luthier.train.results import Epoch
from luthier.train.source import Splits


def describe(splits: Splits) -> Data:
    """The images of a run, as the report shows them."""
    return Data(
        origin=splits.origin,
        class_names=splits.class_names,
        num_train=len(splits.train),
        num_val=len(splits.val),
        num_test=len(splits.test),
        image_hw=splits.image_hw,
        notes=splits.notes + tuple(f"skipped: {name}" for name in splits.skipped),
        fingerprint=splits.fingerprint,
    )


def export(folder: RunFolder, network: Network, module: Any, preprocess_json: str, images: Any) -> OnnxCheck:
    """Write `network.json`, `model.safetensors`, `preprocess.json` and `model.onnx`, and check the last against torch.

    Args:
        module: trained, in evaluation mode, on the CPU.
        preprocess_json: what the file's users must do to an image first.
        images: (N, C, H, W) float32 tensor, normalised; both must give the same logits for them.
    Raises:
        ExportError: the two disagree; `model.onnx` is not written.
    """
    state = {key: value.detach().cpu().numpy() for key, value in module.state_dict().items()}
    graph = from_network(network)
    weights = fold_constants(graph, take_constants(graph, state))
    files.write_text(folder.network, encode.to_json(network))
    return write_model(folder, fold_norm_into_conv(graph), weights, module, preprocess_json, images, network.name)


def write_model(
    folder: RunFolder, graph: Graph, constants: Mapping[str, Any], module: Any, preprocess_json: str, images: Any,
    name: str,
) -> OnnxCheck:  # fmt: skip
    """Write `model.safetensors`, `preprocess.json` and `model.onnx`, and check the last against torch.

    Args:
        graph: of the module, norms folded.
        constants: its values.
        preprocess_json: empty = not written.
        images: (N, C, H, W) float32 tensor, normalised.
        name: of the network, for people.
    Raises:
        ExportError: the two disagree; `model.onnx` is not written.
    """
    import torch
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in module.state_dict().items()}
    files.write_bytes(folder.weights, save(tensors, metadata={"format": "luthier", "network": name}))
    metadata = {"preprocess": preprocess_json} if preprocess_json else {}
    if preprocess_json:
        files.write_text(folder.preprocess, preprocess_json)
    document = to_onnx(graph, constants, metadata)
    with torch.no_grad():
        logits = module(images).float().numpy()
    check = check_onnx(open_session(document), images.numpy(), logits)
    if not check.agrees:
        raise ExportError(
            f"{folder.onnx}: not written, it differs from torch by {check.max_abs_error:.3g} "
            f"where logits reach {check.scale:.3g}"
        )
    files.write_bytes(folder.onnx, document)
    return check


def limits(budget: Budget, final: Member, latency: Latency) -> tuple[Limit, ...]:
    """What was asked and what came out: the same quantities by which candidates were left out, latency measured.

    Of a target that is not this machine, latency and energy are modelled.
    """
    price = final.cost
    modelled_s = final.target_latency_s
    values: dict[str, tuple[Any, float | None, Any]] = {
        "max_latency_s": ("latency", latency.median_s, "measured")
        if modelled_s is None
        else ("latency", modelled_s, "modelled"),
        "max_energy_j": ("energy", final.energy_j, "modelled"),
        "max_memory_bytes": ("bytes", price.peak_activation_bytes, "modelled"),
        "max_size_bytes": ("bytes", price.weight_bytes, "modelled"),
        "max_macs": ("count", price.macs, "modelled"),
        "max_params": ("count", price.params, "modelled"),
    }
    return tuple(
        Limit(
            option(name),
            dimension,
            float(limit),
            float(value),
            kind,
        )
        for name, limit in budget.limits()
        for dimension, value, kind in (values[name],)
        if value is not None
    )


def winner(
    folder: RunFolder,
    network: Network,
    check: OnnxCheck,
    latency: Latency,
    history: Sequence[Epoch],
    confusion: np.ndarray[Any, Any],
) -> Winner:
    """Everything about the network that was trained to the end."""
    price = cost(network)
    total = int(confusion.sum())
    right = int(np.trace(confusion))
    return Winner(
        name=network.name,
        network_json=encode.to_json(network),
        params=price.params,
        macs=price.macs,
        peak_activation_bytes=price.peak_activation_bytes,
        size_bytes=folder.onnx.stat().st_size,
        latency_s=latency.median_s,
        latency_spread_s=latency.spread_s,
        latency_runtime=latency.runtime,
        test_accuracy=right / total,
        test_interval=wilson(right / total, total),
        val_accuracy=max(point.val_accuracy for point in history),  # of the epoch whose weights are kept
        onnx_max_abs_error=check.max_abs_error,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        history=tuple(history),
        layers=layers(network, price),
    )


def layers(network: Network, price: Cost) -> tuple[Layer, ...]:
    """One row per block, the head last."""
    placed = {p.name: p for p in network.walk()}
    return tuple(
        Layer(
            name=block.name,
            kind=placed[block.name].block.kind if block.name in placed else "head",
            text=_words(placed[block.name]) if block.name in placed else f"{network.head.num_classes} classes",
            output_chw=tuple(block.out_shape[1:]),
            params=block.params,
            macs=block.macs,
            peak_activation_bytes=block.peak_activation_bytes,
        )
        for block in price.per_block
    )


def _words(placed: Placed) -> str:
    block = placed.block
    parts = [f"{block.kernel_size}x{block.kernel_size}"]
    if block.stride > 1:
        parts.append(f"stride {block.stride}")
    if placed.inner_channels != placed.in_channels and block.kind != "conv":
        parts.append(f"{placed.in_channels} -> {placed.inner_channels} -> {block.out_channels}")
    if block.attention is not None:
        parts.append(f"{block.attention.kind} {block.attention.place.replace('_', ' ')}")
    return ", ".join([*parts, placed.activation])


def measure(folder: RunFolder, threads: int) -> Latency:
    """Latency of the exported file on this machine."""
    return measure_latency(folder.onnx, threads=threads, budget_s=2.0)
