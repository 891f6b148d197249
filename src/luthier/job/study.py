"""Every candidate as one trial of an Optuna study in a journal file, and successive halving over them.

The journal is appended and synced at each step, so a run killed at any moment finds its finished rounds again; the
round in flight resumes from its own last checkpoint.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from luthier import files
from luthier.errors import RunFolderError
from luthier.job.candidates import Member
from luthier.job.result import Candidate, Rung, Status

#: of the one study in a journal
STUDY: Final = "fit"


@dataclass(frozen=True)
class Round:
    """One round of one candidate, finished: the length of its schedule, what came out, and how long it took.

    Attributes:
        key: of the training (`luthier.job.trials.trial_key`), by which other runs find it; empty = it is not to be
            found, because its schedule followed the time.
    """

    epochs: int
    val_accuracy: float | None
    wall_s: float
    key: str = ""


class Study:
    """The candidates of a run and what has been learnt of each.

    Args:
        path: journal file; made when missing.
    Raises:
        RunFolderError: the journal cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        try:
            mend(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # parts of the journal API are marked experimental
                storage = JournalStorage(JournalFileBackend(str(path)))
                self._study = optuna.create_study(
                    study_name=STUDY, storage=storage, direction="maximize", load_if_exists=True
                )
        except OSError as error:
            raise files.explain(error, path) from None
        except Exception as error:  # optuna trusts its lines: a damaged one ends in a dozen kinds of errors
            reason = str(error) or type(error).__name__
            raise RunFolderError(f"{path}: the study cannot be opened ({reason}); choose another --run-dir") from None

    def note(self, key: str, make: Callable[[], Any]) -> Any:
        """A decision of the run: made once, stored, and the same after every resumption."""
        stored = self._study.user_attrs
        if key not in stored:
            self._study.set_user_attr(key, make())
        return self._study.user_attrs[key]

    def has(self, key: str) -> bool:
        """Whether a decision was made already."""
        return key in self._study.user_attrs

    def leave_out(self, members: Sequence[Member]) -> None:
        """Record members that no training saw, with their reasons."""
        known = {trial.user_attrs.get("number") for trial in self._study.get_trials(deepcopy=False)}
        for member in members:
            if member.reason and member.number not in known:
                self._study.add_trial(
                    self._optuna.trial.create_trial(
                        state=self._optuna.trial.TrialState.PRUNED,
                        user_attrs={**_facts(member), "reason": member.reason},
                    )
                )

    def trial(self, member: Member) -> Any:
        """The running or finished trial of a member, begun when it is new."""
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.user_attrs.get("number") == member.number:
                return self._optuna.trial.Trial(self._study, frozen._trial_id)
        # one line of the journal: no kill can leave a trial that does not know whose it is
        running = self._optuna.trial.TrialState.RUNNING
        self._study.add_trial(self._optuna.trial.create_trial(state=running, user_attrs=_facts(member)))
        return self.trial(member)

    def played(self, member: Member, rung: int) -> Round | None:
        """One round of one candidate, if it was finished."""
        stored = self.trial(member).user_attrs.get(f"rung{rung}")
        return None if stored is None else Round(**stored)

    def record(self, member: Member, rung: int, played: Round) -> None:
        """A round that was finished."""
        trial = self.trial(member)
        trial.set_user_attr(f"rung{rung}", asdict(played))
        if played.val_accuracy is not None:
            trial.report(played.val_accuracy, rung)

    def round(self, member: Member, rung: int, play: Callable[[], Round]) -> Round:
        """One round of one candidate: read from the journal if it was finished, else played and recorded."""
        found = self.played(member, rung)
        if found is None:
            found = play()
            self.record(member, rung, found)
        return found

    def close(self, member: Member, status: Status, reason: str, value: float | None) -> None:
        """End a candidate's trial; repeated calls change nothing."""
        states = self._optuna.trial.TrialState
        trial = self.trial(member)
        frozen = next(t for t in self._study.get_trials(deepcopy=False) if t._trial_id == trial._trial_id)
        if frozen.state.is_finished():
            return
        trial.set_user_attr("status", status)
        trial.set_user_attr("reason", reason)
        if status == "winner" and value is not None:
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=states.FAIL if status == "failed" else states.PRUNED)

    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, by number."""
        found = []
        for frozen in self._study.get_trials(deepcopy=False):
            attrs = frozen.user_attrs
            played = {rung: Round(**attrs[f"rung{rung}"]) for rung in range(32) if f"rung{rung}" in attrs}
            rungs = [Rung(rung, r.epochs, r.val_accuracy, r.wall_s) for rung, r in played.items()]
            found.append(
                Candidate(
                    **{key: attrs[key] for key in _FACTS},
                    status=attrs.get("status", "left_out"),
                    reason=attrs.get("reason", ""),
                    rungs=tuple(rungs),
                )
            )
        return tuple(sorted(found, key=lambda candidate: candidate.number))


def mend(path: Path) -> None:
    """Remove what a killed process left: its lock, for which others would wait half a minute, and half a line.

    Only for the holder of the run folder's own lock, which the kernel drops with its process.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


_FACTS: Final = (
    "number", "name", "phi", "resolution", "params", "macs", "peak_activation_bytes", "size_bytes", "latency_s",
)  # fmt: skip


def _facts(member: Member) -> dict[str, Any]:
    cost = member.cost
    return {
        "number": member.number,
        "name": member.network.name,
        "phi": member.phi,
        "resolution": member.network.resolution,
        "params": cost.params,
        "macs": cost.macs,
        "peak_activation_bytes": cost.peak_activation_bytes,
        "size_bytes": cost.weight_bytes,
        "latency_s": member.latency_s,
    }


def rounds(count: int) -> list[int]:
    """How many candidates play in each round of halving.

    Example:
        >>> rounds(5), rounds(2), rounds(1)
        ([5, 2], [2], [])
    """
    plan = []
    while count > 1:
        plan.append(count)
        count = count // 2
    return plan


def noise(accuracy: float, images: int) -> float:
    """One standard error of a share: sqrt(p (1 - p) / n).

    Example:
        >>> round(noise(0.75, 5000), 4)
        0.0061
    """
    return math.sqrt(max(accuracy * (1 - accuracy), 1 / images) / images)


def rank(played: Sequence[tuple[Member, float | None]], images: int) -> list[tuple[Member, float | None]]:
    """Best first.  Two candidates within two standard errors of their difference are not told apart by accuracy.

    Among those that cannot be told apart from the best, the larger network goes first: a round is shorter than the
    final training, and capacity pays late.
    """
    alive = [(member, accuracy) for member, accuracy in played if accuracy is not None]
    failed = [(member, accuracy) for member, accuracy in played if accuracy is None]
    ordered: list[tuple[Member, float | None]] = []
    while alive:
        best = max(accuracy for _, accuracy in alive)
        margin = 2 * math.sqrt(2) * noise(best, images)
        tied = [pair for pair in alive if pair[1] >= best - margin]
        first = max(tied, key=lambda pair: pair[0].cost.macs)
        ordered.append(first)
        alive.remove(first)
    return ordered + failed
