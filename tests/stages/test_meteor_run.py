"""METEOR's stages, with a scripted learner, mentor and judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meteor_world import MeteorWorld, number_of, right, world
from perseid.api.layout import Layout, read_stage_result
from perseid.api.result import MentorBudget
from perseid.engines.errors import JournalError
from perseid.engines.protocol import EngineError, Request
from perseid.stages.errors import StageError

__all__ = ["world"]

BY_SEARCH = {"expensive": ["search"], "critique": "self-verdict", "maxTurns": 1}
FIRST, SECOND, THIRD = "mentor-supervised", "self-assessment", "self-evolution"


def model_of(world: MeteorWorld, stage: Any, attempt: Any) -> Path:
    return world.directory(stage, attempt) / "model"


def test_the_mentor_answers_every_question_by_the_learners_guideline_and_the_learner_is_trained_on_it(
    world: MeteorWorld,
) -> None:
    attempt = world.attempt(world.spec())
    result = world.run(FIRST, attempt)
    assert result.counts == {"questions": 10, "samples": 10, "steps": 3}
    assert world.endpoints == {"mentor-answer": 10}
    assert world.kinds() == {"guideline": 10}
    samples = world.lines(FIRST, attempt, "samples.jsonl")
    assert [one["problem_id"] for one in samples] == [f"train-{number}" for number in range(10)]
    assert samples[0]["answer"] == right(0)
    assert "uideline" not in samples[0]["prompt"], "there is none when the learner is asked later on"
    assert world.trainings == [[one["id"] for one in samples]]
    assert world.skill(model_of(world, FIRST, attempt)) == 4


def test_without_guidelines_the_mentor_is_asked_alone(world: MeteorWorld) -> None:
    attempt = world.attempt(world.spec(mentorSupervised={"guideline": False}))
    world.run(FIRST, attempt)
    assert world.kinds() == {}
    assert world.endpoints == {"mentor-answer": 10}


def test_what_the_mentor_costs_is_in_the_result(world: MeteorWorld) -> None:
    result = world.run(FIRST, world.attempt(world.spec()))
    assert result.usage.calls == 20, "guidelines and answers"
    assert 0 < result.usage.paid_tokens < result.usage.prompt_tokens + result.usage.completion_tokens
    assert result.usage.cost == pytest.approx(result.usage.paid_tokens / 1000)


def test_a_question_that_the_mentor_cannot_answer_is_dropped_with_its_reason_and_the_others_are_learned(
    world: MeteorWorld,
) -> None:
    def mentor(request: Request) -> list[str]:
        number = number_of(request.messages[-1].content)
        if number == 4:
            raise EngineError("the endpoint answered 500")
        return ["I'm sorry, but I can't help with that."] if number == 5 else [right(number)]

    world.mentor = mentor
    attempt = world.attempt(world.spec())
    result = world.run(FIRST, attempt)
    assert result.counts["samples"] == 8
    reasons = {one["problem_id"]: one["reason"] for one in world.lines(FIRST, attempt, "dropped.jsonl")}
    assert reasons == {"train-4": "mentor-failed", "train-5": "answer-refused"}


def test_a_mentor_who_answers_nothing_fails_the_stage_with_the_first_error(world: MeteorWorld) -> None:
    def mentor(request: Request) -> list[str]:
        raise EngineError("the endpoint refuses the key in MENTOR_KEY (401)")

    world.mentor = mentor
    with pytest.raises(StageError, match="refuses the key in MENTOR_KEY"):
        world.run(FIRST, world.attempt(world.spec()))
    assert world.trainings == []


def test_no_call_is_made_that_could_exceed_the_budget_over_generations_and_attempts(world: MeteorWorld) -> None:
    spec = {**world.spec(), "budget": {"mentorCost": 0.8}}
    first = world.attempt(spec)
    result = world.run(FIRST, first)
    assert 0 < result.counts["samples"] < 10
    assert result.usage.cost <= 0.8
    dropped = world.lines(FIRST, first, "dropped.jsonl")
    assert {one["reason"] for one in dropped} == {"budget-exceeded"}
    assert "spec.budget.mentorCost" in dropped[0]["detail"]

    calls = world.endpoints.total()
    second = world.attempt(spec, generation=1)
    with pytest.raises(StageError, match=r"budget-exceeded.*spec\.budget\.mentorCost"):
        world.run(FIRST, second)
    assert world.endpoints.total() == calls, "the first generation has spent it"
    failed = read_stage_result(Layout.of(second).stage(FIRST))
    assert failed is not None
    assert failed.spent_budget == MentorBudget(mentor_cost=0.8), "so that the run ends, and does not try again"


def test_a_judge_that_the_budget_does_not_pay_fails_self_assessment_with_the_budget(world: MeteorWorld) -> None:
    judge = {
        "type": "openai",
        "openai": {"baseUrl": "http://127.0.0.1:1/v1", "model": "judge"},
        "price": {"prompt": 1000.0, "completion": 1000.0},
    }
    world.judge = lambda request: ["never said"]
    attempt = world.attempt({**world.spec(judge=judge), "budget": {"mentorCost": 0.0001}})
    with pytest.raises(StageError, match=r"no question could be assessed.*budget-exceeded.*spec\.budget\.mentorCost"):
        world.run(SECOND, attempt)
    assert world.endpoints.total() == 0
    failed = read_stage_result(Layout.of(attempt).stage(SECOND))
    assert failed is not None
    assert failed.spent_budget == MentorBudget(mentor_cost=0.0001)


def test_a_budget_spent_on_answers_that_teach_nothing_is_as_spent_as_any_other(world: MeteorWorld) -> None:
    world.mentor = lambda request: ["I'm sorry, but I can't help with that."]
    attempt = world.attempt({**world.spec(), "budget": {"mentorCost": 0.8}})
    with pytest.raises(StageError, match=r"no question could be taught.*budget-exceeded"):
        world.run(FIRST, attempt)
    assert 0 < world.endpoints["mentor-answer"] < 10, "some were answered"
    failed = read_stage_result(Layout.of(attempt).stage(FIRST))
    assert failed is not None
    assert failed.spent_budget == MentorBudget(mentor_cost=0.8)
    assert failed.usage.calls >= world.endpoints["mentor-answer"]
    assert 0 < failed.usage.cost <= 0.8, "what it was told before it failed is paid for"


def test_a_stage_that_fails_for_another_reason_names_no_budget(world: MeteorWorld) -> None:
    def mentor(request: Request) -> list[str]:
        raise EngineError("out of order")

    world.mentor = mentor
    attempt = world.attempt({**world.spec(), "budget": {"mentorCost": 1000.0}})
    with pytest.raises(StageError, match="out of order"):
        world.run(FIRST, attempt)
    failed = read_stage_result(Layout.of(attempt).stage(FIRST))
    assert failed is not None
    assert failed.spent_budget is None


def test_a_question_of_an_evaluation_set_is_not_learned(world: MeteorWorld) -> None:
    spec = world.spec()
    path = Path(spec["meteor"]["questions"]["train"]["path"])
    leaked = json.dumps({"id": "leaked", "title": "What  is 21 + 7?", "check": {"type": "number", "value": 28}})
    path.write_text(path.read_text() + leaked + "\n")
    attempt = world.attempt(spec)
    world.run(FIRST, attempt)
    (dropped,) = world.lines(FIRST, attempt, "dropped.jsonl")
    assert (dropped["id"], dropped["reason"], dropped["detail"]) == ("leaked", "contaminated", "dev")


def test_a_row_that_is_no_question_is_dropped_with_its_reason_and_the_others_are_learned(world: MeteorWorld) -> None:
    path = world.root / "dump.csv"
    path.write_text("title,body\nWhat is 1 + 7?,\n,nothing is asked\nWhat is 2 + 7?,\n")
    spec = world.spec()
    spec["meteor"]["questions"]["train"] = {"source": "csv", "path": str(path)}
    attempt = world.attempt(spec)
    result = world.run(FIRST, attempt)
    assert (result.counts["questions"], result.counts["samples"]) == (3, 2)
    (dropped,) = world.lines(FIRST, attempt, "dropped.jsonl")
    assert dropped["reason"]
    assert json.loads((world.directory(FIRST, attempt) / "yield.json").read_text())["total"] == 3


def test_answers_are_revised_by_advice_and_what_never_becomes_right_is_never_trained_on(world: MeteorWorld) -> None:
    attempt = world.attempt(world.spec(stages=[SECOND]))
    result = world.run(SECOND, attempt)
    # Three are right at once. The fourth becomes right after advice, and each training teaches one more.
    assert result.counts["accepted"] + result.counts["revised"] + result.counts["quarantined"] == 10
    assert result.counts["revised"] >= 1
    pool = {one["problem_id"] for one in world.lines(SECOND, attempt, "samples.jsonl")}
    quarantined = {one["problem_id"] for one in world.lines(SECOND, attempt, "dropped.jsonl")}
    assert pool | quarantined == {f"train-{number}" for number in range(10)}
    assert not pool & quarantined
    learned = {name for round_ in world.trainings for name in round_ if name.endswith("/assessed")}
    assert learned <= {f"{name}/assessed" for name in pool}
    assert world.endpoints == {}, "a rule judges here"


def test_later_questions_are_answered_by_the_model_that_was_trained_in_between(world: MeteorWorld) -> None:
    attempt = world.attempt(world.spec(stages=[SECOND]))
    result = world.run(SECOND, attempt)
    models = [
        one["attempts"][0]["model_id"] for one in world.lines(SECOND, attempt, "assessments.jsonl") if one["attempts"]
    ]
    assert len(set(models)) >= 2
    assert result.counts["trainings"] == len(world.trainings) >= 2
    assert world.skill(model_of(world, SECOND, attempt)) == 3 + len(world.trainings)


def test_a_training_that_makes_dev_worse_is_rolled_back_and_the_model_before_goes_on(world: MeteorWorld) -> None:
    world.lessons = [-2, 1, 0]
    world.start_at(6)
    attempt = world.attempt(world.spec(stages=[SECOND]))
    result = world.run(SECOND, attempt)
    assert result.counts["rolled back"] == 1
    trials = [
        json.loads(path.read_text()) for path in sorted(world.directory(SECOND, attempt).glob("rounds/*/trial.json"))
    ]
    assert [trial["stayed"] for trial in trials] == [False, True, True]
    assert trials[0]["gain"] < 0 < trials[1]["gain"]
    assert trials[1]["dev_before"] == trials[0]["dev_before"], "it goes on from where it was"
    assert world.skill(model_of(world, SECOND, attempt)) == 7
    assert not list(world.directory(SECOND, attempt).glob("rounds/*/model")), "no model that nobody needs is left"


def test_where_every_training_is_rolled_back_the_generation_has_no_model_and_says_so(world: MeteorWorld) -> None:
    world.lessons = [-1] * 10
    spec = world.spec(stages=[SECOND])
    attempt = world.attempt(spec)
    world.run(SECOND, attempt)
    assert not model_of(world, SECOND, attempt).exists()
    world.run("evaluate", attempt)
    assert "rolled back" in (world.generation(attempt).reason or "")


def test_the_learner_learns_verdicts_and_its_agreement_with_the_judge_is_measured_before_and_after(
    world: MeteorWorld,
) -> None:
    attempt = world.attempt(world.spec(stages=[SECOND]))
    result = world.run(SECOND, attempt)
    *rounds, last = world.trainings
    assert not [name for round_ in rounds for name in round_ if name.endswith("/verdict")], "answers come first"
    verdicts = [name for name in last if name.endswith("/verdict")]
    assert result.counts["verdicts"] == len(verdicts) > 0
    pool = [one["id"] for one in world.lines(SECOND, attempt, "samples.jsonl")]
    assert sorted(set(last) - set(verdicts)) == sorted(pool), "its own right answers once more"
    change = json.loads((world.directory(SECOND, attempt) / "agreement.json").read_text())
    assert change["before"]["answers"] == change["after"]["answers"] > 0
    assert result.metrics["agreement_auc_before"] == change["before"]["auc"]["value"]
    called = change["before"]["called_right"] / change["before"]["answers"]
    assert result.metrics["called_right_before"] == called
    assert {one["id"] for one in world.lines(SECOND, attempt, "verdicts-before.jsonl")} == {
        one["id"] for one in world.lines(SECOND, attempt, "verdicts-after.jsonl")
    }

    plain = world.spec(stages=[SECOND], selfAssessment={"interval": 4, "maxTries": 2, "learnToJudge": False})
    control = world.attempt(plain, 1)
    before = len(world.trainings)
    world.run(SECOND, control)
    assert not [name for round_ in world.trainings[before:] for name in round_ if name.endswith("/verdict")]


def test_where_the_mentor_has_answered_its_answers_are_learned_once_more_beside_the_verdicts(
    world: MeteorWorld,
) -> None:
    attempt = world.attempt(world.spec(stages=[FIRST, SECOND]))
    world.run(FIRST, attempt)
    world.run(SECOND, attempt)
    learned = [name for name in world.trainings[-1] if not name.endswith("/verdict")]
    assert sorted(learned) == [f"train-{number}/mentor" for number in range(10)]


def test_learning_to_judge_is_rolled_back_where_it_costs_answers(world: MeteorWorld) -> None:
    world.lessons = [1, 1, -3]
    attempt = world.attempt(world.spec(stages=[SECOND]))
    result = world.run(SECOND, attempt)
    trials = [
        json.loads(path.read_text()) for path in sorted(world.directory(SECOND, attempt).glob("rounds/*/trial.json"))
    ]
    assert [(trial["learned"], trial["stayed"]) for trial in trials] == [
        ("answers", True),
        ("answers", True),
        ("verdicts", False),
    ]
    assert result.metrics["dev_after"] == trials[-1]["dev_before"] > trials[-1]["dev_after"]


def judge(request: Request) -> list[str]:
    """Says what is true; of two answers prefers the right one."""
    text = request.messages[-1].content
    number = number_of(text)
    if request.kind == "compare":
        first, second = text.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
        better = [answer.strip() == right(number) for answer in (first, second)]
        said = "tie" if better[0] == better[1] else "A" if better[0] else "B"
        names = ("accuracy", "completeness", "relevance", "coherence", "reliability", "overall")
        return [json.dumps(dict.fromkeys(names, said))]
    is_right = text.rstrip().endswith(right(number))
    if request.kind == "score":
        return [json.dumps({"score": 9 if is_right else 2})]
    return [json.dumps({"verdict": "right" if is_right else "wrong", "advice": "" if is_right else "Add again."})]


def with_a_model_judge(world: MeteorWorld) -> dict[str, Any]:
    """Questions without checks, and a judge behind an endpoint."""
    world.judge = judge
    endpoint = {"baseUrl": "http://127.0.0.1:1/v1", "model": "judge"}
    spec = world.spec(judge={"type": "openai", "openai": endpoint, "price": {"prompt": 1.0, "completion": 1.0}})
    for name in ("train", "dev"):
        path = Path(spec["meteor"]["questions"][name]["path"])
        questions = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps({**one, "check": None}) + "\n" for one in questions))
    return spec


def test_a_model_judges_questions_without_checks_and_compares_the_two_models(world: MeteorWorld) -> None:
    attempt = world.attempt(with_a_model_judge(world))
    for stage in attempt.run.spec.stages:
        world.run(stage, attempt)
    generation = world.generation(attempt)
    assert generation.candidate is not None
    overall = next(one for one in generation.wins if one.criterion == "overall")
    assert (overall.set, overall.lost) == ("dev", 0.0)
    assert overall.won > 0
    assert {one.model for one in generation.judged} == {"parent", "candidate"}
    assert generation.usage[SECOND].cost > 0
    assert world.directory("evaluate", attempt).joinpath("comparisons", "dev.jsonl").exists()
    assert world.endpoints["compare"] % 2 == 0, "both orders"


def test_a_judge_who_cannot_be_asked_stops_the_evaluation_instead_of_making_answers_wrong(world: MeteorWorld) -> None:
    spec = with_a_model_judge(world)

    def silent(request: Request) -> list[str]:
        raise EngineError("the endpoint does not answer")

    world.judge = silent
    with pytest.raises(StageError, match=r"could not be judged \(judge-failed\): the endpoint does not answer"):
        world.run("evaluate", world.attempt(spec))


def test_the_third_stage_learns_from_its_expensive_answers_and_asks_no_mentor(world: MeteorWorld) -> None:
    attempt = world.attempt(world.spec(selfEvolution={"samples": 4, "maxTurns": 3, "critique": "self-verdict"}))
    result = world.run(THIRD, attempt)
    assert world.endpoints == {}
    assert result.counts["turns"] >= 1
    pairs = world.lines(THIRD, attempt, "turns/001/pairs.jsonl")
    assert all(one["chosen"] != one["rejected"] for one in pairs)
    assert result.usage.cost == 0


def test_the_learner_learns_from_its_own_tree_search_and_asks_nothing_twice(world: MeteorWorld) -> None:
    spec = world.spec(selfEvolution={**BY_SEARCH, "search": {"rounds": 2, "branch": 2}})
    attempt = world.attempt(spec)
    result = world.run(THIRD, attempt)
    # A learner of skill 3 answers what lies above it wrong, and right with the steps that a search has found.
    pairs = world.lines(THIRD, attempt, "turns/001/pairs.jsonl")
    assert len(pairs) == result.counts["pairs"] > 0
    assert all(one["id"].endswith("/greedy-search") for one in pairs)
    assert [one["chosen"] for one in pairs] == [right(number_of(one["prompt"])) for one in pairs]
    assert "steps" not in pairs[0]["prompt"], "the plain question is learned"
    assert world.kinds()["propose"] >= 10
    assert world.endpoints == {}, "no mentor and no judge is asked"

    made = len(world.asked)
    killed = attempt.model_copy(update={"storage": str(world.root / "killed")})
    world.asked.clear()

    def kill(request: Request) -> None:
        if len(world.asked) == made // 3:
            raise KeyboardInterrupt

    world.on_call = kill
    with pytest.raises(KeyboardInterrupt):
        world.run(THIRD, killed)
    world.on_call = lambda request: None
    world.run(THIRD, killed)
    assert len(world.asked) <= made + 1, "but for the call that was under way"
    assert world.lines(THIRD, killed, "turns/001/pairs.jsonl") == pairs


def test_a_search_that_fails_drops_its_question_with_the_reason(world: MeteorWorld) -> None:
    def fail(request: Request) -> None:
        if request.kind == "propose" and number_of(request.messages[-1].content) == 4:
            raise EngineError("the prompt has a word that nobody knows")

    world.on_call = fail
    attempt = world.attempt(world.spec(selfEvolution=BY_SEARCH))
    world.run(THIRD, attempt)
    dropped = {one["problem_id"]: one for one in world.lines(THIRD, attempt, "dropped.jsonl")}
    assert dropped["train-4"]["reason"] == "learner-failed"
    assert "a word that nobody knows" in dropped["train-4"]["detail"]


def test_an_error_that_is_no_single_questions_stops_a_search_and_the_stage(world: MeteorWorld) -> None:
    def fail(request: Request) -> None:
        if request.kind == "propose" and number_of(request.messages[-1].content) == 4:
            raise JournalError("no space left on the device")

    world.on_call = fail
    with pytest.raises(JournalError, match="no space left"):
        world.run(THIRD, world.attempt(world.spec(selfEvolution=BY_SEARCH)))


def test_a_search_that_finds_shorter_plans_than_asked_for_drops_its_question(world: MeteorWorld) -> None:
    short = {**BY_SEARCH, "expensive": ["best-of-n", "search"], "search": {"minPlanWords": 100}}
    attempt = world.attempt(world.spec(selfEvolution=short))
    world.run(THIRD, attempt)
    dropped = [one for one in world.lines(THIRD, attempt, "dropped.jsonl") if one["id"].endswith("-search")]
    assert len(dropped) == 10
    assert all("plan-too-short" in one["detail"] for one in dropped)


def test_a_turn_without_a_gain_is_rolled_back_and_is_the_last(world: MeteorWorld) -> None:
    world.lessons = [1, 0, 5]
    attempt = world.attempt(world.spec(selfEvolution={"samples": 4, "maxTurns": 5}))
    result = world.run(THIRD, attempt)
    assert result.counts == {**result.counts, "turns": 2, "rolled back": 1}
    assert world.skill(model_of(world, THIRD, attempt)) == 4


def test_each_stage_goes_on_from_the_model_before_and_the_result_shows_what_each_has_changed(
    world: MeteorWorld,
) -> None:
    world.lessons = [1] * 30
    world.start_at(2)
    attempt = world.attempt(world.spec())
    for stage in attempt.run.spec.stages:
        world.run(stage, attempt)
    generation = world.generation(attempt)
    assert [one.stage for one in generation.lineage] == [FIRST, SECOND, THIRD]
    assert generation.lineage[0].gain.value == pytest.approx(1 / 8)
    last = world.skill(model_of(world, THIRD, attempt))
    assert last == 2 + len(world.trainings)
    assert generation.dev is not None
    assert generation.dev.candidate is not None
    assert generation.dev.candidate.pass_at_1 == pytest.approx(min(last, 8) / 8)
    assert generation.yields.total == sum(
        json.loads((world.directory(stage, attempt) / "yield.json").read_text())["total"]
        for stage in (FIRST, SECOND, THIRD)
    )


def test_with_both_methods_the_two_dev_sets_decide_together_and_are_told_each_by_itself(world: MeteorWorld) -> None:
    problem = {
        "id": "same",
        "statement": "Write a function same(x) that returns x.",
        "entry_point": "same",
        "tests": ["assert same(1) == 1"],
    }
    path = world.root / "problems.jsonl"
    path.write_text(json.dumps(problem) + "\n")
    problems = {"train": {"source": "jsonl", "path": str(path)}, "dev": {"source": "jsonl", "path": str(path)}}
    spec = {**world.spec(), "methods": ["meteor", "sra-mcts"], "problems": {**problems, "test": []}}
    attempt = world.attempt(spec)
    assert attempt.run.spec.stages == ("synthesize", "convert", "finetune", FIRST, SECOND, THIRD, "evaluate")
    world.run(FIRST, attempt)
    world.run("evaluate", attempt)
    generation = world.generation(attempt)
    assert generation.dev is not None
    assert generation.dev.candidate is not None
    # One problem that both solve, and eight questions of which the mentor's lesson gains one.
    assert (generation.dev.name, generation.dev.candidate.problems) == ("all-dev", 9)
    assert (generation.dev.parent.pass_at_1, generation.dev.candidate.pass_at_1) == pytest.approx((4 / 9, 5 / 9))
    assert [(one.name, one.parent.problems) for one in generation.test] == [("jsonl", 1), ("dev", 8)]


@pytest.mark.slow  # two dozen starts of stages
def test_a_run_that_is_killed_at_any_call_asks_nobody_twice_and_ends_the_same(world: MeteorWorld) -> None:
    spec = with_a_model_judge(world)
    calm = world.attempt(spec)
    for stage in calm.run.spec.stages:
        world.run(stage, calm)
    paid, asked, trained = world.endpoints.copy(), world.kinds(), list(world.trainings)
    expected = files(world, calm)

    for every in (5, 17):
        world.endpoints.clear()
        world.asked.clear()
        world.trainings.clear()
        attempt = world.attempt(spec | {"seed": 0}, generation=0, number=0)
        attempt = attempt.model_copy(update={"storage": str(world.root / f"killed-{every}")})
        made = kills = 0

        def kill(request: Request, every: int = every) -> None:
            nonlocal made, kills
            made += 1
            if made % every == 0 and kills < 12:
                kills += 1
                raise KeyboardInterrupt

        world.on_call = kill
        for stage in attempt.run.spec.stages:
            while True:
                try:
                    world.run(stage, attempt)
                    break
                except KeyboardInterrupt:
                    pass
        world.on_call = lambda request: None
        assert kills >= 3
        # The call that was under way when it was killed had not been answered.
        assert world.endpoints.total() + len(world.asked) <= paid.total() + asked.total() + kills
        assert world.trainings == trained
        assert files(world, attempt) == expected


def files(world: MeteorWorld, attempt: Any) -> dict[str, str]:
    """What the stages have made, but for journals, times and places."""
    root = world.directory(FIRST, attempt).parent
    kept = ("samples.jsonl", "dropped.jsonl", "yield.json", "assessments.jsonl", "pairs.jsonl", "agreement.json")
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.name in kept}
