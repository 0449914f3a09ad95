"""Which runs stand still: nothing has changed in them for longer than what they do may take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from perseid.api.reasons import AttemptState, ConditionType, Phase, Reason, StageState
from perseid.api.stages import StageName
from perseid_operator.kube.protocol import Object
from perseid_operator.objects import BadObjectError, read_object

QUIET_SECONDS = 7200.0
"""How long nothing may change while no stage works: what is done then takes minutes."""
STAGE_SECONDS = 86_400.0
"""The same while a stage works that has no deadline of its own: nobody knows how long it should take."""


def may_progress(status: Mapping[str, Any]) -> bool:
    """Whether the run should get on: it is Running, and waits neither for a person nor for a place in a queue."""
    if status.get("phase") != Phase.RUNNING:
        return False
    if status.get("current") is not None:
        return _attempt(status).get("reason") != Reason.AWAITING_QUOTA
    reasons = {one.get("type"): one.get("reason") for one in status.get("conditions", [])}
    return reasons.get(ConditionType.PROGRESSING) != Reason.AWAITING_APPROVAL


def last_progress(status: Mapping[str, Any]) -> float:
    """When the run last got on, in seconds since the epoch: its conditions, its attempts and their stages tell."""
    current = status.get("current") or {}
    # A backend that comes and goes brings no run any further.
    told = [one for one in status.get("conditions", []) if one.get("type") != ConditionType.BACKEND_READY]
    times = [condition.get("lastTransitionTime") for condition in told]
    times += [current.get("intentTime"), current.get("changedAt"), status.get("startedAt")]
    # Between two attempts: the pause before the next one begins with the end of the last.
    times += [_attempt(status).get("finishedAt")]
    return max((datetime.fromisoformat(time).timestamp() for time in times if time), default=0.0)


def stands_still(raw: Object, now: float) -> bool:
    """Whether a run that `may_progress` has not for too long: two hours, or while a stage works what its pods may take,
    all tries together, which is a day where the spec does not say."""
    status: Mapping[str, Any] = raw.get("status") or {}
    quiet = now - last_progress(status)
    return quiet > QUIET_SECONDS and quiet > _longest(raw, status)


def _longest(raw: Object, status: Mapping[str, Any]) -> float:
    stages: Mapping[StageName, str] = (status.get("current") or {}).get("stages", {})
    working = [stage for stage, state in stages.items() if state == StageState.RUNNING]
    attempt = _attempt(status)
    if not working or attempt.get("state") != AttemptState.RUNNING or attempt.get("reason") is not None:
        return QUIET_SECONDS  # none works while the pods wait for a node or an image, either
    try:
        resources = [read_object(raw).run.spec.pipeline.stages.of(stage) for stage in working]
    except BadObjectError:
        return QUIET_SECONDS  # nobody can carry it through
    # As long as its pods may take: Kubernetes ends them then, and KFP makes another for each retry.
    return max((one.timeout_seconds or STAGE_SECONDS) * (one.retries + 1) for one in resources)


def _attempt(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The newest attempt."""
    generations = status.get("generations") or [{}]
    attempts = generations[-1].get("attempts") or [{}]
    newest: Mapping[str, Any] = attempts[-1]
    return newest
