"""Models as stages use them: resolved, opened, capped, and with every call in the stage's journal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from perseid.api.engine import OpenAISpec
from perseid.engines.errors import EngineDiedError, EngineStartError
from perseid.engines.factory import open_endpoint
from perseid.engines.journal import Journal
from perseid.engines.journaled import JournaledEngine
from perseid.engines.lazy import lazy_model
from perseid.engines.models import ResolvedModel, resolve_model
from perseid.engines.protocol import Engine, Generation, Request, Usage
from perseid.engines.wrappers import LimitedEngine
from perseid.stages.context import StageContext

Earlier = Mapping[str, Generation]
"""Calls of an earlier stage's journal by key, which need not be made again."""


class StageModel:
    """An engine in a stage: journalled and capped, and it remembers its own death.

    Searches and evaluations record a failed call as the problem's failure and go on; an engine that is dead or did not
    start would make every remaining problem look bad, so the stage must fail instead, and `raise_if_dead` says so.
    """

    def __init__(self, engine: Engine, journal: Journal, in_flight: int, earlier: Earlier | None = None) -> None:
        self._engine = JournaledEngine(LimitedEngine(engine, in_flight), journal, earlier)
        self._death: EngineDiedError | EngineStartError | None = None
        self.on_call: Callable[[int], None] | None = None
        """Told the number of answered calls after each of them, those from the journal included."""
        self._answered = 0

    @property
    def model_id(self) -> str:
        """Identity of the weights, or name of the endpoint."""
        return self._engine.model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request."""
        if self._death is not None:
            raise self._death
        try:
            generation = await self._engine.generate(request)
        except (EngineDiedError, EngineStartError) as error:
            self._death = error
            raise
        self._answered += 1
        if self.on_call is not None:
            self.on_call(self._answered)
        return generation

    async def close(self) -> None:
        """The context manager that opened it closes it."""

    def raise_if_dead(self) -> None:
        """Raise what the engine died of."""
        if self._death is not None:
            raise self._death

    @property
    def usage(self) -> Usage:
        """Tokens of all its calls, those replayed from the journal included: a resumed stage adds up to the same."""
        return sum(self._engine.counts.usage_by_kind.values(), Usage())


async def resolve_start_model(context: StageContext) -> ResolvedModel:
    """The model that the generation starts from. Weights in object storage are fetched when somebody reads them."""
    attempt, spec = context.attempt, context.spec.model
    context.progress.begin(f"finding {attempt.start_model}")
    return await asyncio.to_thread(
        resolve_model, attempt.start_model, attempt.start_revision, trust_remote_code=spec.trust_remote_code
    )


@contextlib.asynccontextmanager
async def open_model(
    context: StageContext, model: ResolvedModel, journal: Journal, earlier: Earlier | None = None
) -> AsyncIterator[StageModel]:
    """The spec's engine with `model` in it."""
    spec = context.spec

    engine = lazy_model(model, spec.engine, spec.model.dtype, trust_remote_code=spec.model.trust_remote_code)
    try:
        yield StageModel(engine, journal, spec.synthesis.max_requests_in_flight, earlier)
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def open_endpoint_model(
    endpoint: OpenAISpec, journal: Journal, earlier: Earlier | None = None
) -> AsyncIterator[StageModel]:
    """An endpoint as a model."""
    engine = open_endpoint(endpoint)
    try:
        yield StageModel(engine, journal, endpoint.max_requests_in_flight, earlier)
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def open_policy(
    context: StageContext, journal: Journal, earlier: Earlier | None = None
) -> AsyncIterator[StageModel]:
    """What proposes steps and writes code: the generation's start model, or the endpoint that stands in for it."""
    endpoint = context.spec.synthesis.policy_endpoint
    if endpoint is not None:
        async with open_endpoint_model(endpoint, journal, earlier) as policy:
            yield policy
        return
    async with open_model(context, await resolve_start_model(context), journal, earlier) as policy:
        yield policy


async def open_evaluator(
    stack: contextlib.AsyncExitStack, context: StageContext, policy: StageModel, journal: Journal
) -> list[StageModel]:
    """The models of a stage that scores: the policy first, what scores last. They are one without an endpoint."""
    endpoint = context.spec.synthesis.evaluator_endpoint
    if endpoint is None:
        return [policy]
    return [policy, await stack.enter_async_context(open_endpoint_model(endpoint, journal))]
