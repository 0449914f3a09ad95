"""The operator's door: what Kopf calls when an EvolutionRun comes, changes or is to go, and how Kopf is set up."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import kopf

from perseid.api.base import KIND
from perseid.api.layout import StorageError
from perseid.api.reasons import ConditionStatus, ConditionType
from perseid.api.status import Condition
from perseid_operator.actions import PostponedError
from perseid_operator.kfp import KfpError
from perseid_operator.kube.client import GROUP, PLURAL, VERSION
from perseid_operator.kube.protocol import KubeError, Object
from perseid_operator.login import log_in
from perseid_operator.objects import FINALIZER, BadObjectError, compact, leaves_files, needs_work
from perseid_operator.reconciler import Reconciler
from perseid_operator.runs import Runs

log = logging.getLogger(__name__)

WAITING = "its pipeline runs are being stopped, or its files deleted"
CLEANUP_RETRY_SECONDS = 10.0
_BAD_WHEN_TRUE = (ConditionType.FAILED,)
_BAD_WHEN_FALSE = (ConditionType.BACKEND_READY, ConditionType.ACCEPTED)


def handlers(runs: Runs, reconciler: Reconciler, cleanup_seconds: float) -> kopf.OperatorRegistry:
    """What Kopf calls. `cleanup_seconds`: how long a deleted object waits at most for its pipeline runs to end."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        try:
            return await log_in()
        except KubeError as error:
            raise kopf.LoginError(str(error)) from error

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, id="seen")
    async def seen(event: Any, **_: Any) -> None:
        raw = event["object"]
        raw.update(compact(raw))  # in place: Kopf keeps it as well
        if event["type"] == "DELETED":
            runs.gone(raw)
        else:
            runs.seen(raw)

    @kopf.daemon(
        GROUP,
        VERSION,
        PLURAL,
        registry=registry,
        id="follow",
        when=lambda body, **_: needs_work(body),
        cancellation_backoff=1.0,
        cancellation_timeout=10.0,
    )
    async def follow(body: kopf.Body, stopped: Any, **_: Any) -> None:
        await runs.follow(body["metadata"]["uid"], lambda: bool(stopped))

    @kopf.on.delete(
        GROUP,
        VERSION,
        PLURAL,
        registry=registry,
        id="clean-up",
        when=lambda body, **_: needs_work(body) or leaves_files(body),
        errors=kopf.ErrorsMode.TEMPORARY,
    )
    async def clean_up(body: kopf.Body, started: datetime, **_: Any) -> None:
        raw = plain(body)
        newest, trouble = runs.newest(raw["metadata"]["uid"]) or raw, ""
        try:
            wait = await reconciler.clean_up(newest)
        except (KubeError, KfpError, StorageError, BadObjectError, PostponedError) as error:
            # Kopf would try again for ever, and the object could never go.
            log.warning("cleaning up has failed, and is tried again: %s", error)
            wait, trouble = CLEANUP_RETRY_SECONDS, f": {error}"
        if wait is None:
            return
        waited = (datetime.now(UTC) - _aware(started)).total_seconds()
        if waited > cleanup_seconds:
            message = _left_behind(newest, cleanup_seconds) + trouble
            log.warning(message)
            kopf.warn(body, reason="CleanupFailed", message=message)
            return
        raise kopf.TemporaryError(WAITING, delay=wait)

    return registry


class NoDiffBase(kopf.DiffBaseStorage):
    """Remembers no last state. Kopf would write a copy of every spec into an annotation, to tell changes that nothing
    here asks for: what is decided depends on what is, not on what has changed."""

    def build(self, **_: Any) -> Any:
        """Nothing of an object matters."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Nothing has changed."""
        return {}

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


def kopf_settings() -> kopf.OperatorSettings:
    """Kopf, told to write as little as it can and to end rather than to be blind."""
    # It tells every call of a handler, which for us is every change of every object.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kopf.objects").addFilter(_is_no_waiting)
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # needs rights on CRDs and namespaces, and without them a minute of retries
    settings.persistence.finalizer = FINALIZER
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.posting.reporting_component = "perseid-operator"
    settings.posting.level = logging.INFO
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.watching.connect_timeout = 10
    return settings


def _is_no_waiting(record: logging.LogRecord) -> bool:
    """A handler that comes again is an error to Kopf, every five seconds."""
    return WAITING not in record.getMessage()


def announce(obj: Object, condition: Condition) -> None:
    """An Event for a condition that has changed. Kopf posts it, in the background."""
    holds = condition.status is ConditionStatus.TRUE
    bad = (condition.type in _BAD_WHEN_TRUE and holds) or (condition.type in _BAD_WHEN_FALSE and not holds)
    involved: Any = {"kind": KIND, **obj}
    kopf.event(
        involved,
        type="Warning" if bad else "Normal",
        reason=condition.reason.value,
        message=condition.message,
    )


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Kopf's view of an object as plain JSON."""
    return {key: _plain(value) for key, value in body.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _left_behind(raw: Object, seconds: float) -> str:
    if not needs_work(raw):
        return f"The run's files could not be deleted within {seconds:.0f} s, and stay"
    files = " and its files deleted" if leaves_files(raw) else ""
    return (
        f"Its pipeline runs could not be seen to end{files} within {seconds:.0f} s; look for them in Kubeflow"
        f" Pipelines: {', '.join(_run_ids(raw)) or 'none is known'}"
    )


def _run_ids(raw: Object) -> list[str]:
    status = raw.get("status") or {}
    current = [status["current"]["runId"]] if status.get("current") else []
    return [*current, *status.get("stopping", [])]


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
