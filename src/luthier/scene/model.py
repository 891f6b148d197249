"""What a trained network for scenes must remember besides its weights: its bands, its classes, its field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from luthier import documents, files
from luthier.arch import encode
from luthier.arch.block import Spec
from luthier.arch.network import Network
from luthier.errors import DataError, SpecError
from luthier.scene.cube import Scene
from luthier.scene.wavelengths import matched
from luthier.train.pixels import path_text

SCHEMA: Final = "luthier.scene/1"
FILE: Final = "scene.json"


@dataclass(frozen=True, kw_only=True)
class SceneModel(Spec):
    """`scene.json` of a run folder.

    Attributes:
        classes: numbers of the classes that the network tells apart, in the order of its scores.
        class_names: of all classes 1 .. K of the labels.
        wavelengths_nm: of its bands, in order; None = unknown.
        radius: of its receptive field, in px.
    """

    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    wavelengths_nm: tuple[float, ...] | None
    radius: int

    def write(self, folder: Path) -> None:
        """Store in a run folder."""
        files.write_text(folder / FILE, documents.to_text(self, SCHEMA))


def read_model(folder: Path) -> tuple[SceneModel, Network, dict[str, Any]]:
    """A run of `luthier scene train`: what it remembers, its network, its weights.

    Raises:
        DataError: no such run, or its weights cannot be read.
        SpecError: a file of another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    who = path_text(folder)
    if not (folder / FILE).is_file():
        raise DataError(f"--model {who}: holds no {FILE}; name the run folder of a finished luthier scene train")
    model = documents.from_text(SceneModel, (folder / FILE).read_text("utf-8"), SCHEMA, str(folder / FILE))
    network = encode.read(folder / "network.json")
    try:
        state = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise DataError(f"--model {who}: its weights cannot be read ({error}); train again") from None
    if network.head.num_classes != len(model.classes):
        raise SpecError(f"{who}: {FILE} has {len(model.classes)} classes, network.json {network.head.num_classes}")
    return model, network, state


def fitted(scene: Scene, model: SceneModel, network: Network, tolerance_nm: float | None = None) -> Scene:
    """The scene with exactly the model's bands, in its order, found by wavelength.

    Args:
        scene: to be mapped.
        model, network: that map it.
        tolerance_nm: how far a band may lie from the model's; None = half of the model's median spacing.
    Raises:
        DataError: a band of the model has no partner, or wavelengths are unknown and the numbers of bands differ.
    """
    wanted, given = model.wavelengths_nm, scene.wavelengths_nm
    if wanted is None or given is None:
        if scene.shape[2] != network.in_channels:
            raise DataError(
                f"{scene.name}: {scene.shape[2]} bands for a model of {network.in_channels}, and the wavelengths of "
                f"{'the model' if wanted is None else 'the scene'} are unknown; give them with --wavelengths"
            )
        return scene
    if tolerance_nm is None:
        spacing = np.abs(np.diff(np.sort(wanted)))
        tolerance_nm = float(np.median(spacing)) / 2 if len(spacing) else 10.0
    positions = matched(wanted, given, tolerance_nm, scene.name)
    return scene if positions == tuple(range(scene.shape[2])) else scene.select(positions)
