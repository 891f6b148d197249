"""Reading a state dict: a file of ours, of timm or of torchvision, or a model of theirs by name."""

from __future__ import annotations

import difflib
import pickle
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from luthier.errors import DataError

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
StateDict = dict[str, Tensor]


def read_state_dict(source: str | Path) -> StateDict:
    """The tensors of a checkpoint, on the CPU.

    Args:
        source: `FILE.safetensors`, `FILE.pt` or `FILE.pth` (read without running pickled code), `timm:NAME` or
            `torchvision:NAME` (their default weights, downloaded when not cached).
    Raises:
        DataError: no such file or model, not a state dict, truncated, or not to be had offline.
    """
    text = str(source)
    if text.startswith("timm:"):
        return _from_timm(text.removeprefix("timm:"))
    if text.startswith("torchvision:"):
        return _from_torchvision(text.removeprefix("torchvision:"))
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{text}: no such file; give FILE.safetensors, FILE.pth, timm:NAME or torchvision:NAME")
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    if path.suffix in (".pt", ".pth"):
        return _from_torch(path)
    raise DataError(f"{text}: weights must end in .safetensors, .pt or .pth, got {path.suffix or 'no suffix'!r}")


def _from_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a safetensors file, or truncated ({_first_line(error)}); copy it again") from None


def _from_torch(path: Path) -> StateDict:
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{path}: not a plain torch state dict, or truncated ({_first_line(error)}); save model.state_dict() again"
        ) from None
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"{path}: holds no state dict; save model.state_dict(), not the model")
    # DistributedDataParallel prefixes every name
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _reachable(url: str) -> bool:
    """Whether a server answers at all; goes through the user's proxy."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


@contextmanager
def _cache_only_when_offline() -> Iterator[None]:
    """Look into the hub's cache at once when the hub cannot be reached: it would retry for a minute, and say so."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def check_timm(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        DataError: with the names that come nearest.
    """
    import timm

    if not timm.is_model(name):
        raise DataError(f"timm:{name}: timm has no such model{_nearest(name, timm.list_models())}")


def _from_timm(name: str) -> StateDict:
    import timm

    check_timm(name)
    try:
        with _cache_only_when_offline():
            state: StateDict = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm and the hub raise a dozen kinds for "offline" and "no weights"
        raise _unavailable(f"timm:{name}", error) from None
    return state


def _from_torchvision(name: str) -> StateDict:
    from torchvision.models import get_model, list_models

    if name not in list_models():
        raise DataError(f"torchvision:{name}: torchvision has no such model{_nearest(name, list_models())}")
    try:
        state: StateDict = get_model(name, weights="DEFAULT", progress=False).state_dict()
    except Exception as error:  # urllib raises several kinds for "offline"
        raise _unavailable(f"torchvision:{name}", error) from None
    return state


def _unavailable(source: str, error: Exception) -> DataError:
    return DataError(
        f"{source}: weights cannot be downloaded ({_first_line(error)}); "
        "go online once, or give a local FILE.safetensors"
    )


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {', '.join(near)}?" if near else ""


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160]
