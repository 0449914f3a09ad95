"""Errors of this room beyond the contract's own. All of them are EngineErrors: the message says what to do."""

from __future__ import annotations

from perseid.engines.protocol import EngineError


class ModelError(EngineError):
    """A model reference that cannot be turned into a usable directory."""


class ModelNotFoundError(ModelError):
    """There is no such model, revision or directory."""


class ModelAccessError(ModelError):
    """The model exists, but this user may not download it."""


class ModelDownloadError(ModelError):
    """The hub could not be reached or the download broke off. Running again resumes it."""


class ModelIncompleteError(ModelError):
    """The directory lacks its configuration, weights or tokenizer."""


class EngineStartError(EngineError):
    """The engine did not come up."""


class EngineDiedError(EngineError):
    """The engine's process ended while requests were in flight."""


class EngineClosedError(EngineError):
    """The engine was closed before it answered."""


class UnsupportedSamplingError(EngineError):
    """This engine cannot decode as the request asks, whatever the prompt. Nothing was computed."""


class EndpointError(EngineError):
    """An OpenAI-compatible endpoint refused, failed or answered nonsense."""


class EndpointAuthError(EndpointError):
    """The endpoint did not accept the API key."""


class EndpointModelError(EndpointError):
    """The endpoint does not serve that model, or not at that URL."""


class EndpointUnreachableError(EndpointError):
    """No connection, or no answer in time."""


class JournalError(EngineError):
    """The journal of model calls cannot be used."""


class JournalLockedError(JournalError):
    """Another process writes the journal."""


class JournalCorruptError(JournalError):
    """A line of the journal is damaged, and not by a write that was cut off at the end."""


class RecordedAnswersError(EngineError):
    """A file of recorded answers cannot be read or written. Where a line is at fault, the message names it."""


class NotRecordedError(RecordedAnswersError):
    """The file holds no answer to this request."""


class BudgetExceededError(EngineError):
    """The call might cost more than is left of the budget; it was not made."""
