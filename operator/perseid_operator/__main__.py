"""`python -m perseid_operator`: the operator's process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

# Kopf imports these clients where they are installed, for ways to log in that the operator does not use, and to know
# their models: 75 MB and 34 MB for nothing.
for _unused in ("kubernetes", "kubernetes_asyncio"):
    sys.modules.setdefault(_unused, None)  # type: ignore[arg-type]

from perseid_operator.app import run  # noqa: E402
from perseid_operator.kube.protocol import KubeError  # noqa: E402
from perseid_operator.logs import configure_logs  # noqa: E402
from perseid_operator.settings import SettingsError, load_settings  # noqa: E402

log = logging.getLogger(__package__)


def main() -> None:
    """Read the settings and run."""
    try:
        settings = load_settings(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    configure_logs(settings.log_format, settings.log_level)
    try:
        sys.exit(asyncio.run(run(settings)))
    except KubeError as error:
        log.critical("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
