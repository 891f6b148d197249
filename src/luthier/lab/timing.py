"""Time of one network over another's, both run in turns, so that a slow moment hits both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import nn

_BUDGET_S: Final = 0.5


def time_ratio(module: nn.Module, reference: nn.Module, shape: tuple[int, int, int, int]) -> float:
    """Median time of one image in the engine over the reference's, on one thread.

    Args:
        module, reference: with batch normalisation as trained or not; their numbers do not matter to the time.
        shape: (batch, channel, height, width) of the input of both.
    """
    from luthier.deploy.turns import Opened, open_graph, time_in_turns
    from luthier.graph.fold import fold_constants, fold_norm_into_conv
    from luthier.graph.from_torch import from_torch

    def opened(chosen: nn.Module) -> Opened:
        graph, values = from_torch(chosen.eval(), shape)
        return open_graph(fold_norm_into_conv(graph), fold_constants(graph, values), 1)

    found = time_in_turns(opened(reference), opened(module), shape, budget_s=_BUDGET_S)
    return found.second_s / found.first_s
