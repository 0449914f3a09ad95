"""What METEOR's tests share: questions, answers of models by rule, and an engine that finishes in any order."""

from __future__ import annotations

import asyncio
import json
import random

from perseid.api.engine import SamplingSpec
from perseid.data.records import NumberCheck, Question
from perseid.engines.protocol import Completion, Generation
from perseid.engines.scripted import ScriptedEngine
from perseid.meteor.judges import Verdict

SAMPLING = SamplingSpec(temperature=0.7, max_tokens=64)


def question(number=1, **fields):
    base = {
        "id": f"q{number}",
        "title": f"How many metres are {number} km?",
        "field": "units of measurement",
        "check": NumberCheck(value=1000.0 * number),
    }
    return Question.model_validate({**base, **fields})


def questions(count):
    return [question(number) for number in range(1, count + 1)]


def said(right, advice=""):
    return json.dumps({"verdict": "right" if right else "wrong", "advice": advice})


def completion(text, *, finish="stop", logprob=-2.0, tokens=4, choices=None):
    return Completion(text, tokens, finish, logprob, choices)


class CompletionEngine(ScriptedEngine):
    """A scripted engine whose script gives whole completions."""

    async def generate(self, request):
        self.requests.append(request)
        await asyncio.sleep(0)
        answers = self._answer(request)
        return Generation(tuple(one if isinstance(one, Completion) else completion(one) for one in answers))


class ShuffledEngine(ScriptedEngine):
    """Answers after a number of turns of the loop that depends on `order`: what finishes first changes with it."""

    def __init__(self, answer, *, order, **more):
        super().__init__(answer, **more)
        self._random = random.Random(order)

    async def generate(self, request):
        for _ in range(self._random.randrange(20)):
            await asyncio.sleep(0)
        return await super().generate(request)


class ListJudge:
    """Gives each question's verdicts in turn."""

    def __init__(self, **verdicts):
        self.verdicts = {name: list(those) for name, those in verdicts.items()}
        self.judged = []

    async def judge(self, question, answer):
        self.judged.append((question.id, answer))
        await asyncio.sleep(0)
        return self.verdicts[question.id].pop(0)


RIGHT = Verdict(True, "", "rule", 1)
WRONG = Verdict(False, "Multiply by a thousand.", "rule", 1)
UNSURE = Verdict(None, "", "model:judge", 3, ("hm",), "judge-unsure")
