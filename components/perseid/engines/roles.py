"""Who teaches and who judges: from a mentor's or a judge's spec to an engine.

From the outside in, a paid role is a JournaledEngine (the caller's, with a journal of this role alone), a budget, a
recorder where one is asked for, and the endpoint. So a call that is in the journal costs nothing, one that is in the
recorder's file is counted and not paid again, and only a call that fits the budget reaches the endpoint.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from perseid.api.engine import DType, EngineSpec
from perseid.api.layout import is_remote
from perseid.api.meteor import JudgeSpec, MentorSpec, PriceSpec
from perseid.engines.budget import Budget, BudgetedEngine
from perseid.engines.errors import RecordedAnswersError
from perseid.engines.factory import open_endpoint
from perseid.engines.lazy import lazy_model
from perseid.engines.models import resolve_model
from perseid.engines.protocol import Engine
from perseid.engines.recorded import RecordedEngine, Recorder

PACK = "pack"
"""The path that means the answers which come with Perseid's questions."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """How a role's model is run on this machine, where it is one of `type: model`."""

    engine: EngineSpec = field(default_factory=EngineSpec)
    dtype: DType = "auto"
    trust_remote_code: bool = False


async def open_mentor(
    spec: MentorSpec,
    *,
    budget: Budget | None = None,
    record_to: Path | None = None,
    local: LocalSettings | None = None,
) -> Engine:
    """The mentor as an engine.

    `budget` bounds what it may cost; a recorded mentor costs nothing and is never refused. `record_to` keeps its
    answers in a file that `type: recorded` reads. Raises EngineError: no key, no file, a broken line of it, no such
    model. Whether an endpoint is there is found out by the first call.
    """
    return await _open(spec, budget, record_to, local)


async def open_judge_engine(
    spec: JudgeSpec,
    *,
    budget: Budget | None = None,
    record_to: Path | None = None,
    local: LocalSettings | None = None,
) -> Engine | None:
    """The judge as an engine; None where a verifier judges, which asks no model. Otherwise as `open_mentor`."""
    if spec.type == "verifier":
        return None
    return await _open(spec, budget, record_to, local)


def price_of(spec: MentorSpec | JudgeSpec) -> PriceSpec:
    """What the role's tokens cost here: nothing where nobody is asked for them, whatever the price table says."""
    if spec.type in ("recorded", "verifier"):
        return PriceSpec(currency=spec.price.currency)
    return spec.price


async def _open(
    spec: MentorSpec | JudgeSpec, budget: Budget | None, record_to: Path | None, local: LocalSettings | None
) -> Engine:
    if spec.type == "recorded" and spec.path is not None:
        return await asyncio.to_thread(RecordedEngine, _answers_path(spec.path))
    engine: Engine
    if spec.type == "openai" and spec.openai is not None:
        engine = open_endpoint(spec.openai)
    elif spec.type == "model" and spec.ref is not None:
        here = local or LocalSettings()
        model = await asyncio.to_thread(resolve_model, spec.ref, trust_remote_code=here.trust_remote_code)
        engine = lazy_model(model, here.engine, here.dtype, trust_remote_code=here.trust_remote_code)
    else:
        raise ValueError(f"a spec of type {spec.type} is no engine")  # its own validator lets no such spec through
    try:
        # The budget is outside: an answer that the recorder kept and a kill took from the journal was paid, and counts.
        if record_to is not None:
            engine = await asyncio.to_thread(Recorder, engine, record_to)
        return engine if budget is None else BudgetedEngine(engine, spec.price, budget)
    except BaseException:
        await engine.close()
        raise


def _answers_path(path: str) -> Path:
    if path == PACK:
        from perseid.data.questions import pack_answers_path

        return Path(pack_answers_path())
    if is_remote(path):
        raise RecordedAnswersError(
            f"the recorded answers {path} lie in object storage; copy them to a file that every stage can read"
        )
    return Path(path.removeprefix("file://")).expanduser()
