"""Teaching, judging and assessing, with scripted models (ME1 to ME7)."""

from __future__ import annotations

import pytest
from meteor_scripted import (
    RIGHT,
    SAMPLING,
    UNSURE,
    WRONG,
    CompletionEngine,
    ListJudge,
    ShuffledEngine,
    completion,
    question,
    questions,
    said,
)

from perseid.api.meteor import SelfAssessmentSpec
from perseid.data.prompts import plain_question
from perseid.data.records import ChoiceCheck, TrainingSample
from perseid.engines.errors import BudgetExceededError, EngineDiedError
from perseid.engines.journal import Journal
from perseid.engines.journaled import JournaledEngine
from perseid.engines.protocol import EngineError
from perseid.engines.scripted import ScriptedEngine
from perseid.meteor.assessment import AssessmentSettings, assess, assess_all
from perseid.meteor.guidelines import TeachingSettings, teach
from perseid.meteor.judges import ModelJudge, VerifierJudge, judge_all
from perseid.meteor.prompts import THINK_FIRST
from perseid.meteor.verdicts import VERDICT_WEIGHT, VerdictSamples, judging_samples, verdict_samples

TEACHING = TeachingSettings(seed=3, mentor_sampling=SAMPLING, guideline_sampling=SAMPLING)


def assessing(**more):
    return AssessmentSettings(**{"seed": 3, "max_tries": 3, "interval": 10, "sampling": SAMPLING, **more})


def number_of(request):
    return int(request.subject[1:])


async def test_every_question_becomes_the_mentors_answer_to_the_plain_question():
    learner = ScriptedEngine(lambda request: [f"Guideline for {request.subject}."])
    mentor = ScriptedEngine(lambda request: [f"Answer: {number_of(request)}000"])
    asked = questions(5)
    taught = await teach(asked, learner, mentor, TEACHING)
    assert [sample.problem_id for sample in taught.samples] == [one.id for one in asked]
    assert [sample.prompt for sample in taught.samples] == [plain_question(one) for one in asked]
    assert [sample.answer for sample in taught.samples] == [f"Answer: {n}000" for n in range(1, 6)]
    assert not taught.dropped
    for one in mentor.requests:
        assert f"Guideline for {one.subject}." in one.messages[-1].content
        assert one.kind == "mentor-answer"


async def test_without_guidelines_the_learner_is_not_asked_and_the_mentor_reads_the_plain_question():
    learner = ScriptedEngine(lambda request: ["x"])
    mentor = ScriptedEngine(lambda request: ["Answer: 1"])
    settings = TeachingSettings(seed=3, mentor_sampling=SAMPLING, guideline=False)
    taught = await teach(questions(3), learner, mentor, settings)
    assert len(taught.samples) == 3
    assert learner.requests == []
    assert mentor.requests[0].messages[0].content == plain_question(question(1))


async def test_whatever_goes_wrong_drops_its_question_with_a_reason_and_no_other():
    def guideline(request):
        answers = {
            1: completion(""),
            2: completion("no end of a sentence", finish="length"),
            3: completion("I'm sorry, I can't do that."),
            4: completion(question(4).title),
        }
        if number_of(request) == 5:
            raise EngineError("boom")
        return [answers.get(number_of(request), completion("Use kilo. And then", finish="length"))]

    def answer(request):
        if number_of(request) == 6:
            raise EngineError("down")
        if number_of(request) == 7:
            raise BudgetExceededError("spent")
        answers = {
            8: completion(" \n"),
            9: completion("1000", finish="length"),
            10: completion("I cannot help with that."),
            11: completion(request.messages[-1].content),
            12: completion("Use kilo."),
        }
        return [answers.get(number_of(request), completion("Answer: 1"))]

    asked = questions(14)
    taught = await teach(asked, CompletionEngine(guideline), CompletionEngine(answer), TEACHING)
    reasons = {one.problem_id: one.reason for one in taught.dropped}
    assert reasons == {
        "q1": "guideline-empty",
        "q2": "guideline-truncated",
        "q3": "guideline-refused",
        "q4": "guideline-echo",
        "q5": "learner-failed",
        "q6": "mentor-failed",
        "q7": "budget-exceeded",
        "q8": "answer-empty",
        "q9": "answer-truncated",
        "q10": "answer-refused",
        "q11": "answer-echo",
        "q12": "answer-echo",
    }
    assert len(taught.samples) + len(taught.dropped) == len(asked) == len(taught.records)
    assert [one.problem_id for one in taught.samples] == ["q13", "q14"]
    assert taught.records[12].guideline == "Use kilo."
    assert taught.records[12].guideline_cut


async def test_a_dead_engine_stops_the_stage_instead_of_dropping_every_question():
    def dead(request):
        raise EngineDiedError("gone")

    with pytest.raises(EngineDiedError):
        await teach(questions(3), ScriptedEngine(dead), ScriptedEngine(dead), TEACHING)


async def test_two_questions_of_one_id_are_an_error():
    engine = ScriptedEngine(lambda request: ["x"])
    with pytest.raises(ValueError, match="q1"):
        await teach([question(1), question(1)], engine, engine, TEACHING)


async def test_a_judge_is_asked_again_with_a_reminder_until_its_verdict_has_the_form():
    answers = ["Not Correct", "The answer is correct.", said(False, "Count again.")]
    engine = ScriptedEngine(lambda request: [answers[len(engine.requests) - 1]])
    verdict = await ModelJudge(engine).judge(question(), "Answer: 10")
    assert (verdict.right, verdict.advice, verdict.attempts) == (False, "Count again.", 3)
    assert verdict.texts == tuple(answers)
    assert "form" in engine.requests[1].messages[-1].content
    assert [len(one.messages) for one in engine.requests] == [2, 4, 6]


async def test_a_judge_without_form_is_unsure_and_a_failing_one_has_failed():
    verdict = await ModelJudge(ScriptedEngine(lambda request: ["Not Correct"])).judge(question(), "x")
    assert (verdict.right, verdict.reason, verdict.attempts) == (None, "judge-unsure", 3)

    def failing(request):
        raise BudgetExceededError("spent")

    verdict = await ModelJudge(ScriptedEngine(failing)).judge(question(), "x")
    assert (verdict.right, verdict.reason) == (None, "budget-exceeded")


async def test_a_verifier_judges_by_the_check_and_says_what_is_wrong_with_a_poisoned_row():
    poisoned = question(3, check=ChoiceCheck(options=("gram", "ton"), answer="litre"))
    rows = [
        (question(1), "Answer: 1000"),
        (question(2), "Answer: 1"),
        (poisoned, "gram"),
        (question(4, check=None), ""),
    ]
    records = await judge_all(VerifierJudge(), rows)
    assert [one.right for one in records] == [True, False, None, None]
    assert [one.reason for one in records] == ["", "", "bad-check", "no-check"]
    assert "litre" in records[2].detail


async def test_wrong_wrong_right_gives_three_attempts_and_the_third_joins_the_pool():
    learner = ScriptedEngine(lambda request: [f"try {len(learner.requests)}"])
    judge = ListJudge(q1=[WRONG, WRONG, RIGHT])
    got = await assess(question(), learner, judge, assessing())
    assert [one.answer for one in got.attempts] == ["try 1", "try 2", "try 3"]
    assert got.right is got.attempts[2]
    second = "\n".join(message.content for message in learner.requests[1].messages)
    assert plain_question(question()) in second
    assert "try 1" in second
    assert WRONG.advice in second
    assert [one.kind for one in learner.requests] == ["answer", "revise", "revise"]


async def test_what_never_becomes_right_or_cannot_be_judged_goes_to_quarantine_and_not_into_the_pool():
    def answer(request):
        if request.subject == "q4":
            raise EngineError("boom")
        return ["an answer"]

    judge = ListJudge(q1=[WRONG] * 3, q2=[WRONG, UNSURE], q3=[RIGHT])
    trained = []

    async def retrain(interval):
        trained.append(interval)
        return interval.learner

    got = await assess_all(questions(4), ScriptedEngine(answer), judge, assessing(), retrain)
    assert {one.id: one.reason for one in got.quarantine} == {
        "q1": "never-right",
        "q2": "judge-unsure",
        "q4": "learner-failed",
    }
    assert [len(one.attempts) for one in got.assessments] == [3, 2, 1, 0]
    assert [one.problem_id for one in got.pool] == ["q3"]
    assert [one.samples for one in trained] == [got.pool]


async def test_an_answer_that_was_cut_off_is_wrong_without_a_judge():
    answers = [completion("Answer: 1000", finish="length"), completion(""), completion("Answer: 1000")]
    learner = CompletionEngine(lambda request: [answers[len(learner.requests) - 1]])
    judge = ListJudge(q1=[RIGHT])
    got = await assess(question(), learner, judge, assessing())
    assert [one.source for one in got.attempts] == ["form", "form", "rule"]
    assert len(judge.judged) == 1


def _sometimes_right(request):
    """Right at the first try for most questions, after advice for every third, never for every seventh."""
    number = number_of(request)
    right = number % 7 and (number % 3 or request.kind == "revise")
    return [f"Answer: {number}000" if right else "Answer: 1"]


async def run_all(engine_of, count=25, judge=None, **settings):
    events = []

    async def retrain(interval):
        events.append(interval)
        return engine_of(interval.number)

    got = await assess_all(questions(count), engine_of(0), judge or VerifierJudge(), assessing(**settings), retrain)
    return got, events


async def test_twenty_five_right_answers_at_an_interval_of_ten_train_twice_and_at_the_end():
    def answer(request):
        return [f"Answer: {number_of(request)}000"]

    got, events = await run_all(lambda number: ScriptedEngine(answer, model_id=f"m{number}"))
    assert [len(one.samples) for one in events] == [10, 10, 5]
    models = [one.attempts[0].model_id for one in got.assessments]
    assert models == ["m0"] * 10 + ["m1"] * 10 + ["m2"] * 5
    assert got.learner.model_id == "m3"
    assert got.intervals == 3


@pytest.mark.parametrize("order", range(5))
async def test_the_result_is_the_same_whatever_finishes_first(order):
    def engine_of(number):
        return ShuffledEngine(_sometimes_right, order=order * 100 + number, model_id=f"m{number}")

    got, events = await run_all(engine_of, count=40, interval=4)
    plain, plain_events = await run_all(
        lambda number: ScriptedEngine(_sometimes_right, model_id=f"m{number}"), 40, interval=4
    )
    assert got.assessments == plain.assessments
    assert got.pool == plain.pool
    assert [one.samples for one in events] == [one.samples for one in plain_events]
    assert [len(one.samples) for one in events] == [4] * 8 + [3]  # 35 of 40 become right
    assert len(got.quarantine) == 5


def test_an_interval_or_a_number_of_tries_below_one_is_an_error():
    for name in ("interval", "max_tries"):
        with pytest.raises(ValueError, match=name):
            assessing(**{name: 0})


async def test_a_rolled_back_model_answers_on():
    same = ScriptedEngine(_sometimes_right, model_id="old")
    got, events = await run_all(lambda number: same, interval=5)
    assert len(events) > 1
    assert {attempt.model_id for one in got.assessments for attempt in one.attempts} == {"old"}


@pytest.mark.parametrize("killed_after", [1, 7, 13, 20])
async def test_a_killed_run_makes_no_call_twice_and_ends_the_same(tmp_path, killed_after):
    made = []

    def engine_of(journal, limit):
        def answer(request):
            if len(made) >= limit:
                raise EngineDiedError("killed")
            made.append((request.messages, request.sampling))
            return _sometimes_right(request)

        return lambda number: JournaledEngine(ScriptedEngine(answer, model_id=f"m{number // 2}"), journal)

    with Journal(tmp_path / "calls") as journal, pytest.raises(EngineDiedError):
        await run_all(engine_of(journal, killed_after), interval=4)
    assert len(made) == killed_after
    with Journal(tmp_path / "calls") as journal:
        got, _ = await run_all(engine_of(journal, 10_000), interval=4)
    plain, _ = await run_all(lambda number: ScriptedEngine(_sometimes_right, model_id=f"m{number // 2}"), interval=4)
    assert got.assessments == plain.assessments
    assert len(made) == len(set(made)) == sum(len(one.attempts) for one in plain.assessments)


@pytest.mark.parametrize("chain_of_thought", [True, False])
async def test_the_learner_is_told_to_think_where_the_spec_says_so_and_always_learns_the_plain_question(
    chain_of_thought,
):
    learner = ScriptedEngine(lambda request: ["Two halves. Answer: 1"])
    settings = AssessmentSettings.of(SelfAssessmentSpec(chain_of_thought=chain_of_thought), seed=3)

    async def stay(interval):
        return interval.learner

    got = await assess_all(questions(2), learner, ListJudge(q1=[WRONG, RIGHT], q2=[RIGHT]), settings, stay)
    asked = [request.messages[0].content for request in learner.requests]
    assert len(asked) == 3
    assert all((THINK_FIRST in text) == chain_of_thought for text in asked)
    assert [sample.prompt for sample in got.pool] == [plain_question(one) for one in questions(2)]


async def test_verdicts_become_balanced_samples_in_the_words_of_the_self_verdict():
    asked = questions(25)
    got, _ = await run_all(lambda number: ScriptedEngine(_sometimes_right))
    by_id = {one.id: one for one in asked}
    made = verdict_samples(got.assessments, by_id, seed=5)
    said_of = [one.answer for one in made.samples]
    assert said_of.count("right") == said_of.count("wrong") == min(made.right, made.wrong) > 3
    assert made.left_out == made.right + made.wrong - len(made.samples)
    assert len({one.id for one in made.samples}) == len(made.samples)
    assert verdict_samples(reversed(got.assessments), by_id, seed=5) == made
    assert verdict_samples(got.assessments, by_id, seed=6) != made
    only_right = [one for one in got.assessments if len(one.attempts) == 1]
    assert verdict_samples(only_right, by_id, seed=5).samples == ()


def _answer(name: str, question_id: str) -> TrainingSample:
    return TrainingSample(id=name, problem_id=question_id, prompt="?", answer="1")


async def test_judging_is_learned_with_the_last_answer_to_each_question_once_more():
    asked = questions(25)
    got, _ = await run_all(lambda number: ScriptedEngine(_sometimes_right))
    verdicts = verdict_samples(got.assessments, {one.id: one for one in asked}, seed=5)
    answers = [_answer("own-1", "q1"), _answer("own-2", "q2"), _answer("mentor-1", "q1")]
    learned = judging_samples(verdicts, answers)
    assert learned == [*verdicts.samples, answers[2], answers[1]]
    assert {one.weight for one in verdicts.samples} == {VERDICT_WEIGHT}, "one word must be heard beside whole answers"
    assert judging_samples(VerdictSamples((), 3, 0), answers) == [], "without verdicts there is no judging to learn"


async def test_verdicts_without_a_judge_and_repetitions_are_no_samples():
    learner = ScriptedEngine(lambda request: ["same"])
    wrong = await assess(question(1), learner, ListJudge(q1=[WRONG] * 3), assessing())
    right = await assess(question(2), learner, ListJudge(q2=[RIGHT]), assessing())
    unsure = await assess(question(3), learner, ListJudge(q3=[UNSURE]), assessing())
    cut = await assess(
        question(4), CompletionEngine(lambda request: [completion("cut o", finish="length")]), ListJudge(), assessing()
    )
    assert len(cut.attempts) == 3
    made = verdict_samples([wrong, right, unsure, cut], {one.id: one for one in questions(4)}, seed=1)
    assert (made.right, made.wrong, len(made.samples)) == (1, 1, 2)
