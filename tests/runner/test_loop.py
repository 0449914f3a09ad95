from __future__ import annotations

from pathlib import Path

import pytest
from run_fakes import ScriptedBackend, make_run, status_on_disk

from perseid.api.attempt import Attempt
from perseid.api.reasons import AttemptState, ConditionType, GenerationPhase, Phase
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus
from perseid.runner.directory import RunDirectory
from perseid.runner.errors import RunnerError
from perseid.runner.loop import TICK_SECONDS, drive


def carry_through(
    tmp_path: Path, run: EvolutionRun, *script: float | str | None
) -> tuple[EvolutionRunStatus, ScriptedBackend]:
    directory = RunDirectory(tmp_path)
    backend = ScriptedBackend(list(script), directory)
    return drive(run, directory, backend, backend.clock, lambda status: None), backend


def test_a_run_with_a_gain_promotes_its_model_and_completes(tmp_path: Path) -> None:
    status, backend = carry_through(tmp_path, make_run(), 0.2)
    assert status.phase is Phase.COMPLETED
    assert status.generations[0].phase is GenerationPhase.PROMOTED
    assert status.promoted is not None
    assert status.promoted.uri == "/runs/fake/model-0"
    assert status == status_on_disk(tmp_path)
    (attempt,) = backend.submitted
    assert (attempt.generation, attempt.number, attempt.storage) == (0, 0, str(tmp_path))
    assert attempt.start_model == "embedded:smollm2-135m-instruct"


def test_a_later_generation_starts_from_the_promoted_model(tmp_path: Path) -> None:
    status, backend = carry_through(tmp_path, make_run(generations={"max": 3, "patience": 3}), 0.2, -0.1, 0.1)
    assert [one.phase.value for one in status.generations] == ["Promoted", "Rejected", "Promoted"]
    starts = [attempt.start_model for attempt in backend.submitted]
    assert starts == ["embedded:smollm2-135m-instruct", "/runs/fake/model-0", "/runs/fake/model-0"]


def test_a_rejected_generation_uses_up_the_patience_and_ends_the_run(tmp_path: Path) -> None:
    status, backend = carry_through(tmp_path, make_run(generations={"max": 5}), -0.1, 0.2)
    assert status.phase is Phase.COMPLETED
    assert len(backend.submitted) == 1
    assert status.promoted is not None
    assert status.promoted.is_base


def test_a_failed_attempt_is_tried_again_under_another_run_id(tmp_path: Path) -> None:
    status, backend = carry_through(tmp_path, make_run(), "convert: it broke", 0.2)
    assert status.phase is Phase.COMPLETED
    assert [attempt.number for attempt in backend.submitted] == [0, 1]
    assert len({attempt.run_id for attempt in backend.submitted}) == 2
    states = [attempt.state for attempt in status.generations[0].attempts]
    assert states == [AttemptState.FAILED, AttemptState.SUCCEEDED]


def test_a_run_whose_attempts_are_used_up_fails_and_says_the_last_error(tmp_path: Path) -> None:
    run = make_run(generations={"maxAttempts": 2})
    status, backend = carry_through(tmp_path, run, "first", "convert: no memory left")
    assert status.phase is Phase.FAILED
    assert len(backend.submitted) == 2
    failed = status.condition(ConditionType.FAILED)
    assert failed is not None
    assert "convert: no memory left" in failed.message


def test_a_suspended_run_submits_nothing_and_goes_on_when_it_is_released(tmp_path: Path) -> None:
    status, backend = carry_through(tmp_path, make_run(suspend=True))
    assert status.phase is Phase.SUSPENDED
    assert backend.submitted == []
    status, backend = carry_through(tmp_path, make_run(suspend=False), 0.2)
    assert status.phase is Phase.COMPLETED


def test_a_generation_that_needs_approval_waits_for_the_annotation_in_the_run_file(tmp_path: Path) -> None:
    run = make_run(generations={"max": 2, "approval": "manual"})
    status, backend = carry_through(tmp_path, run, 0.2)
    assert status.phase is Phase.RUNNING
    assert len(backend.submitted) == 1
    annotations = {"perseid.dev/approved-generation": "1"}
    approved = run.model_copy(update={"metadata": run.metadata.model_copy(update={"annotations": annotations})})
    status, backend = carry_through(tmp_path, approved, 0.1)
    assert status.phase is Phase.COMPLETED
    assert [attempt.generation for attempt in backend.submitted] == [1]


def test_a_run_can_start_from_the_best_model_of_the_run_beside_it(tmp_path: Path) -> None:
    carry_through(tmp_path / "parent", make_run(), 0.2)
    child = make_run(model={"evolutionRun": "parent"})
    status, backend = carry_through(tmp_path / "child", child, 0.1)
    assert status.phase is Phase.COMPLETED
    assert [attempt.start_model for attempt in backend.submitted] == ["/runs/fake/model-0"]


@pytest.mark.parametrize(("gain", "says"), [(None, "does not exist"), (-0.1, "has not promoted a model")])
def test_a_run_beside_it_without_a_model_is_said_before_anything_starts(
    tmp_path: Path, gain: float | None, says: str
) -> None:
    if gain is not None:
        carry_through(tmp_path / "parent", make_run(), gain)
    with pytest.raises(RunnerError, match=says):
        carry_through(tmp_path / "child", make_run(model={"evolutionRun": "parent"}), 0.1)


def test_the_intent_is_on_disk_before_the_run_is_submitted(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    backend = ScriptedBackend([0.2], directory)
    seen: list[EvolutionRunStatus] = []
    backend.on_submit = lambda attempt: seen.append(status_on_disk(tmp_path))
    drive(make_run(), directory, backend, backend.clock, lambda status: None)
    assert seen[0].current is not None
    assert seen[0].current.run_id == backend.submitted[0].run_id


def test_a_crash_in_submit_is_gone_on_with_under_the_same_run_id(tmp_path: Path) -> None:
    wanted: list[str] = []

    def crash(attempt: Attempt) -> None:
        wanted.append(attempt.run_id)
        raise ConnectionError("pulled the plug")

    directory = RunDirectory(tmp_path)
    backend = ScriptedBackend([], directory, on_submit=crash)
    with pytest.raises(ConnectionError):
        drive(make_run(), directory, backend, backend.clock, lambda status: None)
    status, second = carry_through(tmp_path, make_run(), 0.2)
    assert status.phase is Phase.COMPLETED
    assert [attempt.run_id for attempt in second.submitted] == wanted


def test_a_run_that_exists_already_is_not_submitted_again(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)

    def created_then_crash(attempt: Attempt) -> None:
        backend.submitted.append(attempt)
        raise ConnectionError("pulled the plug after the run was made")

    backend = ScriptedBackend([0.2], directory, on_submit=created_then_crash)
    with pytest.raises(ConnectionError):
        drive(make_run(), directory, backend, backend.clock, lambda status: None)
    status = drive(make_run(), directory, backend, backend.clock, lambda status: None)
    assert status.phase is Phase.COMPLETED
    assert len(backend.submitted) == 1


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    first, _ = carry_through(tmp_path, make_run(), 0.2)
    again, backend = carry_through(tmp_path, make_run())
    assert again == first
    assert backend.submitted == []
    assert backend.waits == []


def test_a_generation_without_a_model_is_skipped(tmp_path: Path) -> None:
    status, _ = carry_through(tmp_path, make_run(), None)
    assert status.phase is Phase.COMPLETED
    assert status.generations[0].phase is GenerationPhase.SKIPPED


def test_the_view_is_told_of_every_status_and_the_loop_never_waits_longer_than_a_tick(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    backend = ScriptedBackend([0.2], directory)
    told: list[EvolutionRunStatus] = []
    last = drive(make_run(), directory, backend, backend.clock, told.append)
    assert told[-1] == last
    assert len(told) > len(backend.waits)
    assert max(backend.waits) <= TICK_SECONDS
