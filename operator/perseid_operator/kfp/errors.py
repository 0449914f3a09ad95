"""What can go wrong between the operator and Kubeflow Pipelines. Every message says what to do.

What is known after each of them decides what may be done next, above all after `create_run`:

| error                     | the run after `create_run`             | after any other call          |
|---------------------------|----------------------------------------|-------------------------------|
| RunRejectedError          | does not exist, and never will         | (experiments) nothing created |
| KfpExperimentMissingError | does not exist: no such experiment     |                               |
| KfpUnreachableError       | does not exist: nothing was sent       | not known; ask again          |
| KfpUnauthorizedError      | does not exist: refused before         | nothing done                  |
| KfpRateLimitedError       | does not exist: refused before         | nothing done                  |
| KfpServerError            | does not exist: refused before         | not known; ask again          |
| KfpAmbiguousError         | may exist, or come to exist: ask first |                               |
"""

from __future__ import annotations

from enum import StrEnum


class KfpError(Exception):
    """Base of everything that the client raises."""


class KfpSettingsError(KfpError):
    """The settings of the connection cannot be used; somebody has to change them."""


class UnreachableKind(StrEnum):
    """Why there was no answer."""

    DNS = "dns"
    """The host name is not known."""
    REFUSED = "refused"
    """Nobody listens, or no route leads there."""
    TLS = "tls"
    """The certificates do not fit."""
    CONNECT_TIMEOUT = "connect-timeout"
    """No connection in time."""
    TIMEOUT = "timeout"
    """Connected, but no answer in time."""
    RESET = "reset"
    """Connected, but the connection broke before the answer was whole."""


class KfpUnreachableError(KfpError):
    """No answer. From `create_run` it means that nothing was sent."""

    def __init__(self, message: str, kind: UnreachableKind) -> None:
        super().__init__(message)
        self.kind = kind


class KfpAmbiguousError(KfpError):
    """A creation without a clear answer: the run may exist or come to exist. Never send the same id again before
    `get_run` has said for long enough that there is none.

    A 500 is always one of these. KFP gives 500 for mistakes of users too (an invalid pipeline spec, a wrong executor
    field), but its texts do not tell them from a database that broke after the Workflow was made; only a run that
    cannot be found after the grace time is certain not to be there. What is known to end in a 500 with a Workflow left
    behind (names that are too long, characters of four bytes) is refused before it is sent, by RunRejectedError.
    """

    def __init__(self, message: str, *, status: int | None = None, text: str = "", duplicate: bool = False) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None where no answer came."""
        self.text = text
        """KFP's own words."""
        self.duplicate = duplicate
        """KFP said that a run with this id is there already. It has just started the run a second time."""


class RunRejectedError(KfpError):
    """The request itself is wrong and will be refused every time: a mistake of the user's."""

    def __init__(self, message: str, *, text: str = "") -> None:
        super().__init__(message)
        self.text = text
        """KFP's own words; empty where the client refused to send it."""


class KfpExperimentMissingError(KfpError):
    """The experiment of a run has gone. `ensure_experiment` makes it anew."""


class KfpUnauthorizedError(KfpError):
    """401 or 403, a sign-in page, or no usable token."""


class KfpRateLimitedError(KfpError):
    """429: something in front of KFP wants fewer requests."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the answer asked to wait; None where it did not say."""


class KfpServerError(KfpError):
    """KFP failed, or something answered that is not KFP."""

    def __init__(self, message: str, *, status: int | None = None, text: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.text = text
        """KFP's own words."""
