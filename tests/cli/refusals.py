"""How a run that must be refused is written, started, and looked at: one paragraph, nothing else, and no key in it."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result
from wrong_inputs import GOOD, OF_FILES

from perseid.cli import exits
from perseid.cli.app import app

KEY = "sk-do-not-tell-anybody-0123456789"


def write(directory: Path, run: str = OF_FILES) -> Path:
    for name, content in GOOD.items():
        (directory / name).write_text(str(content))
    (directory / "run.yaml").write_text(run)
    return directory / "run.yaml"


def perseid(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result, *says: str) -> None:
    assert result.exit_code == exits.MISTAKE, result.output
    assert isinstance(result.exception, SystemExit), "something escaped"
    assert_told(result.stdout, result.stderr, *says)


def assert_told(stdout: str, stderr: str, *says: str) -> None:
    assert stdout == ""
    assert "Traceback" not in stderr
    assert "\n" not in stderr.strip(), stderr
    assert KEY not in stderr
    for said in says:
        assert said in stderr, stderr
