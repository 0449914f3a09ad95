from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import helm_binaries
import pytest
from helm_binaries import NoHelmError, find_clients

PACKAGE = "stand-in-for-helm"


class Package:
    """An installed package like the one that Helm comes with, with scripts in place of programs."""

    def __init__(self, directory: Path) -> None:
        self.cache = directory / "cache"
        self.site = directory / "site"
        self.site.mkdir()
        self.environment = {"XDG_CACHE_HOME": str(self.cache)}

    def install(self, version: str = "1.0", programs: tuple[str, ...] = ("helm", "kubectl")) -> None:
        information = self.site / f"stand_in_for_helm-{version}.dist-info"
        information.mkdir()
        information.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n")
        information.joinpath("RECORD").write_text("archive.jsii.tgz,,\n")
        layer = io.BytesIO()
        with zipfile.ZipFile(layer, "w") as inner:
            for name in programs:
                inner.writestr(f"{name}/{name}", f"#!/bin/sh\necho {name} {version}\n")
        with tarfile.open(self.site / "archive.jsii.tgz", "w:gz") as outer:
            member = tarfile.TarInfo("package/lib/layer.zip")
            member.size = layer.tell()
            layer.seek(0)
            outer.addfile(member, layer)

    def remove(self) -> None:
        for path in sorted(self.site.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    made = Package(tmp_path)
    monkeypatch.syspath_prepend(made.site)
    return made


def said(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()


def test_the_programs_are_unpacked_once_and_kept(package: Package) -> None:
    package.install()
    clients = find_clients(package.environment, PACKAGE)
    assert [said(clients.helm), said(clients.kubectl)] == ["helm 1.0", "kubectl 1.0"]
    (package.site / "archive.jsii.tgz").unlink()
    assert find_clients(package.environment, PACKAGE) == clients


def test_another_version_is_unpacked_beside_it(package: Package) -> None:
    package.install("1.0")
    before = find_clients(package.environment, PACKAGE)
    package.remove()
    package.install("2.0")
    assert said(find_clients(package.environment, PACKAGE).helm) == "helm 2.0"
    assert said(before.helm) == "helm 1.0"


def test_without_the_package_the_error_says_how_to_get_it(package: Package) -> None:
    with pytest.raises(NoHelmError, match="stand-in-for-helm, which is not installed: run 'make setup'"):
        find_clients(package.environment, PACKAGE)


def test_an_archive_without_a_program_is_an_error_and_nothing_is_kept(package: Package) -> None:
    package.install(programs=("helm",))
    for _ in range(2):
        with pytest.raises(NoHelmError, match="kubectl/kubectl"):
            find_clients(package.environment, PACKAGE)
    package.remove()
    package.install()
    assert said(find_clients(package.environment, PACKAGE).kubectl) == "kubectl 1.0"


def test_the_command_puts_both_first_in_the_path() -> None:
    command = f'eval "$({sys.executable} {helm_binaries.__file__})" && helm version --short && kubectl version --client'
    printed = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("v4.")
    assert "Client Version: v1.36" in printed
