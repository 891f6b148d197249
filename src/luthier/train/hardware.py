"""Where training runs: one value that says it, and the Lightning Fabric that does it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, cast, get_args

import torch
from lightning_fabric import Fabric
from torch import nn

from luthier.errors import InputError
from luthier.train.cpu_bf16 import cpu_trains_in_bf16
from luthier.train.recipe import TrainPrecision

Accelerator = Literal["auto", "cpu", "cuda"]
_BF16_PX: Final = 32


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machines that train; not the device that the network is for.

    Attributes:
        accelerator: `auto` takes a GPU where there is one.
        devices: processes on each node; on the CPU each is a process of its own.
        num_nodes: machines.
        strategy: Lightning Fabric's; `auto` = one process, or data parallel over several.
    Raises:
        InputError: an unknown accelerator, or a count below 1.
    """

    accelerator: Accelerator = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        if self.accelerator not in get_args(Accelerator):
            raise InputError(f"--accelerator: must be one of auto, cpu, cuda, got {self.accelerator!r}")
        if min(self.devices, self.num_nodes) < 1:
            raise InputError(f"--devices, --num-nodes: must be at least 1, got {self.devices}, {self.num_nodes}")
        if self.accelerator == "cuda" and not torch.cuda.is_available():
            raise InputError("--accelerator: cuda was asked for, but torch finds no CUDA device; use cpu or auto")


@lru_cache(maxsize=8)
def open_fabric(hardware: Hardware, precision: TrainPrecision) -> Fabric:
    """The Fabric of this process, launched; the same one for equal arguments.

    With several devices the first call starts the other processes, which run this program from its beginning.
    """
    accelerator = hardware.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    several = hardware.devices * hardware.num_nodes > 1
    strategy = "ddp" if hardware.strategy == "auto" and several else hardware.strategy
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its greetings are no news to the user
    fabric = Fabric(
        accelerator=accelerator,
        devices=hardware.devices,
        num_nodes=hardware.num_nodes,
        strategy=strategy,
        precision=precision,
    )
    fabric.launch()
    return fabric


def fastest_precision(accelerator: Accelerator = "auto", resolution: int = 224) -> TrainPrecision:
    """bf16 where the hardware multiplies it, else fp32.

    MBConv networks at 32 px and above gain a third on CPUs with AMX; on smaller images the casts cost what the
    products save.
    """
    if accelerator != "cpu" and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    return "bf16-mixed" if resolution >= _BF16_PX and cpu_trains_in_bf16() else "32-true"


def all_sum(fabric: Fabric, tensor: torch.Tensor) -> torch.Tensor:
    """Sum of the processes' tensors, known to all of them."""
    if fabric.world_size == 1:
        return tensor
    return cast(torch.Tensor, fabric.all_reduce(tensor, reduce_op="sum"))


def single_process(module: nn.Module) -> Fabric:
    """A Fabric in fp32 on the device where the module is."""
    on_gpu = any(tensor.is_cuda for tensor in module.state_dict().values())
    return open_fabric(Hardware(accelerator="cuda" if on_gpu else "cpu"), "32-true")
