"""MODEL is everywhere the same word: a preset, a run folder, or a `network.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from luthier.arch import encode, presets
from luthier.arch.network import Network
from luthier.errors import InputError, SpecError

#: images up to this side are thumbnails
THUMBNAIL_PX: Final = 64


def resolve(model: str) -> Network:
    """The network that a user named.

    Args:
        model: name of a preset, path of a run folder, or path of a network file (JSON).
    Raises:
        InputError: nothing of that name; or a form that this version cannot read yet.
    Example:
        >>> resolve("efficientnet_b0").resolution
        224
    """
    path = Path(model)
    if path.is_dir():
        if not (path / "network.json").exists():
            raise InputError(
                f"{model}: a folder without network.json; MODEL is a preset, a run folder or a network.json"
            )
        return encode.read(path / "network.json")
    if path.suffix == ".json":
        return encode.read(path)
    if path.suffix == ".onnx" or model.startswith("timm:") or ":" in model:
        raise InputError(
            f"{model}: this command builds and trains networks; MODEL is a preset, a run folder or a network.json"
        )
    try:
        return presets.get(model)
    except SpecError as error:
        raise InputError(f"MODEL: {error}") from None


def baseline_for(model: str | None, pretrained: str | None, native_side: int) -> Network:
    """Whose family `fit` tries: the named model, else the owner of the weights, else by the size of the images.

    Images of up to 64 pixels get `mbconv_thumbnail` (total stride 8), larger ones `efficientnet_b0` (total stride 32).

    Args:
        model: see `resolve`; None = not named.
        pretrained: `timm:NAME`, `torchvision:NAME` or a file of weights; None = none.
        native_side: shorter side of the images, in pixels.
    Raises:
        InputError: the weights belong to no preset, or to several.
    """
    if model is not None:
        return resolve(model)
    if pretrained is None:
        return presets.get("mbconv_thumbnail" if native_side <= THUMBNAIL_PX else "efficientnet_b0")
    library, _, name = pretrained.partition(":")
    if library in ("timm", "torchvision") and name:
        return resolve(name.partition(".")[0])
    # torch is only needed to read a file of weights
    from luthier.nn.checkpoint import read_state_dict
    from luthier.nn.recognise import recognise

    found = recognise(read_state_dict(pretrained))
    if len(found) == 1:
        return presets.get(found[0])
    if not found:
        raise InputError(f"--pretrained {pretrained}: its weights fit no preset; name the network with --model")
    raise InputError(
        f"--pretrained {pretrained}: its weights fit several presets ({', '.join(found)}), which differ in padding or "
        "epsilon only; name one with --model"
    )
