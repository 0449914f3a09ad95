"""A pod is killed in the middle of a stage whose calls are paid for, and the next one starts on another machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from paid_endpoint import PaidEndpoint
from s3_server import S3Server

from perseid.api.attempt import Attempt
from perseid.api.layout import JOURNAL, RESULT, SCRATCH_DIRECTORY, working_copy
from perseid.api.result import StageResult
from perseid.api.spec import EvolutionRun
from perseid.engines.journal import read_journal
from perseid.storage.directories import fetch_file
from perseid.storage.errors import ObjectChangedError
from perseid.storage.index import read_index
from perseid.storage.mirror import DirectoryMirror
from perseid.storage.objects import Objects
from perseid.storage.pusher import PUSH_SECONDS

KEY = "generations/000/attempts/0/synthesize"
PATIENCE_SECONDS = 90
PROGRAM = Path(__file__).with_name("run_one_stage.py")
ANSWERS = 7


def until(condition: Callable[[], bool], pod: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert pod.poll() is None, "the stage has ended"
        assert time.monotonic() < deadline
        time.sleep(0.02)  # files and objects can only be looked at


def submission(directory: Path, root: str, endpoint: str) -> Path:
    """A search of six problems by an endpoint that is paid for."""
    problems = "".join(
        json.dumps({"id": name, "statement": f"Write {name}(x).", "entry_point": name, "tests": [f"assert {name}(1)"]})
        + "\n"
        for name in ("one", "two", "three", "four", "five", "six")
    )
    (directory / "problems.jsonl").write_text(problems)
    source = {"source": "jsonl", "path": str(directory / "problems.jsonl")}
    spec = {
        "problems": {"train": source, "dev": {**source, "name": "dev"}, "test": []},
        "synthesis": {
            "policyEndpoint": {"baseUrl": endpoint, "model": "paid", "maxRequestsInFlight": 2},
            "search": {"rounds": 2, "branch": 2, "maxDepth": 2, "minPlanWords": 0, "completenessCheck": False},
        },
        "sandbox": {"workers": 1},
    }
    attempt = Attempt(
        run=EvolutionRun.model_validate({"metadata": {"name": "paid"}, "spec": spec}),
        run_id="6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11",
        generation=0,
        number=0,
        storage=root,
        start_model="org/name",
    )
    path = directory / "attempt.json"
    path.write_text(attempt.model_dump_json(by_alias=True))
    return path


def start_pod(told: Path, scratch: Path, push_seconds: float) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        SCRATCH_DIRECTORY: str(scratch),
        PUSH_SECONDS: str(push_seconds),
        "OPENAI_API_KEY": "none",
    }
    return subprocess.Popen([sys.executable, str(PROGRAM), "synthesize", str(told)], env=environment)


def stored_calls(root: str, directory: Path) -> int:
    """Calls in the journal as another machine would fetch it; 0 where its writer has joined segments since we looked
    which they are, as whoever does not write must expect: the next look finds the new ones."""
    objects = Objects(root)
    found = read_index(objects, KEY)
    if found is None or JOURNAL not in found[0].files:
        return 0
    try:
        fetch_file(objects, KEY, JOURNAL, found[0].files[JOURNAL], directory / JOURNAL)
    except ObjectChangedError:
        return 0
    calls = len(read_journal(directory / JOURNAL))
    (directory / JOURNAL).unlink()
    return calls


def finish_elsewhere(told: Path, root: str, tmp_path: Path, endpoint: PaidEndpoint, paid: list[str]) -> None:
    """Another machine goes on to the end; nothing of `paid` is asked again."""
    asked = len(endpoint.asked)
    endpoint.go_on()
    pod = start_pod(told, tmp_path / "machine-2", 30)
    assert pod.wait(PATIENCE_SECONDS) == 0
    again = endpoint.asked[asked:]
    assert again, "there was nothing left to do: the kill has tested nothing"
    assert not set(again) & set(paid), "a call was paid for twice"
    assert max(Counter(again).values()) == 1
    found = Objects(root).read(f"{KEY}/{RESULT}")
    assert found is not None
    result = StageResult.model_validate_json(found[0])
    assert result.state == "done"
    assert result.usage.calls == len(set(again) | set(paid))


# Slow (10 s): two processes, one after the other, import the search and its engines.
@pytest.mark.slow
def test_after_sigkill_the_stage_goes_on_on_another_machine_and_pays_for_nothing_twice(
    root: str, tmp_path: Path
) -> None:
    with PaidEndpoint(ANSWERS) as endpoint:
        told = submission(tmp_path, root, endpoint.base_url)
        pod = start_pod(told, tmp_path / "machine-1", 3600)  # so that only the journal's own pushes can help
        try:
            endpoint.wait_until_it_holds(PATIENCE_SECONDS)
            paid = list(endpoint.answered)
            answered = time.monotonic()
            until(lambda: stored_calls(root, tmp_path) == ANSWERS, pod)
            assert time.monotonic() - answered < 10, "what was paid for is long in danger"
        finally:
            pod.kill()
            assert pod.wait() == -signal.SIGKILL
        assert Objects(root).read(f"{KEY}/{RESULT}") is None
        finish_elsewhere(told, root, tmp_path, endpoint, paid)


# Slow (10 s), as above.
@pytest.mark.slow
def test_sigterm_pushes_what_was_paid_for_before_the_process_ends(root: str, tmp_path: Path) -> None:
    with PaidEndpoint(ANSWERS) as endpoint:
        told = submission(tmp_path, root, endpoint.base_url)
        pod = start_pod(told, tmp_path / "machine-1", 3600)
        journal = tmp_path / "machine-1" / working_copy(root).name / KEY / JOURNAL
        try:
            endpoint.wait_until_it_holds(PATIENCE_SECONDS)
            paid = list(endpoint.answered)
            until(lambda: journal.exists() and journal.read_bytes().count(b"\n") == ANSWERS + 1, pod)
            began = time.monotonic()
            pod.terminate()
            assert pod.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
            assert time.monotonic() - began < 20, "a pod is killed after 30"
        finally:
            pod.kill()
            pod.wait()
        assert stored_calls(root, tmp_path) == ANSWERS
        found = read_index(Objects(root), KEY)
        assert found is not None
        assert "progress.json" in found[0].files, "only the journal was pushed"
        finish_elsewhere(told, root, tmp_path, endpoint, paid)


# Slow (10 s), as above.
@pytest.mark.slow
def test_a_pod_that_was_cut_off_stops_asking_when_its_replacement_begins(
    root: str, tmp_path: Path, server: S3Server
) -> None:
    assert server.endpoint
    with PaidEndpoint(ANSWERS) as endpoint:
        told = submission(tmp_path, root, endpoint.base_url)
        pod = start_pod(told, tmp_path / "machine-1", 0.5)
        try:
            endpoint.wait_until_it_holds(PATIENCE_SECONDS)
            until(lambda: stored_calls(root, tmp_path) == ANSWERS, pod)
            DirectoryMirror(Objects(root), KEY, tmp_path / "replacement").take_over()
            assert pod.wait(PATIENCE_SECONDS) == 1, "it went on"
        finally:
            pod.kill()
            pod.wait()
        before = read_index(Objects(root), KEY)
        assert before is not None
        assert before[0].epoch == 2
        assert Objects(root).read(f"{KEY}/{RESULT}") is None
