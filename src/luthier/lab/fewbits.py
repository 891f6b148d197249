"""What the labs on number types share: a trained module in few bits, judged on the test images, its noise measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from luthier.lab.experiment import Numbers, Place
from luthier.lab.training import transform_of

if TYPE_CHECKING:
    from torch import nn

    from luthier.arch.network import Network
    from luthier.graph.op import Graph
    from luthier.job.noise import Case, Trial
    from luthier.train.recipe import Recipe
    from luthier.train.source import Source, Splits

Array = NDArray[Any]
_BATCH: Final = 32
_CALIBRATION: Final = 256
#: images that noise is told on
_OTHERS: Final = 64


@dataclass(frozen=True)
class Deployed:
    """A trained network as it is quantised.

    Attributes:
        case: its graph and constants in fp32 with norms folded; training images to calibrate on, validation images to
            tell noise on.
        splits: whose test images judge it.
        network: for resolution, mean and deviation.
    """

    case: Case
    splits: Splits
    network: Network

    def tried(self, numbers: str, *, but: str = "", others: str = "") -> Trial:
        """Quantised after training: channels equalised, biases corrected.

        Args:
            numbers: name of the number types, see `luthier.quant.numbers`.
            but: class of ops (`luthier.cost.op_class`) that keeps the types `others`; "" = none.
        """
        from luthier.cost.op_class import op_class
        from luthier.quant.assign import products
        from luthier.quant.numbers import parse_numbers

        graph = self.case.graph
        return self.case.tried({
            op.name: parse_numbers(others if op_class(graph, op) == but else numbers) for op in products(graph)
        })  # fmt: skip

    def accuracy(self, trial: Trial) -> float:
        """On the test images; rounded as the integers are, summed in float32."""
        from luthier.train.qat import Quantized

        return self.judge(Quantized(trial.quantized, trial.values, learn_ranges=False))

    def judge(self, module: nn.Module) -> float:
        """Accuracy of a module on the test images."""
        from luthier.train.metrics import evaluate

        splits = self.splits
        transform = transform_of(self.network, splits)
        return evaluate(module, splits.test, transform=transform, num_classes=splits.num_classes).accuracy

    def retrained(self, trial: Trial, recipe: Recipe, place: Place) -> float | None:
        """Accuracy after quantisation-aware training that starts from the trial; None = it diverged."""
        from luthier.train.hardware import Hardware
        from luthier.train.loop import train
        from luthier.train.qat import Quantized

        module, network = Quantized(trial.quantized, trial.values), self.network
        trained = train(
            module, self.splits, replace(recipe, seed=place.seed), folder=place.folder / "qat",
            resolution=network.resolution, mean=network.input_mean, std=network.input_std,  # type: ignore[arg-type]
            hardware=Hardware(accelerator=place.accelerator), show_progress=False,  # type: ignore[arg-type]
        )  # fmt: skip
        if trained.best is None:
            return None
        module.load_state_dict(dict(trained.state))
        return self.judge(module)

    def noise(self, trial: Trial) -> Numbers:
        """SQNR where blocks end, and what gates do to it, in dB; means over blocks and over gates.

        Returns:
            `block_db` measured; `gate_db` = SQNR behind a gate less that in front of it, measured, and
            `gate_predicted_db`, from fp32 values alone.  Nothing of gates where there are none.
        """
        from luthier.quant.attribute import gates
        from luthier.quant.noise import measure, predict

        graph, images = trial.graph, self.case.fed(self.case.images)
        found, foretold = measure(trial.local, trial.values, images), predict(trial.local, images)
        ops = {op.name: op for op in graph.ops}
        ends = {op.block: op.outputs[0] for op in graph.ops if op.block}
        numbers = {"block_db": _mean([found.sqnr_db(name) for name in ends.values()])}
        gated = [ops[gate.op] for gate in gates(graph, found.signal, found.noise)]
        for key, powers in (("gate_db", found), ("gate_predicted_db", foretold)):
            steps = [powers.sqnr_db(op.outputs[0]) - powers.sqnr_db(op.inputs[0]) for op in gated]
            if steps:
                numbers[key] = _mean(steps)
        return numbers


def _mean(decibels: list[float]) -> float:
    """Of those that are finite: a tensor without noise says nothing."""
    return float(np.mean([db for db in decibels if np.isfinite(db)] or [0.0]))


def deploy(module: nn.Module, network: Network, splits: Splits) -> Deployed:
    """Fold the norms, and prepare the images that quantisation looks at."""
    from luthier.engine import compile as compile_graph
    from luthier.graph.fold import fold_constants, fold_norm_into_conv
    from luthier.graph.from_torch import from_torch
    from luthier.job.noise import Case

    shape = (_BATCH, network.in_channels, network.resolution, network.resolution)
    graph, values = from_torch(module.eval(), shape)
    constants: Mapping[str, Array] = fold_constants(graph, values)
    folded: Graph = fold_norm_into_conv(graph)
    calibration, others = (
        _images(source, count, transform_of(network, splits))
        for source, count in ((splits.train, _CALIBRATION), (splits.val, _OTHERS))
    )
    case = Case(network.name, "trained here", folded, constants, calibration, others, compile_graph)
    return Deployed(case, splits, network)


def _images(source: Source, count: int, transform: Any) -> Array:
    import torch

    rows = range(min(count, len(source)) // _BATCH * _BATCH)
    return np.asarray(transform(torch.stack([source.image(row) for row in rows])).numpy(), np.float32)
