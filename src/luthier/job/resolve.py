"""MODEL is everywhere the same word: a preset, a run folder, or a `network.json`."""

from __future__ import annotations

from pathlib import Path

from luthier.arch import encode, presets
from luthier.arch.network import Network
from luthier.errors import InputError, SpecError


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
            raise InputError(f"{model}: a folder without network.json; MODEL is a preset, a run folder or a network.json")
        return encode.read(path / "network.json")
    if path.suffix == ".json":
        return encode.read(path)
    if path.suffix == ".onnx" or model.startswith("timm:") or ":" in model:
        raise InputError(f"{model}: this command builds and trains networks; MODEL is a preset, a run folder or a network.json")
    try:
        return presets.get(model)
    except SpecError as error:
        raise InputError(f"MODEL: {error}") from None
