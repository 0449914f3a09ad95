"""A mentor's and a judge's mistakes that can be found before anything starts: files, keys, and whom they speak of."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from perseid.api.layout import is_remote
from perseid.api.meteor import JudgeSpec, MentorSpec, MeteorSpec
from perseid.cli.preflight_model import check_model
from perseid.data.questions import pack_answers_path
from perseid.data.records import Question
from perseid.engines.protocol import Engine, EngineError
from perseid.runner.errors import RunnerError

MENTOR, JUDGE = "spec.meteor.mentor", "spec.meteor.judge"
Questions = tuple[Question, ...] | None
"""None: they cannot be read here."""
Role = TypeVar("Role", MentorSpec, JudgeSpec)


def check_mentor(spec: MentorSpec, train: str, questions: Questions, *, keys: bool) -> None:
    """Raise RunnerError for a mentor who could not answer any question of the set that the field `train` names."""
    from perseid.engines.roles import open_mentor  # with it come the clients of model hubs and of object storage

    _check_role(MENTOR, spec, open_mentor, keys)
    _check_recorded(MENTOR, spec, "mentor-answer", [(train, questions)])


def check_judge(spec: JudgeSpec, judged: Sequence[tuple[str, Questions]], *, keys: bool) -> None:
    """Raise RunnerError for a judge who could not judge; `judged` are the fields of the sets and their questions."""
    from perseid.engines.roles import open_judge_engine

    _check_role(JUDGE, spec, open_judge_engine, keys)
    _check_recorded(JUDGE, spec, "judge", judged[:1])
    if spec.type != "verifier":
        return
    for field, questions in judged:
        if questions is not None and all(question.check is None for question in questions):
            raise RunnerError(
                f"{JUDGE}.type is verifier, but no question of {field} has a check by which it could decide; give the"
                " questions checks, or set the type to openai, model or recorded: a model that judges"
            )


def check_records(meteor: MeteorSpec, *, mentor_speaks: bool) -> None:
    """Raise RunnerError for a file of answers that could not be written. Nothing is made."""
    mentor = _checked_record(MENTOR, meteor.mentor) if mentor_speaks else None
    judge = _checked_record(JUDGE, meteor.judge)
    if mentor is not None and mentor == judge and _model(meteor.mentor) != _model(meteor.judge):
        raise RunnerError(
            f"{MENTOR}.record and {JUDGE}.record are both {mentor}, but a file holds the answers of one model; give"
            " each a file of its own"
        )


def _check_role(field: str, spec: Role, opened: Callable[[Role], Awaitable[Engine | None]], keys: bool) -> None:
    """Open what can be opened without a model and without a network."""
    if spec.type == "model" and spec.ref is not None:
        check_model(f"{field}.ref", spec.ref)
        return
    if spec.type == "openai" and importlib.util.find_spec("openai") is None:
        raise RunnerError(
            f"{field}.type is openai, but the package openai is not installed in {sys.prefix}; install Perseid with the"
            " extra models"
        )
    if spec.type == "openai" and not keys:
        return
    try:
        asyncio.run(_open_and_close(opened(spec)))
    except EngineError as error:
        hint = f"put that right, or name another file in {field}.path"
        if spec.type == "openai":
            hint = f"set it before the run starts, or another name in {field}.openai.apiKeyEnv"
        raise RunnerError(f"{field}: {error}; {hint}") from error


async def _open_and_close(opened: Awaitable[Engine | None]) -> None:
    engine = await opened
    if engine is not None:
        await engine.close()


def _check_recorded(field: str, spec: MentorSpec | JudgeSpec, kind: str, sets: Sequence[tuple[str, Questions]]) -> None:
    """Raise RunnerError where none of the recorded answers of that kind is about any of the questions."""
    if spec.type != "recorded" or spec.path is None:
        return
    from perseid.engines.roles import PACK

    path = Path(pack_answers_path()) if spec.path == PACK else Path(spec.path.removeprefix("file://")).expanduser()
    subjects = _subjects(path, kind)
    hint = f"name another file in {field}.path, or let a real model answer once, with {field}.record"
    if not subjects:
        raise RunnerError(f"{field}: {path} has no answers of kind {kind!r}; {hint}")
    for where, questions in sets:
        if questions is not None and subjects.isdisjoint(question.id for question in questions):
            raise RunnerError(
                f"{field}: none of the {len(subjects)} question(s) that {path} answers, such as {min(subjects)!r}, is"
                f" in {where}, which has {questions[0].id!r} and the like; {hint}"
            )


def _subjects(path: Path, kind: str) -> set[str]:
    """What a file's answers are about. A last line that a kill cut off is none; other broken ones were refused."""
    subjects: set[str] = set()
    for raw in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(raw.decode("utf-8-sig"))
        except ValueError:
            continue
        if line["kind"] == kind:
            subjects.add(line["subject"])
    return subjects


def _checked_record(field: str, spec: MentorSpec | JudgeSpec) -> Path | None:
    """The file that answers will be added to, if there is to be one."""
    if spec.record is None or spec.type not in ("openai", "model"):
        return None
    where = f"{field}.record is {spec.record}"
    if is_remote(spec.record):
        raise RunnerError(f"{where}, but answers are recorded into files alone; give a path")
    path = Path(spec.record.removeprefix("file://"))
    if path.is_dir():
        raise RunnerError(f"{where}, which is a directory; give the file, for example {path / 'answers.jsonl'}")
    there = path
    while not os.access(there, os.F_OK):
        there = there.parent
    if there == path:
        if not os.access(path, os.R_OK | os.W_OK):
            raise RunnerError(f"{where}, which this user may not read and write; give another file, or its rights")
    elif not there.is_dir():
        raise RunnerError(f"{where}, but {there} is a file and no directory; give another path")
    elif not os.access(there, os.W_OK | os.X_OK):
        raise RunnerError(f"{where}, but this user may not write in {there}; give another path, or the rights to it")
    return path


def _model(spec: MentorSpec | JudgeSpec) -> tuple[str, ...]:
    """What answers: two roles of one model may record into one file."""
    if spec.openai is not None and spec.type == "openai":
        return (spec.openai.base_url, spec.openai.model)
    return (spec.ref or "",)
