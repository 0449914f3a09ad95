"""Recorded answers: a mentor or judge out of a file, and the recorder that writes such a file.

A file has JSON lines of two kinds. The recorder writes exact ones, found by the whole request again:

    {"key": "5f...", "kind": "mentor-answer", "subject": "q017", "model": "9c...", "completions": [...], "usage": {...}}

People write those by subject, which answer whatever the prompt's wording is:

    {"kind": "mentor-answer", "subject": "q017", "answer": "An inch is 2.54 cm. ..."}

An exact line wins. No line holds a prompt, an address, a header or a key.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perseid.engines.errors import NotRecordedError, RecordedAnswersError
from perseid.engines.journal import generation_from_json, generation_to_json, request_key
from perseid.engines.protocol import Completion, Engine, Generation, Request, Usage
from perseid.engines.sampling import cut_at_stop

_OURS = b'{"key":"'
"""How a recorder's lines begin: only such a line may be a write that was cut off."""
_KEY = re.compile(r"[0-9a-f]{64}")
_BY_SUBJECT = {"kind", "subject", "answer"}
_EXACT = {"key", "kind", "subject", "model", "completions", "usage"}
_OPTIONAL = {"model"}
_BYTES_PER_TOKEN = 4
"""Of English text, roughly: how long an answer is that no tokenizer has seen."""


def recorded_key(request: Request) -> str:
    """Content address of a request, whatever model answers it: SHA-256 of messages and sampling, 64 hex digits."""
    return request_key("", request)


@dataclass(slots=True)
class _Answers:
    """What a file holds."""

    exact: dict[str, Generation] = field(default_factory=dict)
    by_subject: dict[tuple[str, str], str] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    """Digest of each model that the recorder wrote answers of, with the first line's number."""
    whole: int = 0
    """Bytes before a line that was cut off in the middle of a write."""


class RecordedEngine:
    """Answers from a file; no network, no model, and nothing to pay."""

    def __init__(self, path: Path) -> None:
        """Read the whole file. Raises RecordedAnswersError with the number of a broken line."""
        self._path = path
        content = _read(path)
        self._answers = _parse(path, content)
        if not self._answers.exact and not self._answers.by_subject:
            raise RecordedAnswersError(f"{path} holds no answers; {_how_to_record(path, 'mentor-answer', 'q001')}")
        self._model_id = f"recorded:{hashlib.sha256(content[: self._answers.whole]).hexdigest()}"

    @property
    def model_id(self) -> str:
        """SHA-256 of the file: another answer in it is another mentor."""
        return self._model_id

    async def generate(self, request: Request) -> Generation:
        """The recorded answer: of this very request where there is one, else of its kind and subject.

        An answer by subject stands for each of `sampling.n` samples and for a beam search's answer, and is cut at the
        request's stop strings. Its length in tokens is an estimate, and its usage counts the call alone. Raises
        NotRecordedError.
        """
        exact = self._answers.exact.get(recorded_key(request))
        if exact is not None:
            return exact
        answer = self._answers.by_subject.get((request.kind, request.subject)) if request.subject else None
        if answer is None:
            subject = request.subject or "(none was given)"
            raise NotRecordedError(
                f"{self._path} has no answer of kind {request.kind!r} on subject {subject!r}; "
                f"{_how_to_record(self._path, request.kind, request.subject)}"
            )
        sampling = request.sampling
        if sampling.choices is not None and answer not in sampling.choices:
            raise RecordedAnswersError(
                f"{self._path} answers {answer[:80]!r} to kind {request.kind!r} on subject {request.subject!r}, which "
                f"is none of the choices {list(sampling.choices)}; write one of them there"
            )
        cut = cut_at_stop(answer, sampling.stop, keep=sampling.keep_stop)
        text = answer if cut is None else cut
        tokens = len(text.encode(errors="replace")) // _BYTES_PER_TOKEN + 1
        return Generation((Completion(text, tokens, "stop"),) * sampling.n, Usage(calls=1))

    async def close(self) -> None:
        """Nothing is held open."""


class Recorder:
    """Puts what the engine answers into a file, on the disk before it is handed out, and never asks for it again.

    Placed inside a JournaledEngine, it keeps answers over runs and not only over restarts of one. One process at a time
    may record into a file, and the answers of one model only.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        """Open or create the file. A last line that a kill cut off is removed. Raises RecordedAnswersError."""
        self._engine = engine
        self._path = path
        self._model = hashlib.sha256(engine.model_id.encode()).hexdigest()
        self._file: int | None = _open_locked(path)
        try:
            self._answers = _parse(path, _read(path))
            self._check_model()
            self._mend()
        except BaseException:
            self._release()
            raise

    @property
    def model_id(self) -> str:
        """The inner engine's."""
        return self._engine.model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request from the file, or ask the engine and record. Raises EngineError."""
        key = recorded_key(request)
        known = self._answers.exact.get(key)
        if known is not None:
            return known
        generation = await self._engine.generate(request)
        file = self._append(
            {
                "key": key,
                "kind": request.kind,
                "subject": request.subject,
                "model": self._model,
                **generation_to_json(generation),
            }
        )
        self._answers.exact.setdefault(key, generation)
        try:
            await asyncio.to_thread(os.fsync, file)
        except OSError as error:
            raise RecordedAnswersError(f"{self._path} cannot be written to the disk: {error.strerror}") from error
        return generation

    async def close(self) -> None:
        """Close the engine, then the file."""
        try:
            await self._engine.close()
        finally:
            self._release()

    def _check_model(self) -> None:
        for model, number in self._answers.models.items():
            if model != self._model:
                raise RecordedAnswersError(
                    f"{self._path}:{number}: this answer was recorded from another model than {self.model_id}; record "
                    "each model into a file of its own"
                )

    def _mend(self) -> None:
        """Make the file end with a whole line."""
        assert self._file is not None
        if self._answers.whole < os.fstat(self._file).st_size:
            os.ftruncate(self._file, self._answers.whole)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._write(b"\n")  # written by hand, and whole

    def _append(self, line: dict[str, Any]) -> int:
        # ASCII, because a model's text may hold what is no UTF-8 (half a surrogate pair).
        return self._write(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")

    def _write(self, content: bytes) -> int:
        if self._file is None:
            raise RecordedAnswersError(f"the recorder of {self._path} is closed")
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, content)
            if written < len(content):
                raise OSError(f"only {written} of {len(content)} bytes fitted")
        except OSError as error:
            os.ftruncate(self._file, before)
            raise RecordedAnswersError(f"{self._path} cannot be written: {error}; make room and run again") from error
        return self._file

    def _release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _open_locked(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RecordedAnswersError(f"{path} cannot be opened for recording: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        why = "something else records into it" if isinstance(error, BlockingIOError) else error.strerror
        raise RecordedAnswersError(f"{path} cannot be locked for recording: {why}; take another file") from error
    return file


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RecordedAnswersError(f"the recorded answers {path} cannot be read: {error.strerror}") from error


def _parse(path: Path, content: bytes) -> _Answers:
    """All answers. Of a request that was recorded twice the first stays, as whoever asked then was given it."""
    answers = _Answers()
    lines = content.split(b"\n")
    last = lines.pop()  # empty, or a line without its end
    for number, line in enumerate(lines, start=1):
        _add(answers, f"{path}:{number}", number, line)
        answers.whole += len(line) + 1
    if last and not _torn(last):
        _add(answers, f"{path}:{len(lines) + 1}", len(lines) + 1, last)
        answers.whole += len(last)
    return answers


def _torn(line: bytes) -> bool:
    """Whether this last line is what a killed recorder left."""
    if not line.startswith(_OURS):
        return _OURS.startswith(line)
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _add(answers: _Answers, where: str, number: int, raw: bytes) -> None:
    if not raw.strip():
        return
    try:
        line = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise RecordedAnswersError(f"{where}: not UTF-8 (byte {error.start + 1}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise RecordedAnswersError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(line, dict):
        raise RecordedAnswersError(f"{where}: a JSON object is needed, not {type(line).__name__}")
    _check_fields(where, line, _EXACT if "key" in line else _BY_SUBJECT)
    if "key" in line:
        generation = _generation(where, line)
        if not _KEY.fullmatch(line["key"]):
            raise RecordedAnswersError(f"{where}: the key is not 64 hex digits; leave out the key in a line by hand")
        answers.exact.setdefault(line["key"], generation)
        if "model" in line:
            answers.models.setdefault(line["model"], number)
        return
    place = (line["kind"], line["subject"])
    if not all(place) or not line["answer"].strip():
        raise RecordedAnswersError(f"{where}: kind, subject and answer must not be empty")
    if place in answers.by_subject:
        raise RecordedAnswersError(
            f"{where}: an earlier line answers kind {place[0]!r} on subject {place[1]!r} already; keep one of them"
        )
    answers.by_subject[place] = line["answer"]


def _check_fields(where: str, line: dict[str, Any], fields: set[str]) -> None:
    if missing := fields - _OPTIONAL - line.keys():
        raise RecordedAnswersError(f"{where}: lacks {', '.join(sorted(missing))}")
    if unknown := line.keys() - fields:
        raise RecordedAnswersError(f"{where}: has unknown fields: {', '.join(sorted(unknown))}")
    for name in fields & line.keys() - {"completions", "usage"}:
        if not isinstance(line[name], str):
            raise RecordedAnswersError(f"{where}: {name} must be a text, not {type(line[name]).__name__}")


def _generation(where: str, line: dict[str, Any]) -> Generation:
    try:
        generation = generation_from_json(line)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordedAnswersError(
            f"{where}: completions or usage are not as a recorder writes them: {error}"
        ) from None
    usage = generation.usage
    counts = (usage.calls, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    if not generation.completions or not all(_is_completion(one) for one in generation.completions):
        raise RecordedAnswersError(f"{where}: completions must be answers with text, tokens and finish_reason")
    if not all(_is_count(count) for count in counts):
        raise RecordedAnswersError(f"{where}: the counts in usage must be whole numbers from 0")
    return generation


def _is_completion(one: Completion) -> bool:
    scores: object = one.choice_logprobs
    return (
        isinstance(one.text, str)
        and _is_count(one.tokens)
        and one.finish_reason in ("stop", "length")
        and (one.logprob is None or _is_number(one.logprob))
        and (scores is None or (isinstance(scores, dict) and all(_is_number(score) for score in scores.values())))
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _how_to_record(path: Path, kind: str, subject: str) -> str:
    line = json.dumps({"kind": kind, "subject": subject or "...", "answer": "..."}, ensure_ascii=False)
    return (
        f"write a line {line} into it, or let the real model answer once (type openai or model) with its answers "
        f"recorded into {path.name}"
    )
