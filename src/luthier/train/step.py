"""One optimizer step: forward, backward, clip, update, average; and the optimizer that it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from timm.data.mixup import Mixup
from timm.optim._optim_factory import create_optimizer_v2
from torch import nn
from torch.optim import Optimizer

from luthier.errors import InputError
from luthier.train.cpu_bf16 import strided_depthwise_in_fp32
from luthier.train.ema import Ema
from luthier.train.metrics import place
from luthier.train.recipe import Recipe

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]
Mix: TypeAlias = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_OPTIMIZERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "sgd": ("sgd", {"momentum": 0.9, "fused": True}),
    "adamw": ("adamw", {"fused": True}),
    "rmsprop": ("rmsproptf", {"momentum": 0.9, "eps": 1e-3}),
}
_CLASSIFIERS: Final = ("head.classifier.", "classifier.", "fc.", "head.fc.")


class Stepper:
    """A module with all that a training step changes.

    Attributes:
        module: as the caller built it, now on the device; its weights are updated in place.
        optimizer: of `recipe`.
        ema: moving average, or None.
        fabric: hardware and precision.
        identity: what else a checkpoint must agree on, name -> text.
        fused: whether one kernel updates all weights, which needs a gradient for each of them in every step.
    """

    identity: Mapping[str, str] = MappingProxyType({})
    fused: bool = True

    def __init__(self, module: nn.Module, recipe: Recipe, fabric: Fabric, num_classes: int) -> None:
        self.recipe, self.fabric = recipe, fabric
        regularise(module, recipe.dropout, recipe.drop_path)
        if recipe.channels_last:
            module.to(memory_format=torch.channels_last)
        module.train()
        self._model, self.optimizer = fabric.setup(module, make_optimizer(module, recipe, fused=self.fused))
        self.module = module
        self.ema = Ema(module, recipe.ema_decay) if recipe.ema_decay is not None else None
        self._mix = make_mix(recipe, num_classes)

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """Surrounds all steps: the fastest choice among equal kernels, undone behind."""
        on_cpu = self.fabric.device.type == "cpu"
        # subnormal numbers take a hundred cycles each; the rest of the program may want them
        torch.set_flush_denormal(True)
        try:
            with strided_depthwise_in_fp32(self.module, on_cpu and self.recipe.precision == "bf16-mixed"):
                yield
        finally:
            torch.set_flush_denormal(False)

    @property
    def evaluated(self) -> nn.Module:
        """The module whose weights are judged and kept."""
        return self.module if self.ema is None else self.ema.module

    def step(self, batches: Sequence[Batch], learning_rate: float, seed: Iterable[int]) -> tuple[torch.Tensor, int]:
        """Update the weights once from `batches`, one for each accumulated pass.

        Args:
            batches: images (B, 3, H, W) and labels (B,), all of one size.
            learning_rate: of the classifier; other weights take their part of it.
            seed: numbers that fix dropout and mixing; no generator's state is carried from step to step, so that a
                resumed training draws what an uninterrupted one would have drawn.
        Returns:
            (sum over the images of their loss, as a tensor on the device; number of images).
        """
        set_seed(seed)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["lr_scale"]
        total = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        images_seen = 0
        for index, (images, labels) in enumerate(batches):
            images = place(images, self.fabric.device, self.recipe.channels_last)
            targets = labels.to(self.fabric.device, non_blocking=True)
            smoothing = self.recipe.label_smoothing
            if self._mix is not None:
                images, targets = self._mix(images, targets)
                smoothing = 0.0
            with self.fabric.no_backward_sync(self._model, enabled=index + 1 < len(batches)):
                loss = self.loss(images, targets, smoothing)
                self.fabric.backward(loss / len(batches))
            total += loss.detach() * len(labels)
            images_seen += len(labels)
        if self.recipe.gradient_clip is not None:
            self.fabric.clip_gradients(
                self._model, self.optimizer, max_norm=self.recipe.gradient_clip, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        return total, images_seen

    def loss(self, images: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
        """Mean over the images of what the step lowers: here the cross entropy.

        Args:
            images: (B, 3, H, W), on the device.
            targets: labels (B,), or distributions (B, K).
            smoothing: of the labels.
        """
        return F.cross_entropy(self._model(images).float(), targets, label_smoothing=smoothing)

    def agree_on_buffers(self) -> None:
        """Replace every floating-point buffer by its mean over the processes; each saw other images."""
        if self.fabric.world_size == 1:
            return
        for module in (self.module, *((self.ema.module,) if self.ema else ())):
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.fabric.all_reduce(buffer, reduce_op="mean"))

    def state(self) -> dict[str, Any]:
        """Tensors and numbers that `load_state` brings back exactly."""
        average = None if self.ema is None else {"step": self.ema.step, "module": self.ema.module.state_dict()}
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "ema": average}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"]["module"])
            self.ema.step = state["ema"]["step"]


#: a module, its recipe, the hardware and the number of classes to a `Stepper`
StepperOf: TypeAlias = Callable[[nn.Module, Recipe, Fabric, int], Stepper]


def make_optimizer(module: nn.Module, recipe: Recipe, *, fused: bool = True) -> Optimizer:
    """The recipe's optimizer: no decay on biases and norms, a smaller rate on all but the classifier."""
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        decays, is_classifier = parameter.ndim > 1, name.startswith(_CLASSIFIERS)
        group = groups.setdefault(
            (decays, is_classifier),
            {
                "params": [],
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "lr_scale": 1.0 if is_classifier else recipe.backbone_scale,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise InputError("train: the network has no weights to train; set requires_grad")
    name, options = _OPTIMIZERS[recipe.optimizer]
    if recipe.precision == "16-mixed" or not fused:
        # a fused optimizer unscales gradients inside its step, where clipping comes too late
        options = {key: value for key, value in options.items() if key != "fused"}
    return create_optimizer_v2(list(groups.values()), opt=name, lr=recipe.learning_rate, **options)


def make_mix(recipe: Recipe, num_classes: int) -> Mix | None:
    """Mixup and CutMix: (images, labels (B,)) -> (mixed images, targets (B, K), each row a distribution).

    Source:
        Zhang et al. 2018, arXiv:1710.09412 (mixup); Yun et al. 2019, arXiv:1905.04899 (CutMix).
    """
    if not (recipe.mixup or recipe.cutmix):
        return None
    mix: Mix = Mixup(  # type: ignore[no-untyped-call]  # timm has no types here
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )
    return mix


def regularise(module: nn.Module, dropout: float | None, drop_path: float | None) -> None:
    """Set the rates of layers that exist: `nn.Dropout` to `dropout`, the i-th of n stochastic-depth layers to

        drop_path * (i + 1) / n                                                                   (1)

    A layer of stochastic depth is one with a number called `drop_prob` (timm) or a torchvision `StochasticDepth`.

    Source:
        Huang et al. 2016, arXiv:1603.09382 (the linear rule).
    """
    if dropout is not None:
        for layer in module.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = dropout
    if drop_path is not None:
        paths: list[Any] = [
            m for m in module.modules() if hasattr(m, "drop_prob") or type(m).__name__ == "StochasticDepth"
        ]
        for index, layer in enumerate(paths):
            setattr(layer, "drop_prob" if hasattr(layer, "drop_prob") else "p", drop_path * (index + 1) / len(paths))


def set_seed(numbers: Iterable[int]) -> None:
    """Seed torch (all devices) and NumPy's global generator, which timm's Mixup draws from."""
    words = np.random.SeedSequence(tuple(numbers)).generate_state(3, np.uint32)
    torch.manual_seed((int(words[0]) << 31) ^ int(words[1]))
    np.random.seed(int(words[2]))
