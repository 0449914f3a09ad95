"""Logs: one JSON object a line for machines, one line for people; both say which run a message is about.

`with log_context(namespace=..., name=...)` names the run for everything inside it, across awaits, whoever logs.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

_CONTEXT: ContextVar[Mapping[str, object]] = ContextVar("log_context", default=MappingProxyType({}))
_FIELDS = ("namespace", "name", "generation", "runId")
_NOT_FIELDS = ("k8s_skip", "k8s_ref", "settings", "taskName")
"""What Kopf hangs on its records, for itself, and what Python does."""

_MAX_TEXT = 16_384
"""Characters of one message or traceback: what a hostile object makes long stays short."""
_SECRET_NAME = r"(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|signature|authorization)"
_SECRETS = re.compile(
    rf"""(?ix)
    (?P<scheme> \b (?:bearer|basic) [ ]+ ) [a-z0-9._~+/=-]{{8,}}           # Authorization headers
    | (?<! [a-z0-9_-] ) eyJ [a-z0-9_-]{{8,}} [.] [a-z0-9_-]+ (?: [.] [a-z0-9_-]* )?      # JSON web tokens
    | (?P<name> {_SECRET_NAME} ["']? [ ]* [:=] [ ]* ["']? ) [^\s"',;&}}{{]{{8,}}      # key=value, "key": "value"
    | (?P<user> :// [^/\s:@"]* : ) [^/\s@"]+ (?= @ )                         # user:password@host
    | (?<! [a-z0-9_-] ) sk- [a-z0-9_-]{{16,}}                                # keys of model endpoints
    """
)
_SECRET_FIELD = re.compile(rf"(?i){_SECRET_NAME}$")
_HIDDEN = "[hidden]"


@contextlib.contextmanager
def log_context(
    *,
    namespace: str | None = None,
    name: str | None = None,
    generation: int | None = None,
    run_id: str | None = None,
) -> Iterator[None]:
    """Name the run that messages are about. Inside another context, what is not given stays as it is there."""
    given = {"namespace": namespace, "name": name, "generation": generation, "runId": run_id}
    known = {field: value for field, value in given.items() if value is not None}
    token = _CONTEXT.set({**_CONTEXT.get(), **known})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def configure_logs(format: str, level: str) -> None:
    """Send all logs to standard error as `json` or `text`, from `level` on: those of Kopf and other libraries too, what
    Python warns of, and the last words of a process that an exception ends. Calling it again replaces what was before.

    Raises ValueError for another format or level.
    """
    if format not in ("json", "text"):
        raise ValueError(f"the log format is {format!r}; give json or text")
    number = logging.getLevelNamesMapping().get(level)
    if number is None:
        raise ValueError(f"the log level is {level!r}; give DEBUG, INFO, WARNING or ERROR")
    handler = _Handler(sys.stderr)
    handler.addFilter(_add_context)
    handler.setFormatter(_Json() if format == "json" else _Text())
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    # These repeat whole requests and answers where they may: objects of the cluster, and headers.
    for chatty in ("kubernetes_asyncio", "aiohttp.access", "aiohttp.client", "asyncio"):
        logging.getLogger(chatty).setLevel(max(number, logging.INFO))
    logging.captureWarnings(True)
    sys.excepthook = _log_last_exception
    threading.excepthook = _log_thread_exception


class _Handler(logging.StreamHandler[Any]):
    """Ours, to be told from those of others."""


def _add_context(record: logging.LogRecord) -> bool:
    """Put the run's fields on the record: what the message itself gave, else the context's, else what Kopf knows."""
    reference = getattr(record, "k8s_ref", None) or {}
    known = {"namespace": reference.get("namespace"), "name": reference.get("name"), **_CONTEXT.get()}
    known |= {field: getattr(record, field) for field in ("namespace", "generation", "runId") if hasattr(record, field)}
    # A record's own `name` is its logger's, so the run's fields travel in one attribute.
    record.run = {field: known[field] for field in _FIELDS if known.get(field) is not None}
    return True


def redact(text: str) -> str:
    """The text without what looks like a token, key or password."""
    return _SECRETS.sub(lambda found: (found["scheme"] or found["name"] or found["user"] or "") + _HIDDEN, text)


def _clean(value: object) -> Any:
    """The value as it may be shown: short enough and without secrets, inside lists and mappings too."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _HIDDEN if _SECRET_FIELD.search(str(key)) else _clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(one) for one in value]
    text = str(value)
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}... ({len(text)} characters)"
    return redact(text)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Json(JsonFormatter):
    def __init__(self) -> None:
        super().__init__(reserved_attrs=[*RESERVED_ATTRS, *_NOT_FIELDS, "run"])

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Ours first, in a fixed order; then what the message gave as `extra`."""
        log_data["timestamp"] = _timestamp(record)
        log_data["level"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.getMessage()
        log_data.update(getattr(record, "run", {}))
        more: dict[str, Any] = {}
        super().add_fields(more, record, message_dict)
        for field, value in more.items():
            log_data.setdefault(field, value)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Nothing secret goes further."""
        cleaned: dict[str, Any] = _clean(log_data)
        return cleaned


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        run = getattr(record, "run", {})
        about = "/".join(str(run[field]) for field in ("namespace", "name") if field in run)
        if "generation" in run:
            about += f" g{run['generation']}"
        if "runId" in run:
            about += f" {run['runId']}"
        prefix = f"{_timestamp(record)} {record.levelname:<8} {record.name}: "
        prefix += f"[{about.strip()}] " if about else ""
        lines = [_clean(record.getMessage())]
        if record.exc_info:
            lines.append(_clean(self.formatException(record.exc_info)))
        if record.stack_info:
            lines.append(_clean(self.formatStack(record.stack_info)))
        return prefix + "\n".join(lines)


def _log_last_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("perseid_operator").critical(
        "the process ends by an exception that nobody caught", exc_info=(kind, error, trace)
    )


def _log_thread_exception(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or issubclass(arguments.exc_type, SystemExit):
        return
    logging.getLogger("perseid_operator").error(
        "a thread ended by an exception that nobody caught",
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
    )
