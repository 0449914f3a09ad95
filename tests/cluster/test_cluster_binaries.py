from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import cluster_binaries
import pytest
from cluster_binaries import BuildFailedError, NoControlPlaneError, find_kubectl, find_or_build

COMMAND = [sys.executable, str(Path(__file__).with_name("control_plane.py")), "build"]
# Does what `go build -o DIRECTORY/ tool` does to files. It stops half way where a pipe called "gate" tells it to wait.
STAND_IN_GO = """#!/bin/sh
here=${0%/*}
echo $$ >> "$here/calls"
while [ "$1" != -o ]; do shift; done
echo half > "$2server"
if [ -p "$here/gate" ]; then read -r line < "$here/gate"; fi
if [ -f "$here/broken" ]; then echo "cannot find module"; exit 1; fi
for program in server kube-apiserver kube-controller-manager kubectl; do echo whole > "$2$program"; done
"""


class StandInGo:
    """A `go` in PATH that makes files instead of programs, and an empty cache."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = directory / "cache"
        self.environment = {"PATH": f"{directory}:/usr/bin:/bin", "XDG_CACHE_HOME": str(self.cache)}
        go = directory / "go"
        go.write_text(STAND_IN_GO)
        go.chmod(0o755)

    @property
    def calls(self) -> list[int]:
        record = self.directory / "calls"
        return [int(line) for line in record.read_text().split()] if record.exists() else []

    def kept(self) -> list[str]:
        return sorted(path.name for path in (self.cache / "perseid" / "control-plane").glob("*") if path.is_dir())

    def make_assets(self, *names: str) -> Path:
        assets = self.directory / "assets"
        assets.mkdir()
        for name in names:
            (assets / name).touch()
        return assets

    def build_in_a_process(self) -> subprocess.Popen[str]:
        return subprocess.Popen(COMMAND, env=self.environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def go(tmp_path: Path) -> StandInGo:
    return StandInGo(tmp_path)


@pytest.fixture
def gate(go: StandInGo) -> Path:
    path = go.directory / "gate"
    os.mkfifo(path)
    return path


def test_a_build_is_done_once_and_kept(go: StandInGo) -> None:
    said: list[str] = []
    first = find_or_build(go.environment, said.append)
    assert find_or_build(go.environment, said.append) == first
    assert len(go.calls) == len(said) == 1
    assert first.kube_controller_manager is not None
    assert {path.read_text() for path in (first.etcd, first.kube_apiserver, first.kubectl)} == {"whole\n"}


def test_other_modules_are_another_build(go: StandInGo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_or_build(go.environment, print)
    changed = go.directory / "module"
    shutil.copytree(cluster_binaries.MODULE, changed)
    with (changed / "go.sum").open("a") as file:
        file.write("example.org/another v1.0.0 h1:=\n")
    monkeypatch.setattr(cluster_binaries, "MODULE", changed)
    assert find_or_build(go.environment, print).etcd != before.etcd
    assert len(go.calls) == 2


def test_a_killed_build_leaves_nothing_that_the_next_one_believes_in(go: StandInGo, gate: Path) -> None:
    builder = go.build_in_a_process()
    with gate.open("w"):  # Opens when the other end is: go has made half of it then.
        (compiler,) = go.calls
        ended = os.pidfd_open(compiler)
        builder.kill()
        builder.wait()
        assert select.select([ended], [], [], 30)[0], "go outlived the build that started it"
    os.close(ended)
    gate.unlink()
    binaries = find_or_build(go.environment, print)
    assert binaries.etcd.read_text() == "whole\n"
    assert len(go.calls) == 2
    assert go.kept() == [binaries.etcd.parent.name]


def test_of_two_builds_at_once_one_builds_and_the_other_waits_for_it(go: StandInGo, gate: Path) -> None:
    first = go.build_in_a_process()
    with gate.open("w") as opened:
        second = go.build_in_a_process()
        assert second.stderr is not None
        assert "waiting for another build" in second.stderr.readline()
        opened.write("go on\n")
    for builder in (first, second):
        _, errors = builder.communicate(timeout=60)
        assert builder.returncode == 0, errors
    assert len(go.calls) == 1


def test_a_build_that_fails_says_what_go_said_and_keeps_nothing(go: StandInGo) -> None:
    (go.directory / "broken").touch()
    with pytest.raises(BuildFailedError, match="cannot find module"):
        find_or_build(go.environment, print)
    (go.directory / "broken").unlink()
    assert find_or_build(go.environment, print).etcd.read_text() == "whole\n"


def test_without_go_and_cluster_the_error_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(NoControlPlaneError, match="install Go"):
        find_or_build({"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}, print)


def test_the_programs_of_envtest_come_before_a_build(go: StandInGo) -> None:
    assets = go.make_assets("etcd", "kube-apiserver", "kubectl")
    binaries = find_or_build({**go.environment, "KUBEBUILDER_ASSETS": str(assets)}, print)
    assert binaries.etcd == assets / "etcd"
    assert binaries.kube_controller_manager is None
    assert go.calls == []


def test_an_incomplete_directory_of_envtest_is_an_error_that_names_what_it_lacks(go: StandInGo) -> None:
    assets = go.make_assets("etcd", "kube-apiserver")
    with pytest.raises(FileNotFoundError, match="no kubectl"):
        find_or_build({**go.environment, "KUBEBUILDER_ASSETS": str(assets)}, print)
    assert go.calls == []


def test_somebody_elses_cluster_needs_a_kubectl_and_no_build(go: StandInGo) -> None:
    here = {"PATH": str(go.directory), "XDG_CACHE_HOME": str(go.cache)}
    with pytest.raises(NoControlPlaneError, match="install it"):
        find_kubectl(here)
    built = find_or_build(go.environment, print)
    assert find_kubectl(here) == built.kubectl


@pytest.mark.parametrize(("has_kubectl", "builds"), [(True, 0), (False, 1)])
def test_the_command_builds_for_somebody_elses_cluster_only_what_is_missing(
    go: StandInGo, has_kubectl: bool, builds: int
) -> None:
    go.environment["PATH"] = str(go.directory)  # Without this machine's own kubectl, if it has one.
    if has_kubectl:
        kubectl = go.directory / "kubectl"
        kubectl.touch()
        kubectl.chmod(0o755)
    go.environment["PERSEID_TEST_KUBECONFIG"] = "/somebody/elses"
    subprocess.run(COMMAND, env=go.environment, check=True)
    assert len(go.calls) == builds
