"""Trials and trained ensembles on disk.

Trials stand one a line: a run that was stopped loses the trial in flight and goes on with the next.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save

from luthier import documents, files
from luthier.arch import encode
from luthier.errors import RunFolderError, SpecError
from luthier.nn.build import build
from luthier.nn.checkpoint import read_state_dict
from luthier.scene.ensemble import Ensemble, Setting
from luthier.scene.result import Trial
from luthier.scene.tasks.application import Application, trials
from luthier.scene.views import Views

SCHEMA: Final = "luthier.ensemble/1"


def read_trials(path: Path) -> list[Trial]:
    """What an earlier run has finished; none without the file.

    Raises:
        RunFolderError: a line that is no trial.
    """
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            found.append(Trial(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise RunFolderError(f"{path}: line {number} is no trial ({error}); name another folder") from None
    return found


def run_trials(application: Application, repeats: int, path: Path) -> list[Trial]:
    """All trials of an application; those that `path` holds are not run again, new ones are added to it."""
    return trials(
        application, repeats, read_trials(path), keep=lambda trial: files.append_line(path, json.dumps(asdict(trial)))
    )


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What a folder says of an ensemble besides its network and its numbers."""

    setting: Setting
    members: int
    floor: float
    says_missing: bool
    target_mean: float
    target_std: float


def save_ensemble(ensemble: Ensemble, folder: Path) -> None:
    """Write `network.json`, `ensemble.json` and `model.safetensors`; `load_ensemble` reads them.

    Raises:
        RunFolderError: a read-only folder, or a full disk.
    """
    views = ensemble.views
    tensors = {"views.mean": torch.from_numpy(views.mean), "views.std": torch.from_numpy(views.std)}
    for number, member in enumerate(ensemble.members):
        tensors |= {f"{number}.{name}": value.contiguous() for name, value in member.state_dict().items()}
    stored = _Stored(
        setting=ensemble.setting, members=len(ensemble.members), floor=views.floor, says_missing=views.says_missing,
        target_mean=ensemble.target_mean, target_std=ensemble.target_std,
    )  # fmt: skip
    with files.explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "network.json", encode.to_json(ensemble.network))
    files.write_text(folder / "ensemble.json", documents.to_text(stored, SCHEMA))
    files.write_bytes(folder / "model.safetensors", save(tensors))


def load_ensemble(folder: Path) -> Ensemble:
    """Read what `save_ensemble` wrote.

    Raises:
        SpecError: a file is missing or says something else.
        DataError: the weights cannot be read.
    """
    network = encode.read(folder / "network.json")
    path = folder / "ensemble.json"
    try:
        stored = documents.from_text(_Stored, path.read_text("utf-8"), SCHEMA, str(path))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read as an ensemble ({error})") from None
    tensors = read_state_dict(folder / "model.safetensors")
    views = Views(
        stored.setting.views, stored.floor, tensors["views.mean"].numpy(), tensors["views.std"].numpy(),
        stored.says_missing,
    )  # fmt: skip
    members = []
    for number in range(stored.members):
        module = build(network)
        prefix = f"{number}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        members.append(module.eval())
    return Ensemble(network, stored.setting, views, tuple(members), stored.target_mean, stored.target_std)
