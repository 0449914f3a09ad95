"""Tree search as an expensive decoding of METEOR's third stage: the learner's own search, and its answer by that.

Neither a mentor nor a judge nor a check is asked. A step is scored by its likelihood or by the learner's own spoken
score. Source: METEOR (arXiv 2411.11933), stage 3, whose list of strategies is open; methods ME8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perseid.api.engine import SamplingSpec
from perseid.api.search import SearchSpec
from perseid.data.records import Problem, Question
from perseid.engines.protocol import Completion, Engine, EngineError, Message
from perseid.engines.sampling import sampling_of
from perseid.meteor.calls import ask
from perseid.meteor.decoding import Decoder
from perseid.meteor.prompts import by_steps_prompt
from perseid.search.build import build_search
from perseid.search.profiles import resolve
from perseid.search.prompts import render_steps
from perseid.search.question_words import QUESTIONS


def question_search(engine: Engine, spec: SearchSpec, sampling: SamplingSpec, seed: int) -> Decoder:
    """Search for reasoning about a question, then write the answer greedily by the best path.

    The longest answer and the stop strings are `sampling`'s. The decoder raises EngineError where the search failed or
    found no step.
    """
    search = build_search(resolve(spec), engine, execute=_nothing_to_run, words=QUESTIONS)
    greedy = replace(sampling_of(sampling, n=1, seed=seed), temperature=0.0, top_p=1.0)

    async def decode(question: Question) -> Completion:
        result = await search.search(Problem(id=question.id, statement=question.text), seed)
        if result.failure is not None:
            raise EngineError(f"the search failed with {result.failure.reason}: {result.failure.detail}")
        if not result.paths:
            raise EngineError(f"the search found no step: {result.stop_reason}")
        asked = by_steps_prompt(question, render_steps(result.paths[0].steps))
        return await ask(engine, (Message("user", asked),), greedy, kind="decode", subject=question.id)

    return decode


async def _nothing_to_run(problem: Problem, steps: Sequence[str]) -> float | None:
    """A question has no tests: a blend leaves execution out."""
    return None
