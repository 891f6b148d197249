"""`luthier retrofit`: attention into a finished network, at a price that is known before it is paid.

    module -> places found in its trace -> gates, neutral at first -> limits judged -> bill, gate by gate
           -> fine-tuned where images are given -> exported, checked -> bill.json

The run folder holds `retrofit.json` (the base model and the gates), `model.safetensors`, `model.onnx`,
`preprocess.json` and `bill.json`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

from luthier import documents, files
from luthier.arch.block import REDUCED
from luthier.cost.budget import Budget, nearest
from luthier.device.registry import HOST
from luthier.device.registry import get as get_device
from luthier.errors import BudgetError, InputError
from luthier.intervals import wilson
from luthier.job.billing import Gated, Meter, counted, violations
from luthier.job.classify import preprocess_document
from luthier.job.finish import write_model
from luthier.job.folder import Clock, RunFolder, open_run
from luthier.job.module import Loaded, class_names, load_module, scores_of, three
from luthier.job.reduction import Room, greedy, measure
from luthier.job.results import Bill, GateBill, Retrofit, Trial, Tuned
from luthier.job.retrofit_request import RetrofitRequest
from luthier.job.session import Say
from luthier.nn.retrofit import (
    Insertion,
    Place,
    attach,
    choose_places,
    find_places,
    gates_of,
    insertion,
    light_attention,
)
from luthier.train.data import load_data
from luthier.train.defaults import default_recipe
from luthier.train.hardware import Hardware
from luthier.train.loader import loader
from luthier.train.loop import train
from luthier.train.metrics import evaluate
from luthier.train.preprocess import preprocess_for
from luthier.train.recipe import Recipe
from luthier.train.results import Evaluation
from luthier.train.source import Source, Splits
from luthier.train.transforms import make_transforms

SCHEMA: Final = "luthier.bill/2"
#: epochs of the short trainings by which `--reduction auto` judges gates
TRIAL_EPOCHS: Final = 1


def finished(path: Path, request: RetrofitRequest) -> Retrofit | None:
    """The result of this request if the folder holds it already; nothing is locked, loaded or written.

    Raises:
        RunFolderError: the folder holds another request, or a run of another version.
    """
    folder = RunFolder(path)
    if not folder.run_toml.exists():
        return None
    request.refuse_other(RetrofitRequest.read(folder.run_toml), folder.run_toml)
    if not folder.bill.exists():
        return None
    return documents.from_text(Retrofit, folder.bill.read_text("utf-8"), SCHEMA, str(folder.bill))


def retrofit(request: RetrofitRequest, run_dir: Path, say: Say) -> Retrofit:
    """Run or resume; returns at once when the folder holds the finished result.

    Args:
        request: what is asked.
        run_dir: kept under this path.
        say: receives lines for the user.
    Raises:
        InputError: the model, the places, the images or the limits cannot be used; before anything is written.
        BudgetError: the gates break a limit.
    """
    if (done := finished(run_dir, request)) is not None:
        return done
    folder = RunFolder(run_dir)
    clock = Clock.resume(folder.clock, request.time_limit_s)
    kind, reduction = request.kind, request.fixed_reduction
    splits = None if request.data is None else load_data(request.data, seed=request.seed, skip_bad=request.skip_bad)
    torch.manual_seed(request.seed)
    base = load_module(
        request.model, resolution=request.resolution, pretrained=request.pretrained,
        num_classes=None if splits is None else splits.num_classes,
    )  # fmt: skip
    work = _Work(request, base, splits, folder, clock, say)
    if splits is not None:
        work.check_images(splits)
    places = choose_places(find_places(base.module, base.input_shape), request.places.split(","))
    say(f"{request.model}: {kind} behind {', '.join(place.name for place in places)}")
    inserted = None if reduction is None else [work.insertion(place, reduction) for place in places]
    if inserted is not None:
        work.check_counted(inserted)
    with files.explaining(run_dir), open_run(run_dir, request):
        if (done := finished(run_dir, request)) is not None:  # another process may have finished it meanwhile
            return done
        trials: list[Trial] = []
        if inserted is None:
            trials, inserted = work.chosen(places)
        result = work.finish({place.name: place for place in places}, inserted, trials)
        files.write_text(folder.bill, documents.to_text(result, SCHEMA))
        clock.save()
        return result


@dataclass(frozen=True)
class _Work:
    request: RetrofitRequest
    base: Loaded
    splits: Splits | None
    folder: RunFolder
    clock: Clock
    say: Say

    def check_images(self, splits: Splits) -> None:
        """Refuse images that the network was not made for.

        Raises:
            InputError: another number of channels or classes.
        """
        model = self.request.model
        if self.base.in_channels != splits.in_channels:
            raise InputError(
                f"MODEL {model}: in_channels must be {splits.in_channels} for images, got {self.base.in_channels}"
            )
        scores = scores_of(self.base.module, self.base.input_shape)
        if scores != splits.num_classes:
            raise InputError(
                f"{splits.origin}: has {splits.num_classes} classes, {model} tells {scores} apart; "
                "give it a last layer for these classes first"
            )

    def insertion(self, place: Place, reduction: int) -> Insertion:
        """A gate of a reduction at a place."""
        attention = light_attention(self.request.kind, reduction if self.request.kind in REDUCED else 1)
        return insertion(place, attention)

    def gated(self, inserted: list[Insertion]) -> tuple[nn.Module, Gated]:
        """The network with gates, always the same for one seed, and its trace."""
        torch.manual_seed(self.request.seed)
        module = attach(self.base.module, inserted)
        image = torch.randn(2, *self.base.input_shape[1:], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            same = torch.equal(module(image), self.base.module(image))
        if not same:  # it looks at its own parts, or draws random numbers in evaluation
            raise InputError(f"{self.request.model}: does not compute the same with neutral gates; wrap it in a module")
        return module, Gated.read(module, self.base.input_shape, len(inserted))

    @property
    def meter(self) -> Meter:
        return Meter(get_device(self.request.device), self.request.threads)

    def check_counted(self, inserted: list[Insertion]) -> None:
        """Refuse gates that break a limit which needs no measurement."""
        _, gated = self.gated(inserted)
        before = self.meter.price(gated.without, 0.0, 0.0)
        names = ("max_macs", "max_params", "max_memory", "max_size", "max_energy")
        budget = self.request.budget(before, names)
        self.check(counted(budget), self.meter.price(gated.graph, 0.0, 0.0))

    def check(self, budget: Budget, bill: Bill) -> None:
        """Refuse a bill that breaks a limit.

        Raises:
            BudgetError: with the limits that it would keep.
        """
        broken = violations(budget, bill, on_host=self.request.device == HOST)
        if broken:
            name = f"{self.request.model} with {self.request.attention}"
            raise BudgetError(
                f"retrofit: {nearest([(name, broken)]).text}; or with a larger --reduction, or fewer --places"
            )

    # -- `--reduction auto` ---------------------------------------------------------------------------------------

    def chosen(self, places: tuple[Place, ...]) -> tuple[list[Trial], list[Insertion]]:
        """The gates that the budget buys."""
        assert self.splits is not None
        able = [place for place in places if place.shape[0] >= 4]
        if not able:
            raise InputError("--reduction auto: no place has 4 channels; give a number")
        _, gated = self.gated([self.insertion(able[0], 4)])
        budget = self.request.budget(self.meter.price(gated.without, 0.0, 0.0), ("max_macs", "max_params"))
        bare = self.meter.price(gated.without, 0.0, 0.0)
        room = Room.of(budget, bare.macs, bare.params)
        torch.manual_seed(self.request.seed)
        trials = greedy(
            measure(
                self.base.module, able, self.insertion, self.base.input_shape, room,
                self.train_gates, lambda module: self.judged(module, self.val).loss,
            ),
            room,
        )  # fmt: skip
        bought = {trial.place: trial.reduction for trial in trials if trial.chosen}
        self.say("reduction: " + ", ".join(f"{place} {reduction}" for place, reduction in bought.items()))
        return trials, [self.insertion(place, bought[place.name]) for place in places if place.name in bought]

    # -- training -------------------------------------------------------------------------------------------------

    @property
    def val(self) -> Source:
        assert self.splits is not None
        return self.splits.val

    def train_gates(self, module: nn.Module, reduction: int) -> None:
        """Gates alone: nothing that they could break was learnt before, so that the rate may be high."""
        recipe = dataclasses.replace(
            self.recipe(TRIAL_EPOCHS), optimizer="adamw", learning_rate=0.01, backbone_scale=1.0, weight_decay=0.0,
            label_smoothing=0.0, ema_decay=None,
        )  # fmt: skip
        self.train(module, recipe, self.folder.path / "reduction" / str(reduction), f"reduction {reduction}")

    def recipe(self, epochs: int) -> Recipe:
        """Fine-tuning, or, of random weights, training."""
        assert self.splits is not None
        recipe = default_recipe(
            len(self.splits.train), self.base.recipe.resolution, epochs, self.base.weights != "random",
            accelerator=self.request.accelerator,  # type: ignore[arg-type]  # Hardware checks the word
        )  # fmt: skip
        return dataclasses.replace(recipe, seed=self.request.seed)

    def train(self, module: nn.Module, recipe: Recipe, folder: Path, label: str) -> None:
        """Train what may be trained of a module, or go on where the folder's checkpoint stands."""
        assert self.splits is not None
        base = self.base.recipe
        trained = train(
            module, self.splits, recipe, folder=folder, resolution=base.resolution,
            mean=three(base.mean, self.request.model), std=three(base.std, self.request.model),
            hardware=Hardware(accelerator=self.request.accelerator),  # type: ignore[arg-type]  # likewise
            on_epoch=lambda epoch: self.clock.save(), deadline=lambda: self.clock.left_s <= 0,
            time_share=lambda: self.clock.elapsed_s / self.clock.limit_s, label=label,
        )  # fmt: skip
        if trained.best is None:
            raise BudgetError(f"retrofit: {trained.diverged}")
        module.cpu().eval()

    def judged(self, module: nn.Module, source: Source) -> Evaluation:
        """A module on images, as deployed."""
        assert self.splits is not None
        base = self.base.recipe
        transform = make_transforms(
            base.resolution, train=False, native_hw=self.splits.image_hw,
            mean=three(base.mean, self.request.model), std=three(base.std, self.request.model),
        )  # fmt: skip
        return evaluate(module, source, transform=transform, num_classes=self.splits.num_classes)

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(self, places: dict[str, Place], inserted: list[Insertion], trials: list[Trial]) -> Retrofit:
        """Bill, fine-tune, export."""
        request, meter = self.request, self.meter
        self.say("bill: the network without gates and with each runs in turns")
        while True:
            module, gated = self.gated(inserted)
            before, after, turns = meter.whole(gated)
            budget = request.budget(before)
            gates = tuple(
                meter.gate(gated, number, one, places[one.path].shape[1:], before)
                for number, one in enumerate(inserted)
            )
            if not (trials and len(inserted) > 1 and violations(budget, after, on_host=request.device == HOST)):
                break
            inserted, trials = _without_the_dearest(inserted, gates, trials)
        self.check(budget, after)
        tuned = self.tuned(module)
        self.export(module, inserted)
        return Retrofit(
            model=request.model, attention=request.attention, weights=self.base.weights,
            resolution=self.base.recipe.resolution, device_title=meter.device.title, runtime=turns.runtime,
            limits=budget.text, before=before, after=after, latency_added_s=turns.difference_s,
            latency_added_spread_s=turns.difference_spread_s, gates=gates, trials=tuple(trials), tuned=tuned,
            remarks=self.remarks(before),
        )  # fmt: skip

    def tuned(self, module: nn.Module) -> Tuned | None:
        """Fine-tune in place; the test images are looked at once before and once behind."""
        if self.splits is None or self.request.epochs == 0:
            return None
        before = self.judged(self.base.module, self.splits.test)
        self.say(f"fine-tuning: {self.request.epochs} epochs")
        self.train(module, self.recipe(self.request.epochs), self.folder.path / "tuning", self.request.attention)
        after = self.judged(module, self.splits.test)
        return Tuned(
            data=self.splits.origin, epochs=self.request.epochs, num_test=after.n, before=before.accuracy,
            before_interval=wilson(before.accuracy, before.n), after=after.accuracy,
            after_interval=wilson(after.accuracy, after.n),
        )  # fmt: skip

    def export(self, module: nn.Module, inserted: list[Insertion]) -> None:
        """Write the model's files."""
        base, shape = self.base.recipe, self.base.input_shape
        native = (base.resolution, base.resolution)
        names = class_names(base.model)
        images = torch.randn(4, *shape[1:], generator=torch.Generator().manual_seed(0))
        if self.splits is not None:
            native, names = self.splits.image_hw, self.splits.class_names
            transform = make_transforms(
                base.resolution, train=False, native_hw=native, mean=three(base.mean, base.model),
                std=three(base.std, base.model),
            )  # fmt: skip
            images = next(iter(loader(self.splits.val, transform, 4, shuffle=False, seed=0, epoch=0)))[0]
        document = ""
        if self.base.in_channels == 3:
            preprocess = preprocess_for(
                base.resolution, native, three(base.mean, base.model), three(base.std, base.model)
            )
            document = preprocess_document(preprocess, names)
        gates = gates_of(module)
        assert gates is not None
        dataclasses.replace(base, insertions=(*base.insertions, *inserted)).write(self.folder.retrofit)
        gated = Gated.read(module, shape, len(gates))
        graph, constants = gated.deployed(gated.graph)
        write_model(self.folder, graph, constants, module, document, images, base.model)

    def remarks(self, before: Bill) -> tuple[str, ...]:
        """What the user should know."""
        found = []
        if self.splits is None or self.request.epochs == 0:
            found.append("no images were given: the gates are neutral, and the network computes what it did before")
        else:
            found.append("part of the gain is the fine-tuning's own; compare with the base tuned as long")
        if before.energy_j is None:
            found.append(f"--device {self.request.device} states no energies; name another for millijoules")
        return tuple(found)


def _without_the_dearest(
    inserted: list[Insertion], gates: tuple[GateBill, ...], trials: list[Trial]
) -> tuple[list[Insertion], list[Trial]]:
    """The bought gates without the one that gains least per second measured."""
    gain = {trial.place: trial.gain_nats for trial in trials if trial.chosen}
    worst = min(gates, key=lambda gate: gain[gate.place] / max(gate.latency_s, 1e-9)).place
    left = [dataclasses.replace(t, chosen=t.chosen and t.place != worst) for t in trials]
    return [one for one in inserted if one.path != worst], left
