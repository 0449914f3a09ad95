from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from perseid.api.layout import PROGRESS, RESULT, Layout
from perseid.api.progress import Progress
from perseid.api.reasons import AttemptState, GenerationPhase, Reason
from perseid.api.result import ModelRef, StageResult, StageUsage
from perseid.api.spec import EvolutionRun, EvolutionRunSpec
from perseid.api.status import AttemptStatus, EvolutionRunStatus, GenerationStatus, Intent, ResultSummary
from perseid.cli.view import LinesView, LiveView, News, SilentView, current_progress, duration, pace

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDS = ("6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f11", "6f2c1f3e-8a51-4b7e-9d15-0d6a3b0c2f12")
RUN = EvolutionRun.model_validate({"metadata": {"name": "seen"}, "spec": {"generations": {"max": 2}}})


def status(
    *states: AttemptState, phase: GenerationPhase = GenerationPhase.RUNNING, message: str = ""
) -> EvolutionRunStatus:
    attempts = [
        AttemptStatus(
            number=number,
            run_id=IDS[number],
            state=state,
            submitted_at=NOW,
            reason=Reason.RUN_FAILED if state is AttemptState.FAILED else None,
            message="convert: no disk" if state is AttemptState.FAILED else "",
        )
        for number, state in enumerate(states)
    ]
    done = phase is not GenerationPhase.RUNNING
    generation = GenerationStatus(
        index=0,
        phase=phase,
        start_model=ModelRef(uri="org/name", generation=-1),
        attempts=attempts,
        started_at=NOW,
        finished_at=NOW if done else None,
        result=ResultSummary(run_id=IDS[0], samples_kept=1, samples_total=2, message=message) if done else None,
    )
    last = len(states) - 1
    current = None if done else Intent(generation=0, attempt=last, run_id=IDS[last], intent_time=NOW)
    return EvolutionRunStatus(uid=IDS[0], generations=[generation], current=current)


def write_stage(root: Path, stage: str, number: int = 0, **fields: object) -> None:
    directory = Layout(root, 0, number).stage(stage)
    directory.mkdir(parents=True)
    known = {"stage": stage, "state": "done", "usage": StageUsage(seconds=75.0), **fields}
    (directory / RESULT).write_text(StageResult.model_validate(known).model_dump_json(by_alias=True))


def news(told: News, now: EvolutionRunStatus, root: Path) -> list[str]:
    return [line.plain for line in told.of(RUN, now, root)]


def test_each_thing_that_happens_is_told_once(tmp_path: Path) -> None:
    told = News()
    running = status(AttemptState.RUNNING)
    assert news(told, running, tmp_path) == ["generation 0 (1 of 2), from org/name"]
    assert news(told, running, tmp_path) == []

    write_stage(tmp_path, "synthesize", counts={"problems": 8, "plans": 7})
    (line,) = news(told, running, tmp_path)
    assert line.split() == ["✓", "synthesize", "1:15", "problems", "8,", "plans", "7"]

    write_stage(tmp_path, "convert", state="failed", error="no disk")
    failed = news(told, status(AttemptState.FAILED, AttemptState.RUNNING), tmp_path)
    assert [line.split()[0] for line in failed] == ["✗", "attempt", "attempt"]
    assert failed[1:] == ["  attempt failed: convert: no disk", "  attempt 1"]
    assert news(told, status(AttemptState.FAILED, AttemptState.RUNNING), tmp_path) == []

    promoted = status(
        AttemptState.FAILED, AttemptState.SUCCEEDED, phase=GenerationPhase.PROMOTED, message="gain on dev +0.1"
    )
    assert news(told, promoted, tmp_path) == ["  promoted: gain on dev +0.1"]


METEOR = EvolutionRun.model_validate({"metadata": {"name": "seen"}, "spec": {"methods": ["meteor"]}})


def test_the_lines_of_a_runs_stages_stand_below_each_other_and_names_have_room(tmp_path: Path) -> None:
    told = News()
    for stage in METEOR.spec.stages:
        write_stage(tmp_path, stage, counts={"questions": 8})
    lines = [line.plain for line in told.of(METEOR, status(AttemptState.RUNNING), tmp_path)][1:]
    assert [line.split()[1] for line in lines] == [
        "mentor-supervised", "self-assessment", "self-evolution", "evaluate"
    ]  # fmt: skip
    assert len({line.index("1:15") for line in lines}) == 1
    assert all(f"{stage} " in line for stage, line in zip(METEOR.spec.stages, lines, strict=True))


def test_progress_of_a_stage_of_meteor_is_seen(tmp_path: Path) -> None:
    write_stage(tmp_path, "mentor-supervised")
    directory = Layout(tmp_path, 0, 0).stage("self-assessment")
    directory.mkdir()
    progress = Progress(stage="self-assessment", task="judging", done=1, total=2, unit="questions", started_at=0)
    (directory / PROGRESS).write_text(progress.model_dump_json())
    assert current_progress(status(AttemptState.RUNNING), tmp_path) == progress


def test_lines_for_a_log_hold_no_control_characters(tmp_path: Path) -> None:
    out = io.StringIO()
    write_stage(tmp_path, "synthesize", counts={"plans": 7})
    with LinesView(Console(file=out, width=140), tmp_path, RUN) as view:
        view.update(status(AttemptState.RUNNING))
    text = out.getvalue()
    assert "synthesize" in text
    assert [character for character in text if ord(character) < 32 and character != "\n"] == []


def test_a_terminal_shows_what_is_being_done_with_its_pace(tmp_path: Path) -> None:
    out = io.StringIO()
    directory = Layout(tmp_path, 0, 0).stage("convert")
    directory.mkdir(parents=True)
    progress = Progress(
        stage="convert", task="writing code", done=3, total=12, unit="plans", started_at=0, note="2 passed"
    )
    (directory / PROGRESS).write_text(progress.model_dump_json())
    with LiveView(Console(file=out, width=140, force_terminal=True), tmp_path, RUN) as view:
        view.update(status(AttemptState.RUNNING))
    assert "writing code" in out.getvalue()
    assert "3/12 plans" in out.getvalue()
    assert "2 passed" in out.getvalue()


def test_a_silent_view_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with SilentView() as view:
        view.update(status(AttemptState.RUNNING))
    assert capsys.readouterr().out == ""


def test_progress_is_that_of_the_last_stage_that_began_and_nothing_between_stages(tmp_path: Path) -> None:
    now = status(AttemptState.RUNNING)
    assert current_progress(now, tmp_path) is None
    write_stage(tmp_path, "synthesize")
    assert current_progress(now, tmp_path) is None
    directory = Layout(tmp_path, 0, 0).stage("convert")
    directory.mkdir()
    assert current_progress(now, tmp_path) is None, "the stage has written nothing yet"
    progress = Progress(stage="convert", task="writing", done=1, total=2, unit="plans", started_at=0)
    (directory / PROGRESS).write_text(progress.model_dump_json())
    assert current_progress(now, tmp_path) == progress
    done = status(AttemptState.SUCCEEDED, phase=GenerationPhase.SKIPPED)
    assert current_progress(done, tmp_path) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (3599.6, "1:00:00"), (3723, "1:02:03")],
)
def test_a_duration_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("done", "at_start", "elapsed", "text"),
    [
        (50, 0, 10, "5.0/s, 10 s left"),
        (5, 0, 10, "30/min, 3:10 left"),
        (2, 0, 240, "30/h, 3:16:00 left"),
        (50, 40, 10, "1.0/s, 50 s left"),  # what an earlier try did is no part of the rate
        (0, 0, 10, "10 s"),
        (50, 0, 1, "1 s"),  # too early to judge
        (50, 50, 10, "10 s"),
        (50, 0, -5, "0 s"),  # the clock was set back
    ],
)
def test_pace_is_the_rate_of_this_try_and_the_time_left(
    done: float, at_start: float, elapsed: float, text: str
) -> None:
    progress = Progress(
        stage="convert", task="x", done=done, total=100, unit="plans", started_at=1000.0, done_at_start=at_start
    )
    assert pace(progress, 1000.0 + elapsed) == text


def test_pace_without_a_known_total_is_the_time_so_far() -> None:
    progress = Progress(stage="convert", task="loading", done=5, total=0, unit="", started_at=0.0)
    assert pace(progress, 65.0) == "1:05"


def test_shards_have_their_own_lines_and_the_newest_one_is_what_is_being_done(tmp_path: Path) -> None:
    run = RUN.model_copy(update={"spec": EvolutionRunSpec.model_validate({"pipeline": {"shards": 2}})})
    write_stage(tmp_path, "synthesize-shard-00", counts={"problems": 4})
    layout, now = Layout(tmp_path, 0, 0), status(AttemptState.RUNNING)
    assert current_progress(now, tmp_path) is None, "between two shards"
    progress = Progress(stage="synthesize-shard-01", task="searching", done=1, total=4, unit="problems", started_at=0)
    layout.stage("synthesize-shard-01").mkdir()
    (layout.stage("synthesize-shard-01") / PROGRESS).write_text(progress.model_dump_json())
    assert current_progress(now, tmp_path) == progress
    write_stage(tmp_path, "synthesize", counts={"problems": 8})
    told = [line.plain.split() for line in News().of(run, now, tmp_path)]
    assert [words[1] for words in told[1:]] == ["synthesize-shard-00", "synthesize"]
    assert [words[-1] for words in told[1:]] == ["4", "8"]
