from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from perseid.api.engine import SamplingSpec
from perseid.api.training import EvaluationSpec
from perseid.data.records import Problem
from perseid.engines.protocol import Completion, EngineError, Generation, PromptTooLongError, Request, Usage
from perseid.evaluation.harness import (
    AnswerVerdict,
    EvaluationError,
    EvaluationProgress,
    evaluate,
    request_seed,
)
from perseid.evaluation.scores import Comparison, EvaluationResult, ProblemScore, compare

SPEC = EvaluationSpec(samples=3, k=[1, 3], bootstrap=200, sampling=SamplingSpec(temperature=0.6, max_tokens=50))


class PlayedEngine:
    """Gives each problem's written answers; an exception instead of them is raised."""

    model_id = "played"

    def __init__(self, answers: Mapping[str, list[str] | EngineError]) -> None:
        self.answers = answers
        self.requests: dict[str, Request] = {}
        self.gates: dict[str, asyncio.Event] = {}

    async def generate(self, request: Request) -> Generation:
        problem = request.messages[0].content.removeprefix("solve ")
        self.requests[problem] = request
        if problem in self.gates:
            await self.gates[problem].wait()
        answers = self.answers[problem]
        if isinstance(answers, EngineError):
            raise answers
        completions = tuple(
            Completion(text, tokens=10, finish_reason="length" if "cut" in text else "stop", logprob=-5.0)
            for text in answers
        )
        return Generation(completions, Usage(1, 7, 0, 10 * len(answers)))

    async def close(self) -> None:
        pass


def problems(*ids: str) -> list[Problem]:
    return [Problem(id=one, statement=one) for one in ids]


def prompt(problem: Problem) -> str:
    return f"solve {problem.id}"


async def verify(problem: Problem, answer: str) -> AnswerVerdict:
    code = answer if "code" in answer else None
    return AnswerVerdict(passed="good" in answer, reason="" if "good" in answer else "assertion failed", code=code)


async def run(
    engine: PlayedEngine, *ids: str, on_progress: Callable[[EvaluationProgress], None] | None = None
) -> EvaluationResult:
    result, _ = await evaluate(
        engine, problems(*ids), "dev", SPEC, seed=1, verify=verify, prompt=prompt, on_progress=on_progress
    )
    return result


async def test_scores_and_answers_tell_what_happened() -> None:
    engine = PlayedEngine({"a": ["good code", "bad code", "cut"], "b": ["bad", "bad", "bad code"]})
    seen: list[EvaluationProgress] = []
    result, answers = await evaluate(
        engine, problems("a", "b"), "dev", SPEC, seed=1, verify=verify, prompt=prompt, on_progress=seen.append
    )
    assert result.problems == (
        ProblemScore(problem_id="a", n=3, passed=1, truncated=1, closed_code=2),
        ProblemScore(problem_id="b", n=3, passed=0, truncated=0, closed_code=1),
    )
    assert result.at(1).value == pytest.approx(1 / 6)
    assert result.at(3).value == pytest.approx(1 / 2)
    assert result.at(1).low <= result.at(1).value <= result.at(1).high
    assert (result.tokens, result.prompt_tokens, result.truncated, result.failed_problems) == (60, 14, 1, 0)
    assert result.closed_code_share == pytest.approx(0.5)
    assert [answer.id for answer in answers] == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]
    assert (answers[0].passed, answers[0].code, answers[0].mean_logprob) == (True, "good code", -0.5)
    assert (answers[2].passed, answers[2].truncated, answers[2].reason) == (False, True, "assertion failed")
    assert [(p.done, p.total) for p in seen] == [(1, 2), (2, 2)]
    assert (seen[-1].answers, seen[-1].passed) == (6, 1)
    with pytest.raises(KeyError, match="pass@2 of dev"):
        result.at(2)


async def test_each_problem_is_one_request_with_a_seed_of_its_own() -> None:
    engine = PlayedEngine({"a": ["x"] * 3, "b": ["x"] * 3})
    await run(engine, "a", "b")
    sampling = {problem: request.sampling for problem, request in engine.requests.items()}
    assert (sampling["a"].n, sampling["a"].temperature, sampling["a"].max_tokens) == (3, 0.6, 50)
    assert sampling["a"].seed == request_seed(1, "dev", "a") != sampling["b"].seed
    assert request_seed(2, "dev", "a") != request_seed(1, "dev", "a") != request_seed(1, "test", "a")


async def test_a_problem_that_cannot_be_asked_counts_as_failed_and_the_others_finish() -> None:
    engine = PlayedEngine({"a": PromptTooLongError("9000 tokens"), "b": ["good", "good", "good"]})
    result, answers = await evaluate(engine, problems("a", "b"), "dev", SPEC, seed=1, verify=verify, prompt=prompt)
    assert result.problems[0].error == "PromptTooLongError: 9000 tokens"
    assert (result.at(1).value, result.failed_problems) == (0.5, 1)
    assert [(a.passed, a.text, a.reason) for a in answers[:3]] == [(False, "", "PromptTooLongError: 9000 tokens")] * 3
    assert len(answers) == 6


async def test_a_model_that_cannot_be_asked_at_all_has_no_score() -> None:
    with pytest.raises(EvaluationError, match="connection refused"):
        await run(PlayedEngine({"a": EngineError("connection refused")}), "a")


async def test_answers_are_judged_while_others_are_still_being_made() -> None:
    engine = PlayedEngine({"slow": ["good"] * 3, "quick": ["good"] * 3})
    engine.gates["slow"] = asyncio.Event()

    async def opening(problem: Problem, answer: str) -> AnswerVerdict:
        engine.gates["slow"].set()  # only a verdict on the quick one's answers lets the slow one be made
        return AnswerVerdict(passed=True)

    result, _ = await evaluate(engine, problems("slow", "quick"), "dev", SPEC, seed=1, verify=opening, prompt=prompt)
    assert result.at(1).value == 1.0
    assert [score.problem_id for score in result.problems] == ["slow", "quick"]


async def test_a_broken_judge_stops_the_evaluation_and_leaves_nothing_running() -> None:
    engine = PlayedEngine({"a": ["x"] * 3, "hangs": ["x"] * 3})
    engine.gates["hangs"] = asyncio.Event()

    async def broken(problem: Problem, answer: str) -> AnswerVerdict:
        raise OSError("no sandbox")

    with pytest.raises(OSError, match="no sandbox"):
        await evaluate(engine, problems("a", "hangs"), "dev", SPEC, seed=1, verify=broken, prompt=prompt)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_sets_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(EvaluationError, match="holds no problems"):
        await run(PlayedEngine({}))
    with pytest.raises(EvaluationError, match=r"same id, such as \['a'\]"):
        await run(PlayedEngine({"a": []}), "a", "a")
    with pytest.raises(EvaluationError, match="gave 1 answers to a, asked were 3"):
        await run(PlayedEngine({"a": ["good"]}), "a")


async def test_records_survive_json_and_models_compare_by_problem() -> None:
    before = await run(PlayedEngine({"a": ["bad"] * 3, "b": ["good", "bad", "bad"]}), "a", "b")
    after = await run(PlayedEngine({"a": ["good"] * 3, "b": ["good", "bad", "bad"]}), "b", "a")
    assert EvaluationResult.model_validate_json(before.model_dump_json()) == before
    comparison = compare(before, after, resamples=200, confidence=0.95, seed=0)
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
    assert (comparison.baseline, comparison.candidate) == pytest.approx((1 / 6, 2 / 3))
    assert comparison.difference == pytest.approx(0.5)
    assert (comparison.up, comparison.down, comparison.same) == (1, 0, 1)
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(before, after.model_copy(update={"set_name": "test"}), resamples=200, confidence=0.95, seed=0)


def test_more_passed_answers_than_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="problem a"):
        ProblemScore(problem_id="a", n=2, passed=3)
