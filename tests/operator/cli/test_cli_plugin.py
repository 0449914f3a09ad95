"""How the commands of clusters come into `perseid`, and what there is without them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from perseid.cli import exits
from perseid.cli.app import CLUSTER_COMMANDS, add_plugins
from perseid_operator.cli import commands


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """A distribution with one plugin, and no other: what is installed here must not matter."""
    metadata = directory / "fake_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[perseid.commands]\nclusters = {entry}\n")
    monkeypatch.syspath_prepend(directory)
    from importlib.metadata import entry_points

    ours = [
        one for one in entry_points(group="perseid.commands") if one.dist is not None and one.dist.name == "fake-plugin"
    ]
    assert len(ours) == 1
    monkeypatch.setattr("perseid.cli.app.entry_points", lambda group: ours if group == "perseid.commands" else [])


def app() -> typer.Typer:
    made = typer.Typer()

    @made.command()
    def validate() -> None:
        """A command of its own."""

    add_plugins(made)
    return made


def test_the_operators_entry_point_brings_every_command_of_clusters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "perseid_operator.cli:commands")
    shown = CliRunner().invoke(app(), ["--help"]).output
    for name in CLUSTER_COMMANDS:
        assert f" {name} " in shown
    assert {one.name or one.callback.__name__ for one in commands.registered_commands if one.callback} == set(
        CLUSTER_COMMANDS
    )


def test_any_plugin_may_bring_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys_plugin.py").write_text(
        "import typer\napp = typer.Typer()\n@app.command()\ndef greet():\n    typer.echo('hello')\n"
    )
    install(tmp_path, monkeypatch, "somebodys_plugin:app")
    assert CliRunner().invoke(app(), ["greet"]).output == "hello\n"


@pytest.mark.parametrize("name", CLUSTER_COMMANDS)
def test_without_the_plugin_a_command_of_clusters_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    install(tmp_path, monkeypatch, "a_package_that_nobody_has:commands")
    result = CliRunner().invoke(app(), [name, "some-run", "-n", "lab", "--unheard-of"])
    assert result.exit_code == exits.MISTAKE
    assert f"`perseid {name}` speaks to clusters and needs Perseid's extra `operator`" in result.stderr
    help_text = CliRunner().invoke(app(), ["--help"]).output
    assert f" {name} " not in help_text
    assert "validate" in help_text


def test_without_kubernetes_client_the_commands_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.startswith("perseid_operator.cli.")]:
        if name != "perseid_operator.cli.commands":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio", None)
    monkeypatch.setitem(sys.modules, "kubernetes_asyncio.client", None)
    result = CliRunner().invoke(commands, ["get"])
    assert result.exit_code == exits.MISTAKE
    assert "pip install 'perseid[operator]'" in result.stderr


def test_loading_the_plugin_imports_no_client_of_kubernetes() -> None:
    # Over a second: a fresh interpreter imports the command.
    program = (
        "import sys; from perseid.cli.app import app; from perseid_operator.cli import commands;"
        "found = {'kubernetes_asyncio', 'kfp', 'aiohttp', 'obstore', 'kopf'} & set(sys.modules);"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["perseid.cli", "perseid_operator.cli"])
def test_either_package_may_be_imported_first(first: str) -> None:
    # Over a second: a fresh interpreter imports the command.
    second = {"perseid.cli": "perseid_operator.cli", "perseid_operator.cli": "perseid.cli"}[first]
    done = subprocess.run(
        [sys.executable, "-c", f"import {first}; import {second}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
