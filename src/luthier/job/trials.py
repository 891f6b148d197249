"""Trainings that runs share: `fit` and `scale --fit` play rounds alike, and find each other's by one key."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luthier.arch import encode
from luthier.arch.network import Network
from luthier.errors import RunFolderError
from luthier.job.folder import RunFolder
from luthier.job.session import Session
from luthier.job.study import STUDY, Round
from luthier.nn.build import Classifier
from luthier.train import recipe as recipes
from luthier.train.recipe import Recipe


def trial_key(network: Network, recipe: Recipe, fingerprint: str) -> str:
    """What a training's result depends on, as 64 hexadecimal digits: the network but for its name, recipe and data.

    Example:
        >>> from luthier.arch.presets import get
        >>> net = get("mbconv_thumbnail")
        >>> keys = {trial_key(n, Recipe(epochs=2), "f") for n in (net, dataclasses.replace(net, name="other"))}
        >>> len(keys), trial_key(net, Recipe(epochs=2, seed=1), "f") in keys
        (1, False)
    """
    parts = (encode.to_json(dataclasses.replace(network, name="")), recipes.to_json(recipe), fingerprint)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def play_round(
    session: Session, network: Network, epochs: int, folder: Path, label: str, *, module: Classifier | None = None,
    begin_s: float = 0.0, deadline_s: float | None = None,
) -> Round:  # fmt: skip
    """Train one network from the start, go on with it, or take what another run has found.

    Args:
        folder: of the checkpoint.
        label, module, begin_s, deadline_s: see `Session.train`.
    """
    # what weights it begins with is not in the key
    recipe = session.recipe(network, epochs)
    given = module is not None or session.request.pretrained is not None
    key = "" if given else trial_key(network, recipe, session.splits.fingerprint)
    if key in session.known:
        session.say(f"{label}: trained before, in another run")
        return session.known[key]
    before_s = session.clock.elapsed_s
    _, trained = session.train(
        network, epochs, folder, label, module=module, begin_s=begin_s, deadline_s=deadline_s
    )  # fmt: skip
    gc.collect()
    accuracy = None if trained.stopped == "diverged" or trained.best is None else trained.best.val_accuracy
    # a resumed round has spent less than its epochs took
    spent_s = max(session.clock.elapsed_s - before_s, sum(epoch.wall_s for epoch in trained.history))
    whole = trained.stopped in ("finished", "diverged") and not trained.hurried
    return Round(epochs, accuracy, round(spent_s, 3), key if whole else "")


def finished_trials(runs: Sequence[Path]) -> dict[str, Round]:
    """Every finished training of some run folders, by its key; the folders are only read.

    Raises:
        RunFolderError: no run folder with a study, or a damaged one.
    """
    found: dict[str, Round] = {}
    for run in runs:
        journal = RunFolder(run).study
        if not journal.is_file():
            raise RunFolderError(
                f"--trials {run}: no study.journal here; name a folder of `luthier fit` or `scale --fit`"
            )
        for attrs in _trials(journal):
            rounds = (Round(**value) for name, value in attrs.items() if name.startswith("rung"))
            found |= {played.key: played for played in rounds if played.key}
    return found


def _trials(journal: Path) -> list[dict[str, Any]]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # parts of the journal API are marked experimental
            storage = JournalStorage(JournalFileBackend(str(journal)))
            return [
                dict(trial.user_attrs) for trial in optuna.load_study(study_name=STUDY, storage=storage).get_trials()
            ]
    except Exception as error:  # optuna trusts its lines: a damaged one ends in a dozen kinds of errors
        reason = str(error) or type(error).__name__
        raise RunFolderError(f"--trials {journal.parent}: its study cannot be read ({reason}); leave it out") from None
