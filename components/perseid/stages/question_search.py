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
from perseid.search.plans import select_plans
from perseid.search.profiles import resolve
from perseid.search.prompts import render_steps
from perseid.search.question_words import QUESTIONS


def question_search(engine: Engine, spec: SearchSpec, sampling: SamplingSpec, seed: int) -> Decoder:
    """Search for reasoning about a question, then write the answer greedily by the best path.

    The longest answer and the stop strings are `sampling`'s. The decoder raises the EngineError that the search failed
    with, or one of its own where no path is a plan (`minPlanWords`).
    """
    config = resolve(spec)
    search = build_search(config, engine, execute=_nothing_to_run, words=QUESTIONS)
    greedy = replace(sampling_of(sampling, n=1, seed=seed), temperature=0.0, top_p=1.0)

    async def decode(question: Question) -> Completion:
        result = await search.search(Problem(id=question.id, statement=question.text), seed)
        if result.failure is not None and result.failure.error is not None:
            raise result.failure.error  # as it was: a dead engine or a full disk must stop the stage
        plans, dropped = select_plans(result, count=1, min_words=config.min_plan_words)
        if not plans:
            raise EngineError(f"the search found no plan: {dropped[0].reason}: {dropped[0].detail}")
        asked = by_steps_prompt(question, render_steps(plans[0].steps))
        return await ask(engine, (Message("user", asked),), greedy, kind="decode", subject=question.id)

    return decode


async def _nothing_to_run(problem: Problem, steps: Sequence[str]) -> float | None:
    """A question has no tests: a blend leaves execution out."""
    return None
