"""Lab `scene_order`: filter every raw band apart and then mix, or mix the bands and then filter the mixtures?

Both networks hold the same layers; only the first two change places.  Nothing but linear layers stands between them, so
that no activation favours either, and both start as the same function: the directions in which the training spectra's
signal stands above their noise behind, or before, filters that leave the pixel as it is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from luthier.arch.block import Block, Stage
from luthier.arch.network import Network
from luthier.arch.presets.scene import BANDWISE
from luthier.cost.macs import graph_macs, graph_params
from luthier.graph.from_network import from_network
from luthier.lab.experiment import Arm, Claim, Contrast, Experiment, Floor, Numbers, Order, Place, Size

QUESTION: Final = "Should every raw band have a filter of its own before a 1x1 convolution mixes the bands?"
TEXT: Final = (
    "The depthwise convolution filters space within each band; the 1x1 convolution behind it is a spectral mixer that "
    "learns how bands combine."
)
MIXES, FILTERS = "mixes first", "filters first"
#: passes over the training squares, and seeds
AMOUNTS: Final[dict[Size, tuple[int, int]]] = {"quick": (20, 2), "standard": (300, 5), "full": (300, 10)}


def network_of(order: str) -> Network:
    """`mixes first` or `filters first`; its receptive field is 9 px.

    Example:
        >>> [[one.kind for one in network_of(order).stages[0].blocks] for order in (MIXES, FILTERS)]
        [['mbconv'], ['depthwise_separable', 'conv']]
    """
    filters_first = BANDWISE.stages[0].blocks[0]
    width, bands = filters_first.out_channels, BANDWISE.in_channels
    second = Block(kind="conv", out_channels=width, kernel_size=1, activation="identity")
    mixes_first = replace(filters_first, kind="mbconv", expand_ratio=width / bands)
    blocks = (filters_first, second) if order == FILTERS else (mixes_first,)
    stem = Stage(name=BANDWISE.stages[0].name, blocks=blocks)
    return replace(BANDWISE, name=order.replace(" ", "_"), stages=(stem, *BANDWISE.stages[1:]))


def build(order: Order) -> Experiment:
    """The lab of one size; its scene arrives inside the package tensorly."""
    epochs, seeds = AMOUNTS[order.size]
    arms = []
    for name, which, times in ((f"{MIXES}, twice as long", MIXES, 2), (MIXES, MIXES, 1), (FILTERS, FILTERS, 1)):
        network = network_of(which)
        graph = from_network(network)
        known = {"macs": float(graph_macs(graph)), "params": float(graph_params(graph))}
        measure = partial(_measure, network=network, epochs=times * epochs)
        arms.append(Arm(name, measure, known, "Indian Pines", known["macs"] * times))
    longer = Contrast(f"{MIXES}, twice as long - {MIXES}", ((1, f"{MIXES}, twice as long"), (-1, MIXES)))
    gains = tuple(
        Contrast(f"{FILTERS} - {MIXES}{what}", ((1, FILTERS), (-1, MIXES)), key)
        for key, what in (("accuracy", ""), ("average_accuracy", ", mean over the classes"))
    )
    return Experiment(
        name="scene_order", title="the order of filters and mixer", question=QUESTION, size=order.size,
        arms=tuple(arms), claims=(Claim("A filter for every raw band gains", TEXT, gains, (Floor(longer, 1.0),)),),
        seeds=order.seeds or seeds,
        settings={
            "scene": "Indian Pines, 145 x 145 px, 200 bands; seed j trains on the guarded split j of `luthier scene`: "
            "squares of 9 px, a tenth of every class, guard 4 px, leakage index 0",
            "training": f"the recipe of `luthier scene train`, {epochs} epochs; weights and order from the seed",
            "accuracy": "overall accuracy on the held-out ground",
        },
        too_small="a smoke run, too small for a verdict" if order.size == "quick" else "",
    )  # fmt: skip


def _measure(place: Place, *, network: Network, epochs: int) -> Numbers:
    import torch

    from luthier.scene.metrics import judge
    from luthier.scene.read import read_indian_pines
    from luthier.scene.recipe import SceneRecipe
    from luthier.scene.split import block_split
    from luthier.scene.train import answers, field_radius, train

    torch.set_num_threads(1)
    scene, radius = read_indian_pines(), field_radius(network)
    assert scene.labels is not None
    split = block_split(scene.labels, radius, seed=place.seed)
    trained = train(scene, split, network, SceneRecipe(epochs=epochs, seed=place.seed))
    found = answers(trained, scene, split)
    seen = judge(scene.labels.classes[split.test], found, split.classes, split.leakage(radius))
    return {"accuracy": seen.overall_accuracy, "average_accuracy": seen.average_accuracy, "kappa": seen.kappa}
