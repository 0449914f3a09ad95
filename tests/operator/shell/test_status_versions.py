"""Statuses that earlier versions wrote (statuses/VERSION/), read, decided upon and carried on by this one; and what an
older operator makes of a newer one's status, after a roll-back in the middle of a run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from shell_world import NAME, NAMESPACE, UID, World, open_world, result_of

from perseid.api.base import replace
from perseid.api.reasons import GenerationPhase, Phase
from perseid.api.status import MAX_GENERATIONS_INLINE, MAX_GENERATIONS_READ, EvolutionRunStatus
from perseid.decide import Observed, ObservedRun, Plan, RunState, Submit, decide, run_id_of
from perseid_operator.objects import BadObjectError, read_object, read_status, status_to_json

STATUSES = Path(__file__).with_name("statuses")
VERSIONS = sorted(path.name for path in STATUSES.iterdir())
STORIES = ("mid-run", "suspended", "failed", "completed")

every_version = pytest.mark.parametrize("version", VERSIONS)
every_story = pytest.mark.parametrize("story", STORIES)


def kept(version: str, story: str) -> dict[str, Any]:
    """The EvolutionRun, as that version left it."""
    found = json.loads((STATUSES / version / f"{story}.json").read_text())
    metadata = {"name": NAME, "namespace": NAMESPACE, "uid": UID, "resourceVersion": "1"}
    generation = found["status"]["observedGeneration"]
    return {"metadata": {**metadata, "generation": generation}, **found}


def moment(raw: dict[str, Any]) -> datetime:
    """Some seconds after the newest time in the status."""
    times = [value for path, value in leaves(raw["status"]) if path.endswith(("Time", "At"))]
    return max(datetime.fromisoformat(time) for time in times).astimezone(UTC) + timedelta(seconds=5)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            for name, inner in value.items():
                yield from leaves(inner, f"{path}.{name}")
        case list():
            for number, inner in enumerate(value):
                yield from leaves(inner, f"{path}[{number}]")
        case _:
            yield path, value


def decided(raw: dict[str, Any], *runs: tuple[str, ObservedRun], **spec: Any) -> Plan:
    obj = read_object({**raw, "spec": {**raw["spec"], **spec}})
    observed = Observed(runs=dict(runs), spec_generation=obj.generation)
    return decide(obj.run.spec, read_status(raw), observed, moment(raw))


def history(status: EvolutionRunStatus, upto: int) -> list[Any]:
    return [one for one in status.generations if one.index < upto]


def test_this_release_or_an_earlier_one_has_left_its_statuses() -> None:
    assert VERSIONS, "write them by `python tests/operator/shell/write_statuses.py`"
    for version in VERSIONS:
        assert {path.stem for path in (STATUSES / version).iterdir()} == set(STORIES)


@every_version
@every_story
def test_nothing_is_lost_between_reading_and_writing(version: str, story: str) -> None:
    raw = kept(version, story)
    again = dict(leaves(status_to_json(read_status(raw))))
    assert again.items() >= dict(leaves(raw["status"])).items()


@every_version
def test_a_run_under_way_is_followed_and_nothing_is_submitted(version: str) -> None:
    raw = kept(version, "mid-run")
    before = read_status(raw)
    assert before.current is not None
    plan = decided(raw, (before.current.run_id, ObservedRun(RunState.RUNNING, stages=before.current.stages)))
    assert plan.action is None
    assert plan.status.phase is Phase.RUNNING
    assert plan.status.current == before.current
    assert plan.status.generations == before.generations
    assert plan.status.promoted == before.promoted


@every_version
def test_a_run_that_ends_is_concluded_and_the_next_generation_starts_from_the_best_model(version: str) -> None:
    raw = kept(version, "mid-run")
    before = read_status(raw)
    current = before.current
    assert current is not None
    told = {"generation": current.generation, "attempt": current.attempt, "run_id": current.run_id, "storage": "/s"}
    ended = ObservedRun(RunState.SUCCEEDED, result=result_of(told, 0.05))
    plan = decided(raw, (current.run_id, ended))
    following = current.generation + 1
    assert isinstance(plan.action, Submit)
    assert plan.action.run_id == run_id_of(UID, following, 0)
    assert plan.action.start_model.generation == current.generation
    assert history(plan.status, current.generation) == [
        one.model_copy(update={"attempts": one.attempts[-1:]}) for one in history(before, current.generation)
    ]
    assert [one.index for one in plan.status.generations] == list(range(following + 1))


@every_version
def test_a_suspended_run_stays_suspended_and_goes_on_where_it_was_when_it_is_resumed(version: str) -> None:
    raw = kept(version, "suspended")
    before = read_status(raw)
    newest = before.generation
    assert newest is not None
    assert before.suspended_at is not None
    held = decided(raw)
    assert held.action is None
    assert replace(held.status, columns=before.columns) == before, "only the columns may say more than they did"
    plan = decided(raw, suspend=False)
    assert isinstance(plan.action, Submit)
    assert (plan.action.generation, plan.action.attempt) == (newest.index, newest.attempts[-1].number + 1)
    assert plan.status.suspended_seconds >= 5
    assert history(plan.status, newest.index) == history(before, newest.index)


@every_version
@pytest.mark.parametrize("story", ["failed", "completed"])
def test_what_has_ended_stays_as_it_is(version: str, story: str) -> None:
    raw = kept(version, story)
    before = read_status(raw)
    assert before.phase.is_terminal
    plan = decided(raw)
    assert (plan.action, plan.status) == (None, before)


@every_version
def test_a_completed_run_has_as_many_generations_as_a_status_may(version: str) -> None:
    status = read_status(kept(version, "completed"))
    assert MAX_GENERATIONS_INLINE <= len(status.generations) <= MAX_GENERATIONS_READ
    assert {one.phase for one in status.generations} == {GenerationPhase.PROMOTED, GenerationPhase.REJECTED}


# Over a second: two dozen generations on virtual time.
@every_version
@pytest.mark.slow
async def test_an_operator_that_is_upgraded_in_the_middle_of_a_run_carries_it_through(
    tmp_path: Path, pipeline: str, version: str
) -> None:
    raw = kept(version, "mid-run")
    async with open_world(tmp_path, pipeline, **raw["spec"]) as world:
        await world.until(lambda: _is_in_generation(world, raw["status"]["current"]["generation"]), poll=5)
        assert world.kube.run is not None
        # The frozen pipeline is not what this is about: it is the one that was frozen just now.
        status = {**raw["status"], "snapshot": world.kube.run["status"]["snapshot"]}
        assert status["current"]["runId"] == world.kube.run["status"]["current"]["runId"]
        world.kube.run["status"] = status
        world.kube._touch()
        world.reconciler = None
        ended = await world.to_the_end()
        assert ended.phase is Phase.COMPLETED
        assert [one.index for one in ended.generations] == list(range(24))[-MAX_GENERATIONS_INLINE:]
        assert world.executions == {run_id_of(UID, index, 0): 1 for index in range(24)}
        assert world.alive() == 0


def _is_in_generation(world: World, index: int) -> bool:
    current = world.kube.status.current
    return current is not None and current.generation == index and bool(current.stages)


def newer(raw: dict[str, Any]) -> dict[str, Any]:
    """The same status as a later version may write it, with fields that nobody here knows."""
    grown = copy.deepcopy(raw)
    grown["status"]["lineage"] = {"root": UID}
    grown["status"]["current"]["priority"] = 7
    grown["status"]["conditions"][0]["severity"] = "Info"
    grown["status"]["generations"][0]["attempts"][0]["nodes"] = ["a", "b"]
    grown["status"]["snapshot"]["codec"] = "zstd"
    return grown


def test_fields_of_a_newer_version_are_skipped_when_they_are_read() -> None:
    raw = kept(VERSIONS[-1], "mid-run")
    assert read_status(newer(raw)) == read_status(raw)


async def test_after_a_roll_back_a_run_is_carried_on_and_what_only_the_newer_version_knew_is_dropped(
    tmp_path: Path, pipeline: str
) -> None:
    """Dropped and not kept: what an older operator changes beside a field that it cannot read may make that untrue."""
    async with open_world(tmp_path, pipeline, generations={"max": 2, "patience": 5}) as world:
        await world.until(lambda: _is_in_generation(world, 0), poll=5)
        assert world.kube.run is not None
        world.kube.run = newer(world.kube.run)
        world.reconciler = None
        status = await world.to_the_end()
        assert status.phase is Phase.COMPLETED
        assert world.executions == {run_id_of(UID, index, 0): 1 for index in range(2)}
        assert world.kube.run is not None
        known = {path.rpartition(".")[2] for path, _ in leaves(world.kube.run["status"])}
        assert known.isdisjoint({"root", "priority", "severity", "nodes", "codec"})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda status: status.update(phase="Paused"), "phase"),
        (lambda status: status["conditions"][0].update(reason="AwaitingStars"), "conditions.0.reason"),
        (lambda status: status["conditions"][0].update(type="Blessed"), "conditions.0.type"),
        (lambda status: status["current"]["stages"].update(distill="Running"), "current.stages.distill"),
        (
            lambda status: status["generations"][-1]["attempts"][-1].update(state="Parked"),
            "generations.0.attempts.0.state",
        ),
    ],
    ids=["phase", "a condition's reason", "a condition's type", "a stage", "an attempt's state"],
)
async def test_a_word_of_a_newer_version_holds_the_run_and_touches_nothing_until_somebody_can_read_it(
    tmp_path: Path, pipeline: str, change: Any, field: str
) -> None:
    """What the run does is not known: to guess could mean to submit a second one."""
    async with open_world(tmp_path, pipeline, generations={"max": 2, "patience": 5}) as world:
        await world.until(lambda: _is_in_generation(world, 0), poll=5)
        assert world.kube.run is not None
        mine = copy.deepcopy(world.kube.run["status"])
        change(world.kube.run["status"])
        world.kube._touch()
        written = copy.deepcopy(world.kube.run)
        world.start()
        assert world.reconciler is not None
        asked = world.double.counters().requests
        with pytest.raises(BadObjectError, match=f"cannot read the status: {field}"):
            await world.reconciler.reconcile(copy.deepcopy(world.kube.run))
        assert world.kube.run == written
        assert world.double.counters().requests == asked
        world.kube.run["status"] = mine  # the newer operator is back
        assert (await world.to_the_end()).phase is Phase.COMPLETED
        assert world.executions == {run_id_of(UID, index, 0): 1 for index in range(2)}
