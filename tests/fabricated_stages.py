"""What the stages of a generation would have written: searches, answers and METEOR, with figures that are known."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from perseid.api.layout import Layout
from perseid.api.result import StageResult, StageUsage
from perseid.api.training import FinetuneSpec
from perseid.data.jsonl import write_json, write_jsonl
from perseid.data.records import Candidate, Dropped, PreferencePair, TrainingSample, TreeRecord
from perseid.evaluation.scores import AnswerRecord
from perseid.meteor.agreement import agreement_change
from perseid.meteor.records import Assessment, AttemptRecord, GuidelineRecord, SelfVerdictRecord
from perseid.search.tree import Tree
from perseid.stages.yields import count_yield
from perseid.training.manifest import MANIFEST_NAME, CurvePoint, ModelManifest, TrainingMetrics

PROBLEMS = 12


def write_search(layout: Layout, *, informed: bool = True, problems: int = PROBLEMS, says: str = "") -> None:
    """Trees with two levels and two plans each, answers to them, and what was kept: of every problem with an even
    number the first plan's answers pass. With `informed` the steps of such a plan have the higher values.

    `says` stands in every text that a model writes.
    """
    draw = random.Random(7)
    trees, candidates = [], []
    for number in range(problems):
        name = f"family/problem-{number}"
        tree = Tree(f"Write a function f{number}(x) that returns x plus {number}. {says}")
        tree.root.visits = 8
        plans: list[tuple[str, ...]] = []
        for first in range(2):
            right = number % 2 == 0 and first == 0
            value = (8.0 if right else 3.0) + draw.random() if informed else 10 * draw.random()
            known: dict[str, Any] = {"value": value, "score": value, "logprob": -6.0, "tokens": 12}
            step = tree.add(tree.root, f"Step {first}: add {number} to x. {says}", visits=4, **known)
            step.reflection = f"The sum is right so far. {says}"
            step.evidence = {"likelihood": -0.5, "detail": f"none {says}"}
            for second in range(3):
                tree.add(step, f"Return the sum, way {second}. {says}", visits=2 - second % 2, **known)
            plans.append(tree.path(tree.nodes[step.children[0]]))
        paths = tuple({"steps": list(plan), "value": 8.0} for plan in plans)
        trees.append(
            TreeRecord(
                problem_id=name,
                stop_reason="rounds",
                solved=True,
                failure=None,
                paths=paths,
                counts={"proposals": 8},
                tree=tree.to_dict(),
            )
        )
        for place, plan in enumerate(plans):
            for sample in range(2):
                right = number % 2 == 0 and place == 0
                candidates.append(
                    Candidate(
                        id=f"{name}/{place}/{sample}",
                        problem_id=name,
                        plan_index=place,
                        sample_index=sample,
                        plan=plan,
                        answer=f"```python\ndef f{number}(x):\n    return x + {number}  # {says}\n```",
                        code=f"def f{number}(x):\n    return x + {number}  # {says}",
                        truncated=False,
                        mean_logprob=-0.2 if right else -0.9 - draw.random(),
                        value=paths[place]["value"],
                        passed=right,
                        reason="" if right else f"assertion: assert f{number}(1) == {number + 1} {says}",
                    )
                )
    synthesize, convert = layout.stage("synthesize"), layout.stage("convert")
    kept = [one for one in candidates if one.passed and one.sample_index == 0]
    reasons = {True: "duplicate", False: "tests-failed"}
    dropped = [
        Dropped(id=one.id, problem_id=one.problem_id, reason=reasons[bool(one.passed)], detail=one.reason)
        for one in candidates
        if one not in kept
    ]
    write_jsonl(synthesize / "trees.jsonl", trees)
    write_jsonl(convert / "candidates.jsonl", candidates)
    write_jsonl(convert / "dropped.jsonl", dropped)
    write_jsonl(
        convert / "samples.jsonl",
        [TrainingSample(id=one.id, problem_id=one.problem_id, prompt="p", answer=one.answer) for one in kept],
    )
    write_json(convert / "yield.json", count_yield(len(kept), dropped))
    for stage in ("synthesize", "convert", "finetune"):
        _finish(layout, stage)
    write_manifest(layout.stage("finetune") / "model")


def write_manifest(model: Path, steps: int = 40) -> None:
    curve = tuple(CurvePoint(step=step, loss=0.3 + 1.2 / step) for step in range(1, steps + 1))
    manifest = ModelManifest(
        model_id="sha256:model0",
        base_model_id="base",
        base_ref="org/base",
        data_digest="sha256:data",
        config_digest="sha256:config",
        spec=FinetuneSpec(),
        seed=0,
        dtype="float32",
        metrics=TrainingMetrics(
            steps=steps,
            samples=12,
            tokens=9000,
            seconds=30.0,
            tokens_per_second=300.0,
            first_loss=1.2,
            final_loss=0.33,
            curve=curve,
            trained_parameters=4_884_480,
            layout="packed",
            device="cpu",
        ),
        dropped=(),
        perseid_version="0.1.0",
        libraries={"torch": "2.13.0"},
    )
    write_json(model / MANIFEST_NAME, manifest)


def write_meteor(layout: Layout, *, says: str = "") -> None:
    """Twelve questions: four are right at once, four after advice, four never; the learner learns to judge."""
    first, second, third = (layout.stage(name) for name in ("mentor-supervised", "self-assessment", "self-evolution"))
    names = [f"units/question-{number}" for number in range(12)]
    write_jsonl(
        first / "guidelines.jsonl",
        [
            GuidelineRecord(
                id=name,
                guideline=f"Name both units, then multiply. {says}",
                guideline_cut=False,
                learner_id="base",
                mentor_id="mentor",
                answer=f"A kilometre has 1000 metres, so 4 kilometres are 4000 metres. {says}",
                reason="" if number else "mentor-failed",
            )
            for number, name in enumerate(names)
        ],
    )
    write_jsonl(
        second / "assessments.jsonl", [_assessment(name, number % 3, says) for number, name in enumerate(names)]
    )
    before, after = _verdicts(names, learned=False), _verdicts(names, learned=True)
    write_jsonl(second / "verdicts-before.jsonl", before)
    write_jsonl(second / "verdicts-after.jsonl", after)
    write_json(second / "agreement.json", agreement_change(before, after, resamples=200, confidence=0.95, seed=0))
    trial = {
        "round": 1,
        "learned": "answers",
        "model_id": "m1",
        "steps": 6,
        "dev_before": 0.25,
        "dev_after": 0.5,
        "gain": 0.25,
        "low": 0.0,
        "high": 0.5,
        "stayed": True,
    }
    for number, stayed in ((1, True), (2, False)):
        place = second / "rounds" / f"{number:03d}" / "trial.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({**trial, "round": number, "stayed": stayed}))
    write_jsonl(
        third / "turns" / "001" / "pairs.jsonl",
        [
            PreferencePair(
                id=f"{name}/best-of-n", question_id=name, prompt=f"How many? {says}", chosen=says, rejected="4"
            )
            for name in names[:3]
        ],
    )
    for stage in ("mentor-supervised", "self-assessment", "self-evolution"):
        _finish(layout, stage)


def write_answers(layout: Layout, set_name: str, model_id: str) -> None:
    """Answers behind scores that are there: the likelier ones are right."""
    answers = [
        AnswerRecord(
            id=f"p{problem}/{sample}",
            problem_id=f"p{problem}",
            sample_index=sample,
            text="",
            code=None,
            passed=sample < 2,
            reason="" if sample < 2 else "wrong",
            truncated=False,
            mean_logprob=-0.1 * (sample + 1),
            tokens=9,
        )
        for problem in range(8)
        for sample in range(4)
    ]
    write_jsonl(layout.evaluations / f"{set_name}-{model_id}" / "answers.jsonl", answers)


def _assessment(name: str, kind: int, says: str) -> Assessment:
    """`kind`: 0 right at once, 1 after advice, 2 never."""
    attempts = tuple(
        AttemptRecord(
            id=f"{name}/{number}",
            question_id=name,
            number=number,
            answer=f"{40 * number} metres. {says}",
            truncated=False,
            model_id="base",
            right=kind + 1 == number,
            advice="" if kind + 1 == number else f"Multiply by 1000. {says}",
            source="rule",
        )
        for number in range(1, min(kind, 1) + 2)
    )
    return Assessment(
        id=name, prompt=f"How many metres? {says}", attempts=attempts, reason="never-right" if kind == 2 else ""
    )


def _verdicts(names: list[str], *, learned: bool) -> list[SelfVerdictRecord]:
    return [
        SelfVerdictRecord(
            id=f"{name}/{answer}",
            question_id=name,
            answer=f"{answer}",
            model_id="learner",
            probability=(0.9 if answer == 0 else 0.1) if learned else ((number * 7 + answer * 3) % 10) / 10,
            judged_right=answer == 0,
        )
        for number, name in enumerate(names)
        for answer in range(2)
    ]


def _finish(layout: Layout, stage: str) -> None:
    usage = StageUsage(calls=12, prompt_tokens=1000, cached_tokens=500, completion_tokens=300, seconds=75.0)
    place = layout.stage(stage) / "result.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(StageResult(stage=stage, state="done", usage=usage).model_dump_json(by_alias=True))
