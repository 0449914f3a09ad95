"""Answers from an engine, verdicts from whoever knows how to judge them, scores from both."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from perseid.api.training import EvaluationSpec
from perseid.engines.protocol import Completion, Engine, EngineError, Message, Request
from perseid.engines.sampling import sampling_of
from perseid.engines.together import together
from perseid.evaluation.scores import AnswerRecord, EvaluationResult, ProblemScore, estimate_pass_at


class Item(Protocol):
    """Something that can be asked: a problem, or a question of a domain."""

    @property
    def id(self) -> str:
        """Unique in its set."""
        ...


ItemT = TypeVar("ItemT", bound=Item)


class EvaluationError(Exception):
    """A score that would mean nothing. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class AnswerVerdict:
    """What came of running an answer."""

    passed: bool
    reason: str = ""
    """Why it did not pass."""
    code: str | None = None
    """The code that was found in the answer; None where none is complete."""


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """Said after every problem."""

    done: int
    total: int
    answers: int
    """Answers with a verdict so far."""
    passed: int
    failed_problems: int
    """Problems that the model could not be asked."""


Verify = Callable[[ItemT, str], Awaitable[AnswerVerdict]]


@dataclass(frozen=True, slots=True)
class _Scored:
    score: ProblemScore
    answers: list[AnswerRecord]
    prompt_tokens: int


async def evaluate(
    engine: Engine,
    problems: Sequence[ItemT],
    set_name: str,
    spec: EvaluationSpec,
    *,
    seed: int,
    verify: Verify[ItemT],
    prompt: Callable[[ItemT], str],
    on_progress: Callable[[EvaluationProgress], None] | None = None,
) -> tuple[EvaluationResult, list[AnswerRecord]]:
    """Ask every problem `spec.samples` times and judge the answers while others are still being made.

    `prompt` gives the user's turn, `verify` the verdict on one answer; answers come back in the problems' order. All
    problems are asked at once: the engine batches, and `verify` limits itself. A problem whose request fails is
    recorded with the reason and its answers count as failed. An exception of `verify` stops the evaluation, because a
    broken judge would look like a bad model. Raises EvaluationError where no score can be given.
    """
    repeated = sorted(problem_id for problem_id, count in Counter(p.id for p in problems).items() if count > 1)
    if not problems or repeated:
        what = f"holds problems of the same id, such as {repeated[:3]}" if repeated else "holds no problems"
        raise EvaluationError(f"the problem set {set_name} {what}: correct the set")
    began = time.monotonic()
    done: list[_Scored] = []

    async def score(problem: ItemT) -> _Scored:
        scored = await _score(engine, problem, set_name, spec, seed, verify, prompt)
        done.append(scored)
        if on_progress is not None:
            on_progress(
                EvaluationProgress(
                    done=len(done),
                    total=len(problems),
                    answers=sum(one.score.n for one in done),
                    passed=sum(one.score.passed for one in done),
                    failed_problems=sum(one.score.error is not None for one in done),
                )
            )
        return scored

    scored = await together([score(problem) for problem in problems])
    scores = [one.score for one in scored]
    answers = [answer for one in scored for answer in one.answers]
    failed = [one for one in scores if one.error is not None]
    if len(failed) == len(scores):
        raise EvaluationError(
            f"the model could not be asked any problem of {set_name}; the first said: {failed[0].error}"
        )
    result = EvaluationResult(
        set_name=set_name,
        model_id=engine.model_id,
        n=spec.samples,
        confidence=spec.confidence,
        pass_at=estimate_pass_at(scores, spec.k, resamples=spec.bootstrap, confidence=spec.confidence, seed=seed),
        problems=tuple(scores),
        tokens=sum(answer.tokens for answer in answers),
        prompt_tokens=sum(one.prompt_tokens for one in scored),
        truncated=sum(one.truncated for one in scores),
        closed_code_share=sum(one.closed_code for one in scores) / len(answers),
        failed_problems=len(failed),
        seconds=time.monotonic() - began,
    )
    return result, answers


def request_seed(seed: int, set_name: str, problem_id: str) -> int:
    """Seed of a problem's request, 31 bits: the same whatever other problems are in the set."""
    digest = hashlib.sha256(f"evaluate\0{seed}\0{set_name}\0{problem_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


async def _score(
    engine: Engine,
    problem: ItemT,
    set_name: str,
    spec: EvaluationSpec,
    seed: int,
    verify: Verify[ItemT],
    prompt: Callable[[ItemT], str],
) -> _Scored:
    request = Request(
        messages=(Message("user", prompt(problem)),),
        sampling=sampling_of(spec.sampling, n=spec.samples, seed=request_seed(seed, set_name, problem.id)),
        kind="evaluate",
    )
    try:
        generation = await engine.generate(request)
    except EngineError as error:
        reason = f"{type(error).__name__}: {error}"
        answers = [_no_answer(problem, index, reason) for index in range(spec.samples)]
        score = ProblemScore(problem_id=problem.id, n=spec.samples, passed=0, error=reason)
        return _Scored(score, answers, prompt_tokens=0)
    if len(generation.completions) != spec.samples:
        raise EvaluationError(
            f"the engine of {engine.model_id} gave {len(generation.completions)} answers to {problem.id}, asked were "
            f"{spec.samples}: pass@k needs all of them; use an engine that honours n"
        )

    async def judge(index: int, completion: Completion) -> AnswerRecord:
        verdict = await verify(problem, completion.text)
        return AnswerRecord(
            id=f"{problem.id}/{index}",
            problem_id=problem.id,
            sample_index=index,
            text=completion.text,
            code=verdict.code,
            passed=verdict.passed,
            reason=verdict.reason,
            truncated=completion.finish_reason == "length",
            mean_logprob=completion.mean_logprob,
            tokens=completion.tokens,
        )

    answers = await together([judge(index, one) for index, one in enumerate(generation.completions)])
    score = ProblemScore(
        problem_id=problem.id,
        n=spec.samples,
        passed=sum(answer.passed for answer in answers),
        truncated=sum(answer.truncated for answer in answers),
        closed_code=sum(answer.code is not None for answer in answers),
    )
    return _Scored(score, answers, generation.usage.prompt_tokens)


def _no_answer(problem: Item, index: int, reason: str) -> AnswerRecord:
    return AnswerRecord(
        id=f"{problem.id}/{index}",
        problem_id=problem.id,
        sample_index=index,
        text="",
        code=None,
        passed=False,
        reason=reason,
        truncated=False,
        mean_logprob=None,
        tokens=0,
    )
