"""The labs by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Final

from luthier.errors import InputError
from luthier.lab.experiment import Experiment, Order

Builder = Callable[[Order], Experiment]

#: name -> (module with a function `build`, what is asked)
LABS: Final = {
    "scaling": ("luthier.lab.scaling", "depth, width, resolution, or all together: which way of growing gains most?"),
    "retrofit": ("luthier.lab.retrofit", "VGG and ResNet with SE, ECA, CBAM: what does attention buy, at what price?"),
    "reduction": ("luthier.lab.reduction", "squeeze-and-excitation under a budget of MACs: which reduction r?"),
    "attention_search": ("luthier.lab.attention_search", "which attention, early or late, under a limit on latency?"),
    "light": ("luthier.lab.light", "SE against ECA at equal measured time, where compute is scarcest"),
    "placement": ("luthier.lab.placement", "SE before or behind the depthwise convolution, in fp32, 8 and 4 bits"),
    "scene_order": ("luthier.lab.scene_order", "hyperspectral: filter every band, then mix, or mix, then filter?"),
    "energy": ("luthier.lab.energy", "FP16, W8A16 in depthwise layers, INT8: joules by layer, and accuracy"),
}


@lru_cache(maxsize=4)
def build(order: Order) -> Experiment:
    """The experiment that is asked for; the same object for equal orders in one process.

    Raises:
        InputError: no lab of that name; data that the lab needs are missing.
    """
    if order.name not in LABS:
        raise InputError(f"lab: NAME must be one of {', '.join(LABS)}, got {order.name!r}")
    builder: Builder = import_module(LABS[order.name][0]).build
    return builder(order)
