"""The final training: the chosen network, from the start, with all the time that is left."""

from __future__ import annotations

from typing import Final

from luthier.job.candidates import Member
from luthier.job.folder import RunFolder
from luthier.job.plan import MOST_EPOCHS, Plan, whole_epochs
from luthier.job.race import stored_pace
from luthier.job.session import Session
from luthier.job.study import Study
from luthier.nn.build import Classifier
from luthier.train.results import Epoch, Trained
from luthier.units import show

#: a misjudged pace is mended so often, then lived with
ATTEMPTS: Final = 3


def train_to_the_end(session: Session, study: Study, folder: RunFolder, final: Member) -> tuple[Classifier, Trained]:
    """Train the winner to the end of the time.

    The length is planned from the pace so far.  If the first epoch shows that the machine now runs at quite another
    pace, the training starts again with a length that fits: a cosine cut short, or ended early, wastes more than an
    epoch does.
    """
    request, clock = session.request, session.clock
    most = MOST_EPOCHS[request.pretrained is not None]
    epoch_s = 0.0 if request.epochs is not None else _epoch_s(study, final, len(session.splits.train))
    deadline_s = request.time_limit_s - Plan.of(request.time_limit_s, 0.0, 1).reserve_s
    begun = sum(study.has(f"final_epochs{attempt}") for attempt in range(ATTEMPTS))
    for attempt in range(max(0, begun - 1), ATTEMPTS):
        planned = request.epochs or whole_epochs(deadline_s - clock.elapsed_s, epoch_s, most)
        epochs: int = study.note(f"final_epochs{attempt}", lambda n=planned: n)  # type: ignore[misc]
        begin_s: float = study.note(f"final_begin{attempt}", lambda: round(clock.elapsed_s, 3))
        session.say(
            f"final training: {final.network.name}, {epochs} epochs, {show(max(clock.left_s, 0), 'duration')} left"
        )
        last = attempt == ATTEMPTS - 1 or request.epochs is not None

        def off_pace(epoch: Epoch, epochs: int = epochs, last: bool = last) -> bool:
            if last or epoch.epoch != 1:
                return False
            fits = whole_epochs(deadline_s - clock.elapsed_s, epoch.wall_s, most)
            return not 0.75 <= fits / max(1, epochs - 1) <= 1.5

        module, trained = session.train(
            final.network, epochs, folder.final(attempt), final.network.name,
            begin_s=begin_s, deadline_s=None if request.epochs is not None else deadline_s, give_up=off_pace,
        )  # fmt: skip
        if trained.stopped != "paused":
            break
        epoch_s = trained.history[0].wall_s
    return module, trained


def _epoch_s(study: Study, member: Member, images: int) -> float:
    """Seconds of an epoch: from the candidate's own rounds (validation included), else from the measured pace."""
    for candidate in study.candidates():
        if candidate.number == member.number and candidate.rungs:
            last = candidate.rungs[-1]
            return last.wall_s / last.epochs
    return stored_pace(study).epoch_s(member.cost.macs, images) * 1.1
