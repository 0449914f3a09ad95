"""The programs of a control plane: found among envtest's, or built once from their Go modules and kept.

What is built is kept under the user's cache directory by a digest of all that it is made of. A build is done in a
directory of its own and moved into place when it is whole, under a lock that the kernel drops with its holder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster_programs import Starter, end_of

MODULE = Path(__file__).with_name("go")
"""The Go module whose tools the programs are."""
BUILD = ("build", "-mod=readonly", "-trimpath", "-buildvcs=false")
BUILT_NAMES = {"server": "etcd"}
"""What Go calls a program, where that is not its name: it goes by the last part of the import path."""
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
HOW_TO_GET_ONE = (
    "install Go 1.26 or newer (the control plane is then built from source, once), or set KUBEBUILDER_ASSETS to a "
    "directory with envtest's etcd, kube-apiserver and kubectl, or PERSEID_TEST_KUBECONFIG to the kubeconfig of a "
    "cluster for tests"
)


class NoControlPlaneError(Exception):
    """This machine has neither a cluster nor the means to make one; the message says what to install."""


class BuildFailedError(RuntimeError):
    """Go could not build the control plane; the end of its output is in the message."""


@dataclass(frozen=True)
class Binaries:
    """Paths of the programs. envtest has no kube-controller-manager."""

    etcd: Path
    kube_apiserver: Path
    kubectl: Path
    kube_controller_manager: Path | None


def find_or_build(environment: Mapping[str, str], say: Callable[[str], None]) -> Binaries:
    """The programs that `environment` names, those built before, or new ones.

    Building takes minutes; `say` is told before.

    Raises NoControlPlaneError without any of them, FileNotFoundError when KUBEBUILDER_ASSETS lacks a program,
    BuildFailedError.
    """
    if assets := environment.get("KUBEBUILDER_ASSETS"):
        return _binaries_in(Path(assets))
    kept = _kept(environment)
    if not kept.is_dir():
        _build(kept, environment, say)
    return _binaries_in(kept)


def find_kubectl(environment: Mapping[str, str]) -> Path:
    """A kubectl, without building one: envtest's, the one in PATH, or the one built before.

    Raises NoControlPlaneError where there is none.
    """
    found = shutil.which("kubectl", path=environment.get("PATH"))
    candidates = [
        Path(environment.get("KUBEBUILDER_ASSETS", os.devnull)) / "kubectl",
        *([Path(found)] if found else []),
        _kept(environment) / "kubectl",
    ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise NoControlPlaneError(
        "the tests on the cluster of PERSEID_TEST_KUBECONFIG need kubectl: install it, or build one with "
        "'python tests/cluster/control_plane.py build'"
    )


def _binaries_in(directory: Path) -> Binaries:
    paths = {name: directory / name for name in PROGRAMS}
    missing = [name for name, path in paths.items() if not path.is_file() and name != "kube-controller-manager"]
    if missing:
        raise FileNotFoundError(f"{directory} has no {' and no '.join(missing)}; complete or remove it")
    manager = paths["kube-controller-manager"]
    return Binaries(
        etcd=paths["etcd"],
        kube_apiserver=paths["kube-apiserver"],
        kubectl=paths["kubectl"],
        kube_controller_manager=manager if manager.is_file() else None,
    )


def cache_directory(environment: Mapping[str, str]) -> Path:
    """Where programs for tests are kept."""
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "perseid"


def _kept(environment: Mapping[str, str]) -> Path:
    return cache_directory(environment) / "control-plane" / _digest()


def _digest() -> str:
    made_of = [(MODULE / name).read_bytes() for name in ("go.mod", "go.sum")]
    made_of.append(" ".join([*BUILD, _link_flags(), platform.machine()]).encode())
    return hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]


def _link_flags() -> str:
    """Strip the programs, and tell them their version, which they otherwise report as v0.0.0."""
    required = re.search(r"^\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if required is None:
        raise ValueError(f"{MODULE / 'go.mod'} requires no k8s.io/kubernetes")
    version, major, minor = required.groups()
    variables = {
        "k8s.io/component-base/version.gitVersion": version,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/client-go/pkg/version.gitVersion": version,
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in variables.items())])


def _build(kept: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    go = shutil.which("go", path=environment.get("PATH"))
    if go is None:
        raise NoControlPlaneError(f"there is no Kubernetes control plane to test with: {HOW_TO_GET_ONE}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with locked(kept.with_suffix(".lock"), lambda: say(f"waiting for another build of {kept}")):
        if kept.is_dir():
            return
        say(
            f"building the Kubernetes control plane into {kept}: once, about 6 minutes on two idle cores; "
            "'python tests/cluster/control_plane.py build' does it outside of the tests"
        )
        unfinished = kept.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)  # What an interrupted build left.
        unfinished.mkdir()
        log = kept.with_suffix(".log")
        log.unlink(missing_ok=True)
        _run_go([go, *BUILD, "-ldflags", _link_flags(), "-o", f"{unfinished}/", "tool"], environment, log)
        for built, name in BUILT_NAMES.items():
            (unfinished / built).rename(unfinished / name)
        _binaries_in(unfinished)
        unfinished.rename(kept)


def _run_go(command: list[str], environment: Mapping[str, str], log: Path) -> None:
    # What the user set for their own work must not change what is built.
    others = {name: value for name, value in environment.items() if name not in ("GOOS", "GOARCH")}
    settings = {**others, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    starter = Starter()
    try:
        code = starter.start(command, log, directory=MODULE, environment=settings).wait()
    finally:
        starter.close()
    if code != 0:
        raise BuildFailedError(f"{shlex.join(command)} in {MODULE} ended with code {code}; {end_of(log)}")


@contextmanager
def locked(path: Path, when_taken: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that goes with this process. The file stays: another may be waiting on it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_taken()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
