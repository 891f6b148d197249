"""Successive halving: every candidate plays a short schedule of its own, half go on, twice as long each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from luthier.errors import BudgetError
from luthier.job.candidates import Member
from luthier.job.study import Round, Study, rank, rounds


@dataclass(frozen=True)
class Play:
    """Asks a trainer for one round.

    Attributes:
        member, rung: who and when.
        epochs: length of the schedule, warm-up and cosine included.
    """

    member: Member
    rung: int
    epochs: int


@dataclass(frozen=True)
class Decision:
    """How halving ended.

    Attributes:
        order: members that are still in the race, best first; the first is trained to the end.
        remark: what the user should know about how sure this is; empty = nothing.
    """

    order: tuple[Member, ...]
    remark: str = ""


def halve(
    study: Study,
    members: Sequence[Member],
    *,
    epochs: Callable[[Member, int, int], int],
    play: Callable[[Iterable[Play]], Iterable[tuple[Play, Round]]],
    val_images: int,
) -> Decision:
    """Run all rounds, skipping what the journal already holds.

    Args:
        study: where each finished round is recorded.
        members: the candidates to train, smallest first.
        epochs: (member, rung, number of rungs) -> epochs of that round.
        play: trains what a round still lacks, in any order, one by one or several at a time.
        val_images: size of the validation split, for the noise of an accuracy.
    Returns:
        The order of those left; halted candidates are closed in the study.
    Raises:
        BudgetError: every candidate's training diverged.
    """
    racing = list(members)
    plan = rounds(len(racing))
    remark = ""
    for rung, count in enumerate(plan):
        played: list[tuple[Member, float | None]] = []
        asked = [Play(m, rung, epochs(m, rung, len(plan))) for m in racing[:count] if study.played(m, rung) is None]
        for one, outcome in play(asked):
            study.record(one.member, rung, outcome)
        for member in racing[:count]:
            found = study.played(member, rung)
            assert found is not None
            played.append((member, found.val_accuracy))
        order = rank(played, val_images)
        alive = [(member, accuracy) for member, accuracy in order if accuracy is not None]
        if not alive:
            raise BudgetError(
                "fit: every candidate's training diverged; check the images and labels, or lower the limits"
            )
        keep = plan[rung + 1] if rung + 1 < len(plan) else 1
        remark = _tie(alive, keep)
        for position, (member, accuracy) in enumerate(order):
            if accuracy is None:
                study.close(member, "failed", "the training diverged (loss is not finite)", None)
            elif position >= keep:
                ahead = alive[keep - 1]
                study.close(
                    member, "halted",
                    f"round {rung + 1}: {accuracy:.1%} on validation, {ahead[0].network.name} had {ahead[1]:.1%}", None,
                )  # fmt: skip
        racing = [member for member, _ in alive[:keep]]
    return Decision(tuple(racing), remark)


def _tie(alive: Sequence[tuple[Member, float]], keep: int) -> str:
    """Say when the order at the cut was not decided by accuracy."""
    if keep != 1 or len(alive) < 2:
        return ""
    (first, best), (second, other) = alive[0], alive[1]
    if other > best:
        return (
            f"{first.network.name} ({best:.1%}) and {second.network.name} ({other:.1%}) lie within the noise of the "
            "validation split; the larger was taken"
        )
    return ""
