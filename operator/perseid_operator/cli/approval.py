"""Which generation an approval is for, and when there is nothing to approve."""

from __future__ import annotations

from perseid.api.base import APPROVED_GENERATION
from perseid.api.reasons import ConditionType, Reason
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid_operator.cli.errors import ClusterError


def waiting_generation(status: EvolutionRunStatus) -> int | None:
    """The generation that waits for somebody's approval; None where none does."""
    progressing, newest = status.condition(ConditionType.PROGRESSING), status.generation
    if progressing is None or newest is None or progressing.reason is not Reason.AWAITING_APPROVAL:
        return None
    return newest.index + 1


def generation_to_approve(run: EvolutionRun, status: EvolutionRunStatus, wanted: int | None) -> int:
    """What the annotation is to say. `wanted` is the user's own choice. Raises ClusterError with the reason where
    there is nothing to approve."""
    name, approved = run.metadata.name, run.metadata.approved_generation
    if status.phase.is_terminal:
        raise ClusterError(f"{name} is {status.phase}: nothing waits for approval any more")
    if run.spec.generations.approval == "automatic":
        raise ClusterError(
            f"{name} needs no approval: spec.generations.approval is automatic, so every generation starts by itself"
        )
    newest = status.generation
    begun = -1 if newest is None else newest.index
    if wanted is not None:
        _check(name, wanted, begun, run.spec.generations.max, approved)
        return wanted
    waiting = waiting_generation(status)
    if waiting is not None:
        if approved is not None and approved >= waiting:
            raise ClusterError(
                f"generation {waiting} of {name} is approved already ({APPROVED_GENERATION}={approved}), and starts as"
                " soon as the operator has seen that"
            )
        return waiting
    if run.spec.suspend:
        raise ClusterError(f"{name} is suspended and waits for no approval; `perseid resume {name}` lets it go on")
    if begun < 0:
        raise ClusterError(f"{name} has not begun; its first generation needs no approval")
    told = status.condition(ConditionType.PROGRESSING)
    why = f" ({told.message})" if told is not None and told.message else ""
    raise ClusterError(
        f"no generation of {name} waits for approval now{why}; to approve one ahead of time, name it:"
        f" `perseid approve {name} --generation {begun + 1}`"
    )


def _check(name: str, wanted: int, begun: int, most: int, approved: int | None) -> None:
    following = max(begun, 0) + 1
    if wanted < following:
        which = "is the first and needs no approval" if wanted == 0 else "has begun already"
        raise ClusterError(f"generation {wanted} of {name} {which}; counted from 0, the next one is {following}")
    if wanted >= most:
        raise ClusterError(
            f"{name} has no generation {wanted}: spec.generations.max is {most}, and they are counted from 0"
        )
    if approved is not None and approved >= wanted:
        raise ClusterError(f"generation {wanted} of {name} is approved already ({APPROVED_GENERATION}={approved})")
