"""The operator, which waits some seconds for an API server that refuses it or says nothing, where it else waits a
minute."""

from __future__ import annotations

import kopf

from perseid_operator import __main__ as operator
from perseid_operator import app
from perseid_operator.handlers import kopf_settings
from perseid_operator.kube import connection

SECONDS = 3.0


def hurried() -> kopf.OperatorSettings:
    """The operator's settings for Kopf, but for the times."""
    settings = kopf_settings()
    settings.watching.inactivity_timeout = SECONDS
    settings.networking.error_backoffs = [SECONDS / 10] * 2  # all of them before the silence is too long
    return settings


if __name__ == "__main__":
    connection.TIMEOUT_SECONDS = SECONDS
    app.kopf_settings = hurried
    operator.main()
