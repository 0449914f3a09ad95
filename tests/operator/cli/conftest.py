"""A stand-in API server, and the commands against it; and the real one, for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stand_in_api import StandInApi
from typer.testing import CliRunner, Result

from cluster_fixtures import *  # noqa: F403
from perseid_operator.cli import commands

Perseid = Callable[..., Result]


@pytest.fixture
def api() -> Iterator[StandInApi]:
    with StandInApi() as running:
        yield running


@pytest.fixture
def perseid(api: StandInApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Perseid:
    """The commands, with a kubeconfig of the stand-in. Their output is as wide as in a pipe."""
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))

    def invoke(*arguments: str | Path) -> Result:
        return CliRunner().invoke(commands, [str(argument) for argument in arguments])

    return invoke
