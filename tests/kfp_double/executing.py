"""Runs that are really carried out, with the stages' own code, on this machine.

A run's process belongs to the cluster and not to the API server: it goes on when the double is killed, and the next
double over the same state finds it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from pydantic import ValidationError

from kfp_double.failures import INVALID, Failure
from kfp_double.parts import Look
from perseid.api.attempt import Attempt
from perseid.api.layout import PROGRESS, Layout, read_stage_result
from perseid.api.progress import read_progress
from perseid.api.spec import EvolutionRun
from perseid.api.stages import shard_name
from perseid.pipelines.generation import compile_pipeline, compile_template
from perseid.processes import DIE_WITH

SUBMISSION = "submission.json"
EXIT = "exit.json"
STARTED = "started.json"
LOG = "log.txt"
SUPERVISOR = Path(__file__).with_name("supervisor.py")
FILLED_IN = re.compile(r"\{\{|\$[$(]|\x7f")
PARAMETERS = ("run", "run_id", "generation", "attempt", "storage", "start_model")


def attempt_of(parameters: dict[str, Any]) -> Attempt:
    """A pipeline's parameters as what its stages are told. Raises Failure (400), also for what Argo or the kubelet
    would fill in on the way: a real KFP takes it, and the stages are told something else."""
    missing = [name for name in PARAMETERS if name not in parameters]
    if missing:
        raise Failure(INVALID, f"a generation's pipeline needs the parameters {missing}")
    if filled_in := FILLED_IN.search(json.dumps(parameters, ensure_ascii=False)):
        raise Failure(INVALID, f"{filled_in.group()!r} in a parameter does not reach a stage as it is")
    try:
        return Attempt.of_arguments({name: parameters[name] for name in PARAMETERS})
    except ValidationError as error:
        raise Failure(INVALID, f"the parameters make no attempt: {error}") from None


def main_ended(code: int) -> str:
    """What Argo says of a pod whose main container ended so, negative for a signal."""
    return f"main: Error (exit code {128 - code if code < 0 else code})"


Compiled = tuple[dict[str, Any], dict[str, Any] | None]
"""A pipeline, and its part for Kubernetes where it has one."""


def compiled(run: EvolutionRun) -> Iterator[Compiled]:
    """What perseid.pipelines compiles for a run: the template that it shares with others, and its very own pipeline,
    which people start by hand."""
    yield compile_template(run.spec.template)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "pipeline.yaml"
        compile_pipeline(run, path)
        pipeline, *platform = yaml.safe_load_all(path.read_text())
    yield pipeline, platform[0] if platform else None


def is_of_its_run(pipeline: dict[str, Any], platform: dict[str, Any] | None, run: EvolutionRun) -> bool:
    """Whether it is one of those."""
    posted = _normal(pipeline), platform or {}
    return any(posted == (_normal(wanted), part or {}) for wanted, part in compiled(run))


class ProcessExecutor:
    """Starts `python -m perseid.runner.worker` for each Workflow."""

    def __init__(
        self,
        directory: Path,
        *,
        die_with: int | None = None,
        worker: tuple[str, ...] = ("-m", "perseid.runner.worker"),
    ) -> None:
        """`directory`: a place of its own for each Workflow's files. `die_with`: the process that no run outlives, by
        default the one that started the double."""
        self._directory = directory
        self._die_with = die_with or os.getppid()
        self._worker = worker
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._compiling = asyncio.Lock()

    async def check(self, spec: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Raises Failure where the pipeline is not the one that perseid.pipelines compiles for the run in it."""
        attempt = attempt_of(parameters)
        async with self._compiling:
            fits = await asyncio.to_thread(is_of_its_run, spec["pipeline_spec"], spec.get("platform_spec"), attempt.run)
        if not fits:
            raise Failure(INVALID, "the posted pipeline is not what perseid.pipelines compiles for its run")

    async def start(self, workflow: dict[str, Any]) -> None:
        self._launch(workflow)

    def _launch(self, workflow: dict[str, Any]) -> None:
        directory = self._of(workflow)
        directory.mkdir(parents=True, exist_ok=True)
        submission = directory / SUBMISSION
        submission.write_text(attempt_of(workflow["parameters"]).model_dump_json(by_alias=True))
        for name in (EXIT, STARTED):
            (directory / name).unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", DIE_WITH: str(self._die_with)}
        command = [sys.executable, str(SUPERVISOR), str(directory), sys.executable, *self._worker, str(submission)]
        with (directory / LOG).open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._children[workflow["name"]] = child
        started = {"pid": child.pid, "birth": _birth(child.pid)}
        scratch = directory / f".{STARTED}"
        scratch.write_text(json.dumps(started))
        scratch.rename(directory / STARTED)

    async def look(self, workflow: dict[str, Any]) -> Look:
        directory = self._of(workflow)
        alive = self._alive(workflow)
        # In this order: a process that ends in between has left its exit file.
        try:
            code: int | None = int(json.loads((directory / EXIT).read_text())["code"])
        except FileNotFoundError:
            code = None if alive else -signal.SIGKILL
        tasks = _tasks(attempt_of(workflow["parameters"]), workflow["tasks"], over=code is not None)
        return Look(code, tasks, "" if code is None else main_ended(code))

    async def stop(self, workflow: dict[str, Any]) -> None:
        """Kill the run's whole process group, as Kubernetes kills its pods."""
        try:
            started = json.loads((self._of(workflow) / STARTED).read_text())
        except FileNotFoundError:
            return
        if started["birth"] == _birth(started["pid"]):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started["pid"], signal.SIGKILL)
        child = self._children.pop(workflow["name"], None)
        if child is not None:
            await asyncio.to_thread(child.wait)

    def _alive(self, workflow: dict[str, Any]) -> bool:
        child = self._children.get(workflow["name"])
        if child is not None:
            return child.poll() is None
        try:
            started = json.loads((self._of(workflow) / STARTED).read_text())
        except FileNotFoundError:
            return False
        return bool(started["birth"] == _birth(started["pid"]))

    def _of(self, workflow: dict[str, Any]) -> Path:
        return self._directory / str(workflow["name"])


def _tasks(attempt: Attempt, before: list[dict[str, Any]], over: bool) -> list[dict[str, Any]]:
    """The stages as tasks, from what they write."""
    layout = Layout.of(attempt)
    tasks = []
    for task in before:
        name = task["name"]
        known = {"name": name, "retried": task["retried"], "state": None}
        shards = attempt.run.spec.pipeline.shards
        names = [shard_name(shard) for shard in range(shards)] if name.startswith("for-loop-") else [name]
        begun = [path for path in map(layout.stage, names) if path.exists()]
        if begun:
            progress = read_progress(begun[0] / PROGRESS)
            results = [result for path in begun if (result := read_stage_result(path)) is not None]
            failed = any(result.state == "failed" for result in results)
            known["start"] = int(progress.started_at if progress is not None else begun[0].stat().st_ctime)
            known["state"] = "RUNNING"
            if failed or len(results) == len(names):
                known["state"] = "FAILED" if failed else "SUCCEEDED"
                known["end"] = int(max(path.stat().st_mtime for one in begun if (path := one / "result.json").exists()))
            elif over:
                known["state"], known["end"] = "FAILED", known["start"]
        tasks.append(known)
    return tasks


def _normal(pipeline: Any) -> dict[str, Any]:
    parsed = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    parsed.sdk_version = ""
    return json_format.MessageToDict(parsed)


def _birth(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: a number that no later process of the same id shares."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
