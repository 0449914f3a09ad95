"""A run's directory: `runs/NAME/` with the accepted run, the status and what the stages write."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel, ValidationError

from perseid.api.fields import spell
from perseid.api.identity import MAY_CHANGE, spec_changes
from perseid.api.layout import attempt_key
from perseid.api.meteor import JudgeSpec, MentorSpec, MeteorSpec, QuestionSet
from perseid.api.problems import ProblemSet
from perseid.api.spec import EvolutionRun
from perseid.api.status import EvolutionRunStatus, GenerationStatus
from perseid.decide.observed import StartModel
from perseid.runner.errors import RunnerError

RUN_FILE = "run.json"
STATUS_FILE = "status.json"
GENERATION_FILE = "generation.json"
"""Beside a generation's attempts: what the status said of it in the end. The status keeps the newest ones only."""
LOOKS, LOOK_SECONDS = 200, 0.01
"""How often, and how long between, a lock is tried that only onlookers hold."""
PACK = "pack"
"""The path of recorded answers that is no path: those that come with Perseid's questions."""
M = TypeVar("M", bound=BaseModel)
Role = TypeVar("Role", MentorSpec, JudgeSpec)


def absolute_paths(run: EvolutionRun, base: Path) -> EvolutionRun:
    """The run with every path in it made absolute; relative ones start at `base`, the directory of the YAML file."""
    spec = run.spec

    def anchored(problems: ProblemSet) -> ProblemSet:
        if problems.source not in {"jsonl", "mbpp"} or problems.path is None:
            return problems
        return problems.model_copy(update={"path": str((base / problems.path).resolve())})

    problems = spec.problems.model_copy(
        update={
            "train": anchored(spec.problems.train),
            "dev": anchored(spec.problems.dev),
            "test": [anchored(one) for one in spec.problems.test],
        }
    )
    model = spec.model.model_copy(update={"ref": _model_from(base, spec.model.ref)})
    update = {"problems": problems, "model": model, "meteor": _meteor_from(base, spec.meteor)}
    return run.model_copy(update={"spec": spec.model_copy(update=update)})


def _meteor_from(base: Path, meteor: MeteorSpec) -> MeteorSpec:
    questions = meteor.questions.model_copy(
        update={
            "train": _questions_from(base, meteor.questions.train),
            "dev": _questions_from(base, meteor.questions.dev),
            "test": [_questions_from(base, one) for one in meteor.questions.test],
        }
    )
    roles = {"mentor": _role_from(base, meteor.mentor), "judge": _role_from(base, meteor.judge)}
    return meteor.model_copy(update={"questions": questions, **roles})


def _questions_from(base: Path, questions: QuestionSet) -> QuestionSet:
    if questions.path is None:
        return questions
    # A dataset's id looks like a relative path: only what says that it is a directory is one.
    anchor = _model_from if questions.source == "hub" else _file_from
    return questions.model_copy(update={"path": anchor(base, questions.path)})


def _role_from(base: Path, role: Role) -> Role:
    path = role.path if role.path is None or role.path == PACK else _file_from(base, role.path)
    ref = None if role.ref is None else _model_from(base, role.ref)
    record = None if role.record is None else _file_from(base, role.record)
    return role.model_copy(update={"path": path, "ref": ref, "record": record})


def _file_from(base: Path, path: str) -> str:
    """A file's absolute path. A URI stays as it is."""
    return path if "://" in path else str((base / Path(path).expanduser()).resolve())


def _model_from(base: Path, ref: str) -> str:
    """The absolute path of what is a path by its beginning; a hub id, a URI and an embedded model stay as they are."""
    if ref in {".", ".."} or ref.startswith(("./", "../", "/", "~")):
        return str((base / Path(ref).expanduser()).resolve())
    return ref


class RunDirectory:
    """The files of one run, for one `perseid run` at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory. Raises RunnerError where another process holds it, or it cannot be written."""
        with self.writable():
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("w")
        with file:
            if not _held(file):
                raise RunnerError(
                    f"{self.path} is in use by another command of Perseid's; wait for it, stop it with Ctrl-C, or"
                    " give this run another metadata.name"
                )
            yield

    @property
    def is_new(self) -> bool:
        """Whether no run was ever accepted here."""
        return not os.path.lexists(self.path / RUN_FILE)

    @contextlib.contextmanager
    def writable(self) -> Iterator[None]:
        """Whatever is written in it. Raises RunnerError where that cannot be, as on a full disk."""
        try:
            yield
        except OSError as error:
            raise RunnerError(
                f"the run's directory {self.path} cannot be written: {error.strerror} ({error.filename or self.path});"
                " give the rights to it or make room, or write elsewhere with --runs-dir; the same command goes on"
            ) from error

    def accept(self, run: EvolutionRun) -> EvolutionRunStatus:
        """Take the run in, new or to be gone on with, and return its status.

        Raises RunnerError where the directory holds a run of another spec: generations made under different settings
        cannot be compared.
        """
        accepted = self.path / RUN_FILE
        status_file = self.path / STATUS_FILE
        if accepted.exists():
            earlier = _read(accepted, EvolutionRun)
            forbidden = [change for change in spec_changes(earlier.spec, run.spec) if not change.may_change]
            if forbidden:
                may_change = ", ".join(sorted(map(spell, MAY_CHANGE)))
                changes = "\n".join(f"  {change}" for change in forbidden)
                raise RunnerError(
                    f"{self.path} holds a run that was started with other settings:\n{changes}\nUndo the changes to go"
                    f" on with it, or give the new run another metadata.name (only {may_change} may change)"
                )
        with self.writable():
            write_atomically(accepted, run.model_dump_json(by_alias=True, indent=2))
        if not status_file.exists():
            self.write_status(EvolutionRunStatus(uid=str(uuid.uuid4())))
        return _read(status_file, EvolutionRunStatus)

    def recorded(self) -> tuple[EvolutionRun, EvolutionRunStatus]:
        """The run as it was accepted, and its status, whether it goes on or not.

        Raises RunnerError where the directory holds no run.
        """
        files = (self.path / RUN_FILE, self.path / STATUS_FILE)
        missing = next((file for file in files if not file.is_file()), None)
        if missing is not None:
            raise RunnerError(
                f"{self.path} is no run's directory: there is no {missing.name} in it; name one that `perseid run` has"
                " made below its --runs-dir, for example runs/NAME"
            )
        return _read(files[0], EvolutionRun), _read(files[1], EvolutionRunStatus)

    def start_model(self, run: EvolutionRun) -> StartModel | None:
        """The best model of the run beside this one that the spec names, if it names one.

        Raises RunnerError where there is no such run, or it has no model of its own.
        """
        name = run.spec.model.evolution_run
        if name is None:
            return None
        file = self.path.parent / name / STATUS_FILE
        if not file.exists():
            raise RunnerError(
                f"spec.model.evolutionRun is {name}, but {file} does not exist; run that one first, or give --runs-dir"
            )
        promoted = _read(file, EvolutionRunStatus).promoted
        if promoted is None or promoted.is_base:
            raise RunnerError(f"spec.model.evolutionRun is {name}, but that run has not promoted a model (see {file})")
        return StartModel(promoted)

    def in_use(self) -> bool:
        """Whether a `perseid run` holds the directory now."""
        try:
            with (self.path / ".lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def whole_status(self, status: EvolutionRunStatus) -> EvolutionRunStatus:
        """The status with the generations that it has no more room for. Raises RunnerError."""
        first = status.generations[0].index if status.generations else 0
        files = [self._generation_file(index) for index in range(first)]
        earlier = [_read(file, GenerationStatus) for file in files if file.exists()]
        # A copy that is not validated: the bound on the status is not one on what is shown.
        return status.model_copy(update={"generations": [*earlier, *status.generations]})

    def write_status(self, status: EvolutionRunStatus) -> None:
        """Replace the status, atomically; before that, keep what it says of each generation that is over.

        Raises RunnerError where the directory cannot be written.
        """
        with self.writable():
            for generation in status.generations:
                file, text = (
                    self._generation_file(generation.index),
                    generation.model_dump_json(by_alias=True, indent=2),
                )
                if generation.finished_at is not None and (not file.exists() or file.read_text().rstrip() != text):
                    write_atomically(file, text)
            write_atomically(self.path / STATUS_FILE, status.model_dump_json(by_alias=True, indent=2))

    def _generation_file(self, index: int) -> Path:
        return (self.path / attempt_key(index, 0)).parents[1] / GENERATION_FILE

    def attempt_directory(self, generation: int, number: int) -> Path:
        """Where an attempt's stages write."""
        return self.path / attempt_key(generation, number)


def _read(file: Path, model: type[M]) -> M:
    try:
        return model.model_validate_json(file.read_bytes())
    except OSError as error:
        raise RunnerError(f"{file} cannot be read: {error.strerror}; give the rights to it, or put it back") from error
    except ValidationError as error:
        raise RunnerError(
            f"{file} cannot be read: {error.errors(include_url=False)[0]['msg']}; if it was edited, undo that;"
            " otherwise move the directory away and start again"
        ) from error


def _held(file: IO[str]) -> bool:
    """Whether the lock could be taken. Who only looks whether somebody works here (`in_use`) holds it for a moment and
    shared: that is no reason to give up."""
    for _ in range(LOOKS):
        if _lock(file, fcntl.LOCK_EX):
            return True
        if not _lock(file, fcntl.LOCK_SH):
            return False  # held by one that works here
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(LOOK_SECONDS)
    return False


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
