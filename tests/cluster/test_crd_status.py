"""The status on a real API server: its size, its lists, and what kubectl makes of it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cluster_access import Cluster, KubectlError
from crd_objects import UID, RefusedError, evolution_runs

from perseid.api.reasons import (
    AttemptState,
    ConditionStatus,
    ConditionType,
    GenerationPhase,
    Phase,
    Reason,
    StageState,
)
from perseid.api.result import ModelRef
from perseid.api.status import (
    MAX_ATTEMPTS_INLINE,
    MAX_GENERATIONS_INLINE,
    NOTE_LIMIT,
    AttemptStatus,
    Columns,
    Condition,
    EvolutionRunStatus,
    GenerationStatus,
    Intent,
    ResultSummary,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOTE = "x" * NOTE_LIMIT
RUN_ID = "0a4b1c2d-3e4f-5a6b-8c7d-9e0f1a2b3c4d"


def model(generation: int) -> ModelRef:
    uri = f"s3://a-bucket-of-a-team/perseid/runs/{'n' * 53}/generations/{generation:03d}/attempts/0/finetune/model"
    return ModelRef(uri=uri, model_id=f"sha256:{'0' * 64}", generation=generation)


def attempt(number: int) -> AttemptStatus:
    return AttemptStatus(
        number=number,
        run_id=RUN_ID,
        state=AttemptState.FAILED,
        submitted_at=NOW,
        finished_at=NOW,
        reason=Reason.RUN_FAILED,
        message=NOTE,
        charged=True,
    )


def generation(index: int, attempts: int) -> GenerationStatus:
    return GenerationStatus(
        index=index,
        phase=GenerationPhase.PROMOTED,
        start_model=model(index - 1),
        candidate=model(index),
        result=ResultSummary(
            run_id=RUN_ID,
            dev_candidate=0.1234567890123456,
            dev_parent=0.1234567890123456,
            gain=-0.1234567890123456,
            gain_low=-0.1234567890123456,
            gain_high=0.1234567890123456,
            samples_kept=10**9,
            samples_total=10**9,
            message=NOTE,
        ),
        attempts=[attempt(number) for number in range(attempts)],
        charged_attempts=attempts,
        started_at=NOW,
        finished_at=NOW,
    )


def full_status() -> EvolutionRunStatus:
    """A status that has all that it may have, every message as long as it may be."""
    newest = 999
    older = range(newest - MAX_GENERATIONS_INLINE + 1, newest)
    return EvolutionRunStatus(
        uid=UID,
        observed_generation=10**6,
        phase=Phase.FAILED,
        conditions=[
            Condition(
                type=kind,
                status=ConditionStatus.FALSE,
                reason=Reason.START_DEADLINE_EXCEEDED,
                message="x" * 1024,
                last_transition_time=NOW,
                observed_generation=10**6,
            )
            for kind in ConditionType
        ],
        generations=[*(generation(index, 1) for index in older), generation(newest, MAX_ATTEMPTS_INLINE)],
        current=Intent(
            generation=newest,
            attempt=99,
            run_id=RUN_ID,
            intent_time=NOW,
            url=f"https://kubeflow.example.org/_/pipeline/#/runs/details/{RUN_ID}",
            stages={"synthesize": StageState.SUCCEEDED, "convert": StageState.RUNNING},
        ),
        promoted=model(newest),
        promoted_score=0.1234567890123456,
        columns=Columns(
            generation="999/1000",
            score="0.123",
            best="0.413",
            gpu_hours="123456.7",
            reason="StartDeadlineExceeded",
            run=RUN_ID,
            link=f"https://kubeflow.example.org/_/pipeline/#/runs/details/{RUN_ID}",
        ),
        started_at=NOW,
        finished_at=NOW,
    )


def written(status: EvolutionRunStatus) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


async def test_a_full_status_is_accepted_kept_as_it_is_and_small(cluster: Cluster, namespace: str) -> None:
    status = full_status()
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create({})
        stored = await runs.write_status("run", written(status))
        assert stored["status"] == written(status)
        assert EvolutionRunStatus.model_validate(stored["status"]) == status
        assert len(json.dumps(stored)) < 64 * 1024


async def test_a_fresh_status_is_accepted_and_nothing_is_added_to_it(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        created = await runs.create({})
        assert "status" not in created
        status = written(EvolutionRunStatus(uid=UID))
        assert (await runs.write_status("run", status))["status"] == status


async def test_unknown_fields_of_a_status_are_pruned(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create({})
        stored = await runs.write_status("run", {"uid": UID, "luck": 7, "kopf": {"progress": {}}})
    assert stored["status"] == {"uid": UID}


async def test_who_writes_the_status_changes_no_spec_and_the_other_way_round(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        created = await runs.create({})
        await runs.write_status("run", {"uid": UID, "phase": "Running"})
        stored = await runs.change("run", {"spec": {"suspend": True}, "status": {"phase": "Completed"}})
        assert stored["status"]["phase"] == "Running"
        stored = await runs.write_status("run", {"phase": "Completed"})
        assert stored["spec"] == {**created["spec"], "suspend": True}
        assert stored["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phase": "Dancing"}, "status.phase"),
        ({"uid": "6D0C"}, "status.uid"),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, "status.conditions[0].reason"),
        ({"conditions": [written(full_status())["conditions"][0]] * 2}, "Duplicate value"),
        ({"generations": [written(generation(index, 0)) for index in range(21)]}, "status.generations"),
        ({"current": {**written(full_status())["current"], "url": "x" * 1025}}, "status.current.url"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_status_is_refused_with_the_name_of_the_field(
    cluster: Cluster, namespace: str, changes: dict[str, Any], words: str
) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create({})
        with pytest.raises(RefusedError) as refusal:
            await runs.write_status("run", {"uid": UID, **changes})
    assert words in str(refusal.value)


async def test_conditions_of_two_writers_are_merged_by_type(cluster: Cluster, namespace: str) -> None:
    conditions = written(full_status())["conditions"]
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create({})
        for writer, index in (("one", 0), ("two", 1)):
            body = {
                "apiVersion": "perseid.dev/v1alpha1",
                "kind": "EvolutionRun",
                "metadata": {"name": "run"},
                "status": {"uid": UID, "conditions": [conditions[index]]},
            }
            apply = ("apply", "--server-side", "--subresource=status", f"--field-manager={writer}", "--filename=-")
            await asyncio.to_thread(cluster.kubectl, *apply, f"--namespace={namespace}", input=json.dumps(body))
        stored = await runs.get("run")
    assert [condition["type"] for condition in stored["status"]["conditions"]] == [
        conditions[0]["type"],
        conditions[1]["type"],
    ]


async def test_kubectl_get_shows_the_columns(cluster: Cluster, namespace: str) -> None:
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create({})
        await runs.write_status("run", written(full_status()))
    table = await asyncio.to_thread(cluster.kubectl, "get", "evorun", f"--namespace={namespace}")
    heads, row = table.splitlines()
    assert heads.split() == ["NAME", "PHASE", "GEN", "SCORE", "BEST", "GPU-H", "AGE"]
    assert row.split()[:-1] == ["run", "Failed", "999/1000", "0.123", "0.413", "123456.7"]
    wide = await asyncio.to_thread(cluster.kubectl, "get", "evorun", f"--namespace={namespace}", "--output=wide")
    heads, row = wide.splitlines()
    assert heads.split()[-3:] == ["REASON", "RUN", "LINK"]
    page = f"https://kubeflow.example.org/_/pipeline/#/runs/details/{RUN_ID}"
    assert row.split()[-3:] == ["StartDeadlineExceeded", RUN_ID, page]


def complete(observed_generation: int) -> EvolutionRunStatus:
    condition = Condition(
        type=ConditionType.COMPLETE,
        status=ConditionStatus.TRUE,
        reason=Reason.MAX_GENERATIONS,
        last_transition_time=NOW,
        observed_generation=observed_generation,
    )
    return EvolutionRunStatus(uid=UID, conditions=[condition])


# Over a second: kubectl counts in whole seconds.
async def test_kubectl_waits_for_a_condition_of_the_newest_spec(cluster: Cluster, namespace: str) -> None:
    arguments = ("wait", "--for=condition=Complete", "evorun/run", f"--namespace={namespace}")
    async with evolution_runs(cluster, namespace) as runs:
        await runs.create({})
        await runs.write_status("run", written(complete(observed_generation=0)))
        with pytest.raises(KubectlError, match="timed out"):
            await asyncio.to_thread(cluster.kubectl, *arguments, "--timeout=1s")
        waiting = asyncio.create_task(asyncio.to_thread(cluster.kubectl, *arguments, "--timeout=60s"))
        await runs.write_status("run", written(complete(observed_generation=1)))
        assert "condition met" in await waiting
