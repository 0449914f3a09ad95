"""Fine-tuning by several processes, of one machine or of several nodes: torch's launcher starts those of this one, and
all make one call together.

`python -m perseid.training.several CALL` is one of them. Accelerate's own launcher starts processes on CPUs only with
MPI, and is torch's for GPUs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from perseid.api.training import FinetuneSpec
from perseid.data.jsonl import read_jsonl, write_json, write_jsonl
from perseid.data.records import TrainingSample
from perseid.processes import DIE_WITH, die_with_starter, stop_group
from perseid.training.errors import TrainingError
from perseid.training.finetune import TrainingResult, fine_tune
from perseid.training.manifest import TrainingDType, read_manifest
from perseid.training.trainer import TrainingProgress
from perseid.training.world import World

LOOK_SECONDS = 0.2
"""How often progress is looked for."""
CALL, SAMPLES, PROGRESS, END = "call.json", "samples.jsonl", "progress.jsonl", "end.json"


def fine_tune_in_processes(
    world: World,
    samples: Sequence[TrainingSample],
    base: Path,
    output: Path,
    work_dir: Path,
    spec: FinetuneSpec,
    *,
    seed: int,
    dtype: TrainingDType,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    base_model_id: str | None = None,
    base_ref: str | None = None,
    trust_remote_code: bool = False,
) -> TrainingResult | None:
    """`fine_tune` by so many processes: on GPUs one on each, else on CPUs. They end with this process, and when it
    raises; the checkpoints stay for the next call, by however many processes. Where the world has several nodes, all
    of them make this call. None on other nodes than the first, which has the model.

    Raises TrainingError, also where a process was killed.
    """
    # A name that is not pushed where the storage is object storage: progress grows, and is of no use to another try.
    place = work_dir / ".processes"
    place.mkdir(parents=True, exist_ok=True)
    for name in (PROGRESS, END):
        (place / name).unlink(missing_ok=True)
    write_jsonl(place / SAMPLES, samples)
    options = {"base_model_id": base_model_id, "base_ref": base_ref, "trust_remote_code": trust_remote_code}
    call = {
        "base": str(base),
        "output": str(output),
        "work_dir": str(work_dir),
        "spec": spec.model_dump(mode="json"),
        "options": {"seed": seed, "dtype": dtype, **options},
    }
    write_json(place / CALL, call)
    process = _start(world, place)
    try:
        for told in _progress(process, place / PROGRESS):
            if on_progress is not None:
                on_progress(told)
    finally:
        if process.poll() is None:
            stop_group(process)
    if process.returncode != 0:
        raise TrainingError(_why(place, world, process.returncode))
    if world.node != 0:
        return None
    manifest = read_manifest(output)
    end = json.loads((place / END).read_text())
    if manifest is None:
        raise TrainingError(f"{output} is not there after {world.size} processes have trained it")
    return TrainingResult(output, manifest, reused=end["reused"], resumed_from_step=end["resumed_from_step"])


def _start(world: World, place: Path) -> subprocess.Popen[bytes]:
    import torch

    environment = {**os.environ, DIE_WITH: str(os.getpid())}
    if not torch.cuda.is_available():
        environment["ACCELERATE_USE_CPU"] = "true"
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // world.processes)))
    launcher = ["-m", "torch.distributed.run", *world.arguments()]
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "perseid.training.several", str(place / CALL)],
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _progress(process: subprocess.Popen[bytes], path: Path) -> Iterator[TrainingProgress]:
    """What the main process says, until all have ended."""
    seen = 0
    while True:
        try:
            process.wait(LOOK_SECONDS)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        for line in lines[seen:]:
            yield TrainingProgress(**json.loads(line))
        seen = len(lines)
        if ended:
            return


def _why(place: Path, world: World, code: int) -> str:
    try:
        error: str | None = json.loads((place / END).read_text()).get("error")
    except FileNotFoundError:
        error = None
    if error is not None:
        return error
    if world.nodes > 1:
        return (
            f"one of the {world.size} processes that trained on {world.nodes} nodes has ended (the launcher's exit code"
            f" on node {world.node} is {code}); the nodes' logs say which. Was it killed, or out of memory?"
        )
    return (
        f"one of the {world.size} processes that trained has ended (the launcher's exit code is {code}); the stage's"
        " log says which. Was it killed, or out of memory?"
    )


def main(call: Path) -> None:
    """One of the processes."""
    die_with_starter()
    place = call.parent
    told = json.loads(call.read_bytes())
    main_process = os.environ["RANK"] == "0"
    with (place / PROGRESS).open("a") as progress:

        def tell(one: TrainingProgress) -> None:
            progress.write(json.dumps(dataclasses.asdict(one)) + "\n")
            progress.flush()

        try:
            result = fine_tune(
                read_jsonl(place / SAMPLES, TrainingSample, may_be_empty=True),
                Path(told["base"]),
                Path(told["output"]),
                Path(told["work_dir"]),
                FinetuneSpec.model_validate(told["spec"]),
                on_progress=tell,
                **told["options"],
            )
        except TrainingError as error:
            _end(place, error=str(error))
            raise
    if main_process:
        _end(place, reused=result.reused, resumed_from_step=result.resumed_from_step)


def _end(place: Path, **said: Any) -> None:
    write_json(place / END, said)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
