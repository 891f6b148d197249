"""One place where networks become trained modules: built, filled with weights, trained, by the run's own choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from luthier.arch.network import Network
from luthier.errors import InputError
from luthier.job.folder import Clock
from luthier.job.request import Request
from luthier.job.study import Round
from luthier.nn.build import Classifier, build
from luthier.nn.pretrained import load_pretrained
from luthier.train.data import channel_mean_std
from luthier.train.defaults import default_recipe
from luthier.train.hardware import Hardware, open_fabric
from luthier.train.loop import train
from luthier.train.preprocess import Preprocess, preprocess_for
from luthier.train.rate import measure_rate
from luthier.train.recipe import Recipe
from luthier.train.results import Epoch, Trained
from luthier.train.source import Splits
from luthier.train.transforms import ImageTransform, make_transforms

Say = Callable[[str], None]


@dataclass(frozen=True)
class Session:
    """What all trainings of one run share.

    Attributes:
        say: one line for the user, on stderr.
        known: trainings that other runs have finished, by their keys (`luthier.job.trials`).
    """

    request: Request
    splits: Splits
    clock: Clock
    say: Say
    known: Mapping[str, Round] = field(default_factory=dict)

    @property
    def hardware(self) -> Hardware:
        """Where training runs."""
        asked = self.request
        return Hardware(
            accelerator=asked.accelerator,  # type: ignore[arg-type]  # Hardware checks the word
            devices=asked.devices,
            num_nodes=asked.num_nodes,
        )

    def follows(self, network: Network) -> bool:
        """Start the other processes, if several were asked for; True in all but the first, which alone writes."""
        if self.hardware.devices * self.hardware.num_nodes == 1:
            return False
        return not open_fabric(self.hardware, self.recipe(network, epochs=1).precision).is_global_zero

    def check(self, network: Network) -> None:
        """Refuse hardware or weights that cannot be used, before anything is written."""
        several = self.hardware.devices * self.hardware.num_nodes > 1
        if several and self.request.epochs is None:
            raise InputError("--devices, --num-nodes: several processes need --epochs; a time limit is planned in one")
        if self.request.pretrained is not None:
            self.module(network)

    def fitted_to_data(self, network: Network) -> Network:
        """The network with the data's classes; without pretrained weights also with the data's mean and deviation.

        Raises:
            InputError: the network's input has other channels than the images, or its head names pixels.
        """
        if network.head.dense:
            raise InputError(
                f"MODEL {network.name}: gives every pixel a class, and images have one each; "
                "use luthier scene train, or a head that is not dense"
            )
        if network.in_channels != self.splits.in_channels:
            raise InputError(
                f"MODEL {network.name}: in_channels must be {self.splits.in_channels} for images, "
                f"got {network.in_channels}; change it in the network's file"
            )
        network = network.with_head(self.splits.num_classes)
        if self.request.pretrained is None:
            mean, std = channel_mean_std(self.splits.train)
            network = dataclasses.replace(network, input_mean=mean, input_std=std)
        if self.request.resolution is not None:
            network = dataclasses.replace(network, resolution=self.request.resolution)
        return network

    def module(self, network: Network) -> Classifier:
        """A fresh module: the run's seed decides its initialisation, then the pretrained weights."""
        torch.manual_seed(self.request.seed)
        module = build(network)
        if self.request.pretrained is not None:
            load_pretrained(module, self.request.pretrained)
        return module

    def preprocess(self, network: Network) -> Preprocess:
        """What users of the network must do to an image."""
        mean, std = _three(network.input_mean), _three(network.input_std)
        return preprocess_for(network.resolution, self.splits.image_hw, mean, std)

    def transform(self, network: Network) -> ImageTransform:
        """The same for tensors, as deployed: no random crop or mirror."""
        mean, std = _three(network.input_mean), _three(network.input_std)
        return make_transforms(network.resolution, train=False, native_hw=self.splits.image_hw, mean=mean, std=std)

    def rate(self, network: Network) -> float:
        """Training images per second of this network on this machine."""
        recipe = self.recipe(network, epochs=1)
        return measure_rate(
            self.module(network),
            network.resolution,
            recipe,
            num_classes=self.splits.num_classes,
            hardware=self.hardware,
        )

    def recipe(self, network: Network, epochs: int) -> Recipe:
        """How this network is trained for that many epochs."""
        pretrained = self.request.pretrained is not None
        recipe = default_recipe(
            len(self.splits.train), network.resolution, epochs, pretrained, accelerator=self.hardware.accelerator
        )
        return dataclasses.replace(recipe, seed=self.request.seed)

    def train(
        self,
        network: Network,
        epochs: int,
        folder: Path,
        label: str,
        *,
        module: Classifier | None = None,
        begin_s: float = 0.0,
        deadline_s: float | None = None,
        give_up: Callable[[Epoch], bool] | None = None,
    ) -> tuple[Classifier, Trained]:
        """Train, or go on where the folder's checkpoint stands.

        Args:
            epochs: length of the schedule.
            module: the network with the weights to begin with; None = a fresh one.
            begin_s, deadline_s: elapsed time of the run (see `Clock`) from which this training's time counts, and
                after which no further step is begun; the learning rate reaches its end by then.
            give_up: asked after every epoch; True ends the training there.
        """
        module = self.module(network) if module is None else module
        recipe = self.recipe(network, epochs)

        def on_epoch(epoch: Epoch) -> bool:
            self.clock.save()
            return give_up is not None and give_up(epoch)

        def late() -> bool:
            return deadline_s is not None and self.clock.elapsed_s > deadline_s

        def share() -> float:
            return 0.0 if deadline_s is None else (self.clock.elapsed_s - begin_s) / max(1e-9, deadline_s - begin_s)

        trained = train(
            module,
            self.splits,
            recipe,
            folder=folder,
            resolution=network.resolution,
            mean=_three(network.input_mean),
            std=_three(network.input_std),
            hardware=self.hardware,
            on_epoch=on_epoch,
            deadline=late,
            time_share=share,
            label=label,
        )
        return module, trained


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
