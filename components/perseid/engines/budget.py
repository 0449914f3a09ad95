"""Budgets of paid models, in money and in tokens, enforced before each call.

A call reserves the most that it can cost and is refused where that does not fit. Afterwards the reservation becomes
what the call really cost. The place of a BudgetedEngine is inside a JournaledEngine: what the journal answers was paid
once. What earlier processes spent is given at the start:

    with Journal(path) as journal:  # of this paid model alone
        budget = Budget(Limits(cost=5.0), spent=Spent.of(journal.usage, price))
        engine = JournaledEngine(BudgetedEngine(inner, price, budget), journal)
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from perseid.api.meteor import PriceSpec
from perseid.engines.errors import (
    BudgetExceededError,
    EndpointAuthError,
    EndpointModelError,
    EngineClosedError,
    EngineDiedError,
    EngineStartError,
    NotRecordedError,
    UnsupportedSamplingError,
)
from perseid.engines.protocol import Engine, Generation, PromptTooLongError, Request, Usage

_PRICED_TOKENS = 1_000_000
_TOKENS_AROUND_PROMPT = 32
"""A chat template's opening, and a server's own words."""
_TOKENS_AROUND_MESSAGE = 16
_TOKENS_AROUND_CHOICE = 32
"""JSON around a choice, where a server is constrained that way."""
_CALLS_FOR_CHOICE = 4
"""A client's attempts at an answer that is one of the choices."""
_FREE_FAILURES = (
    EndpointAuthError,
    EndpointModelError,
    PromptTooLongError,
    EngineStartError,
    EngineDiedError,
    EngineClosedError,
    NotRecordedError,
    UnsupportedSamplingError,
    BudgetExceededError,
)
"""Failures of calls that nobody computed, or nobody charges for."""

CountPrompt = Callable[[Request], int]
"""The tokens of a request's prompt, by the model's own tokenizer."""


def cost(usage: Usage, price: PriceSpec) -> float:
    """What tokens cost, in the price's currency. Cached prompt tokens have a price of their own where one is given.

    Counts that a server cannot mean (below 0, more cached tokens than prompt tokens) never make a call cheaper.
    """
    return float(_exact_cost(usage, price))


def prompt_bound(request: Request) -> int:
    """Tokens that a prompt has at most, without its tokenizer: a byte of UTF-8 is one token or less of one.

    Holds for byte-level vocabularies, so for all models of these years; about four times the count for English.
    """
    content = sum(_TOKENS_AROUND_MESSAGE + _bytes(message.content) for message in request.messages)
    return _TOKENS_AROUND_PROMPT + content


def worst_case(request: Request, count_prompt: CountPrompt | None = None) -> Usage:
    """The most that a call can use: the prompt nowhere cached, and every answer as long as it may be.

    Every beam of a search counts as an answer. Counts what a client may have to repeat: the prompt for each sample of a
    server that ignores `n`, and attempts at an answer that is one of the choices. Not counted: retries of a provider
    that charges for what it did not answer.
    """
    prompt = prompt_bound(request) if count_prompt is None else count_prompt(request)
    sampling = request.sampling
    if sampling.choices is not None:
        calls = sampling.n * _CALLS_FOR_CHOICE
        return Usage(1, calls * prompt, 0, calls * (sampling.max_tokens + _TOKENS_AROUND_CHOICE))
    calls = 1 if sampling.n == 1 else sampling.n + 1
    answers = 1 if sampling.n == 1 else 2 * sampling.n
    return Usage(1, calls * prompt, 0, max(answers, sampling.beams) * sampling.max_tokens)


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be used. None: as much as it takes."""

    cost: float | None = None
    """Money, in the currency of the prices."""
    tokens: int | None = None
    """Prompt tokens, cached ones included, and tokens of answers."""
    cost_field: str = "spec.budget.mentorCost"
    """What a user changes to raise `cost`."""
    tokens_field: str = "spec.budget.mentorTokens"
    """What a user changes to raise `tokens`."""

    def __post_init__(self) -> None:
        if self.cost is not None and not (0 <= self.cost < math.inf):
            raise ValueError(f"the limit in money is {self.cost}, but must be a number from 0")
        if self.tokens is not None and self.tokens < 0:
            raise ValueError(f"the limit in tokens is {self.tokens}, but must be at least 0")


@dataclass(frozen=True, slots=True)
class Spent:
    """Money, exactly and in the prices' currency, and tokens. Summable."""

    exact_cost: Fraction = Fraction(0)
    tokens: int = 0

    @staticmethod
    def of(usage: Usage, price: PriceSpec) -> Spent:
        """What this usage comes to. Of a journal: `Spent.of(journal.usage, price)`."""
        return Spent(_exact_cost(usage, price), max(0, usage.prompt_tokens) + max(0, usage.completion_tokens))

    @property
    def cost(self) -> float:
        """Money."""
        return float(self.exact_cost)

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.exact_cost + other.exact_cost, self.tokens + other.tokens)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.exact_cost - other.exact_cost, self.tokens - other.tokens)


@dataclass(slots=True)
class Budget:
    """What is left for all paid models of a run together. Of one event loop; not thread-safe."""

    limits: Limits
    spent: Spent = Spent()
    """By earlier processes, and by this one since."""
    currency: str = "USD"
    """ISO 4217 code, the same for all prices."""
    lost: Spent = field(default=Spent(), init=False)
    """Held back for calls that failed after a provider may have charged for them, each at its worst case."""
    failures: int = field(default=0, init=False)
    """How many calls that are."""
    _last_failure: str = field(default="", init=False)
    _reserved: Spent = field(default=Spent(), init=False)
    _change: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    async def reserve(self, most: Spent) -> None:
        """Put aside what a call may cost. Waits where only calls in flight are in the way.

        Raises BudgetExceededError where it would not fit even if those cost nothing.
        """
        while True:
            self._refuse(most)
            if not self._misses(self.spent + self.lost + self._reserved + most):
                break
            await self._change.wait()
        self._reserved += most

    def settle(self, most: Spent, real: Spent) -> None:
        """Replace a reservation by what the call cost."""
        self._reserved -= most
        self.spent += real
        self._wake()

    def lose(self, most: Spent, why: str) -> None:
        """Hold a reservation back for good: the call failed, and what it cost is not known."""
        self._reserved -= most
        self.lost += most
        self.failures += 1
        self._last_failure = why
        self._wake()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _misses(self, total: Spent) -> list[str]:
        missed = []
        if self.limits.cost is not None and total.exact_cost > Fraction(self.limits.cost):
            missed.append("cost")
        if self.limits.tokens is not None and total.tokens > self.limits.tokens:
            missed.append("tokens")
        return missed

    def _refuse(self, most: Spent) -> None:
        missed = self._misses(self.spent + self.lost + most)
        if not missed:
            return
        if "cost" in missed:
            limit, name = f"{self.limits.cost:g} {self.currency}", self.limits.cost_field
            spent, needed = f"{self.spent.cost:.6g} {self.currency}", f"{most.cost:.6g} {self.currency}"
            lost = f"{self.lost.cost:.6g} {self.currency}"
        else:
            limit, name = f"{self.limits.tokens} tokens", self.limits.tokens_field
            spent, needed, lost = f"{self.spent.tokens} tokens", f"{most.tokens} tokens", f"{self.lost.tokens} tokens"
        held = (
            f" and {lost} are held back for {self.failures} failed calls that may have been charged (the last: "
            f"{self._last_failure})"
            if self.failures
            else ""
        )
        raise BudgetExceededError(
            f"the budget of mentors and judges is {limit}; {spent} are spent{held}, and the next call may take up to "
            f"{needed}, so it was not made; raise {name}, or lower maxTokens of the mentor or the judge"
        )


class BudgetedEngine:
    """Makes a call only where the most that it can cost still fits the budget."""

    def __init__(
        self, engine: Engine, price: PriceSpec, budget: Budget, count_prompt: CountPrompt | None = None
    ) -> None:
        """`count_prompt` where the model's tokenizer is at hand; else prompts are bounded by their bytes.

        Raises ValueError where price and budget are in different currencies.
        """
        if price.currency != budget.currency:
            raise ValueError(f"the price is in {price.currency} and the budget in {budget.currency}; use one currency")
        self._engine = engine
        self._price = price
        # Nobody asks more for cached tokens, but a price table may.
        self._dearest = price.model_copy(update={"prompt": max(price.prompt, price.cached_prompt or 0.0)})
        self._budget = budget
        self._count_prompt = count_prompt

    @property
    def model_id(self) -> str:
        """The inner engine's."""
        return self._engine.model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request. Raises BudgetExceededError before the call is made, and EngineError.

        An answer without token counts gets the most that its texts can be, so that journals and reports have it too.
        """
        most = Spent.of(worst_case(request, self._count_prompt), self._dearest)
        await self._budget.reserve(most)
        try:
            generation = await self._engine.generate(request)
        except _FREE_FAILURES:
            self._budget.settle(most, Spent())
            raise
        except BaseException as error:  # a call that was broken off may have been charged too
            self._budget.lose(most, f"{type(error).__name__}: {error}")
            raise
        counted = _counted(request, generation, self._count_prompt)
        self._budget.settle(most, Spent.of(counted.usage, self._price))
        return counted

    async def close(self) -> None:
        """Close the inner engine."""
        await self._engine.close()


def _counted(request: Request, generation: Generation, count_prompt: CountPrompt | None) -> Generation:
    usage = generation.usage
    if usage.prompt_tokens > 0 or usage.completion_tokens > 0:
        return generation
    prompt = prompt_bound(request) if count_prompt is None else count_prompt(request)
    texts = sum(min(_bytes(one.text) + 1, request.sampling.max_tokens) for one in generation.completions)
    return Generation(generation.completions, Usage(usage.calls, prompt, 0, texts))


def _exact_cost(usage: Usage, price: PriceSpec) -> Fraction:
    prompt = max(0, usage.prompt_tokens)
    cached = min(max(0, usage.cached_tokens), prompt)
    cached_price = price.prompt if price.cached_prompt is None else price.cached_prompt
    total = (
        (prompt - cached) * Fraction(price.prompt)
        + cached * Fraction(cached_price)
        + max(0, usage.completion_tokens) * Fraction(price.completion)
    )
    return total / _PRICED_TOKENS


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
