from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from test_openai_engine import Endpoint, chat, failure

from perseid.api.meteor import PriceSpec
from perseid.engines.budget import Budget, BudgetedEngine, Limits, Spent, cost, prompt_bound, worst_case
from perseid.engines.errors import BudgetExceededError, EndpointAuthError, EndpointError
from perseid.engines.journal import Journal
from perseid.engines.journaled import JournaledEngine
from perseid.engines.protocol import Completion, Engine, EngineError, Generation, Message, Request, Sampling, Usage
from perseid.engines.scripted import ScriptedEngine

PRICE = PriceSpec(prompt=2.0, cached_prompt=0.5, completion=10.0)
counts = st.integers(0, 10**6)
prices = st.builds(
    PriceSpec, prompt=st.floats(0, 100), cached_prompt=st.none() | st.floats(0, 200), completion=st.floats(0, 100)
)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    async with TestServer(app) as server:
        endpoint.url = str(server.make_url("/v1"))
        yield endpoint


def ask(text: str = "q", **sampling: object) -> Request:
    return Request((Message("user", text),), Sampling(**{"max_tokens": 100, **sampling}))  # type: ignore[arg-type]


def one_token_of_prompt(_: Request) -> int:
    return 1


class Counting:
    """Answers with the usage that it is told, after giving others a turn; fails where it is told None."""

    model_id = "counting"

    def __init__(self, *usages: Usage | None) -> None:
        self.usages = list(usages)
        self.calls = 0
        self.gate: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def generate(self, request: Request) -> Generation:
        self.calls += 1
        usage = self.usages.pop(0)
        self.asked.set()
        await (self.gate.wait() if self.gate is not None else asyncio.sleep(0))
        if usage is None:
            raise EndpointError("broke off")
        return Generation((Completion("text", 1, "stop"),), usage)

    async def close(self) -> None:
        pass


def test_tokens_cost_what_the_table_says_and_cached_ones_their_own_price() -> None:
    usage = Usage(calls=3, prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=100_000)
    assert cost(usage, PRICE) == 0.6 * 2.0 + 0.4 * 0.5 + 0.1 * 10.0
    assert cost(usage, PriceSpec(prompt=2.0, completion=10.0)) == 3.0
    assert cost(Usage(), PRICE) == 0.0


@given(one=st.builds(Usage, counts, counts, counts, counts), other=st.integers(0, 10**6), price=prices)
def test_cost_never_falls_when_tokens_are_added(one: Usage, other: int, price: PriceSpec) -> None:
    assert cost(one + Usage(1, other, 0, 0), price) >= cost(one, price)
    assert cost(one + Usage(1, 0, 0, other), price) >= cost(one, price) >= 0


@given(
    calls=st.integers(0, 9),
    counted=st.tuples(*(st.integers(-(10**6), 10**6) for _ in range(3))),
    price=prices,
)
def test_nonsense_counts_are_never_a_refund(calls: int, counted: tuple[int, int, int], price: PriceSpec) -> None:
    spent = Spent.of(Usage(calls, *counted), price)
    assert spent.exact_cost >= 0
    assert spent.tokens >= 0
    assert math.isfinite(spent.cost)


@given(st.text(), st.text())
def test_a_prompt_has_no_more_tokens_than_its_bound(first: str, second: str) -> None:
    request = Request((Message("system", first), Message("user", second)), Sampling(5))
    assert prompt_bound(request) > len(first.encode(errors="replace")) + len(second.encode(errors="replace"))


@given(
    data=st.data(),
    limit=st.floats(0, 0.01),
    token_limit=st.none() | st.integers(0, 3000),
    price=prices,
)
def test_no_order_of_calls_and_failures_spends_more_than_the_limits(
    data: st.DataObject, limit: float, token_limit: int | None, price: PriceSpec
) -> None:
    requests = data.draw(st.lists(st.builds(ask, st.text(max_size=20), max_tokens=st.integers(1, 200)), max_size=20))
    usages: list[Usage | None] = []
    for request in requests:
        most = worst_case(request)
        prompt = data.draw(st.integers(1, most.prompt_tokens))
        used = Usage(1, prompt, data.draw(st.integers(0, prompt)), data.draw(st.integers(1, most.completion_tokens)))
        usages.append(data.draw(st.sampled_from([used, None])))
    turns = data.draw(st.lists(st.integers(0, 3), min_size=len(requests), max_size=len(requests)))
    by_request = {id(request): (usage, turn) for request, usage, turn in zip(requests, usages, turns, strict=True)}
    paid: list[Usage] = []

    class Provider(Counting):
        async def generate(self, request: Request) -> Generation:
            for _ in range(by_request[id(request)][1]):
                await asyncio.sleep(0)
            usage = by_request[id(request)][0]
            paid.append(usage or worst_case(request))  # of a call that failed nobody knows
            if usage is None:
                raise EndpointError("broke off")
            return Generation((Completion("t", 1, "stop"),), usage)

    earlier = Spent(Fraction(data.draw(st.floats(0, limit))), 0)
    budget = Budget(Limits(limit, token_limit), spent=earlier)

    async def run() -> None:
        engine = BudgetedEngine(Provider(), price, budget)
        answers = await asyncio.gather(*(engine.generate(one) for one in requests), return_exceptions=True)
        assert all(isinstance(one, Generation | EndpointError | BudgetExceededError) for one in answers)

    asyncio.run(run())
    total = sum((Spent.of(one, price) for one in paid), earlier)
    assert total.exact_cost <= Fraction(limit)
    assert budget.spent.cost <= limit
    assert token_limit is None or total.tokens <= token_limit


async def test_a_refusal_says_what_is_spent_what_the_limit_is_and_which_field_raises_it() -> None:
    inner = Counting(Usage(1, 100, 0, 100))
    budget = Budget(Limits(cost=0.0024))
    engine = BudgetedEngine(inner, PRICE, budget, one_token_of_prompt)
    await engine.generate(ask())
    assert budget.spent.cost == 0.0012
    with pytest.raises(BudgetExceededError) as refused:
        await engine.generate(ask(max_tokens=500))
    for part in ("0.0024 USD", "0.0012 USD are spent", "up to 0.005002 USD", "raise spec.budget.mentorCost"):
        assert part in str(refused.value)
    assert inner.calls == 1
    await engine.close()


async def test_a_limit_in_tokens_counts_prompts_and_answers() -> None:
    inner = Counting(Usage(1, 10, 10, 90), Usage(1, 1, 0, 1))
    engine = BudgetedEngine(inner, PriceSpec(), Budget(Limits(tokens=200)), one_token_of_prompt)
    await engine.generate(ask())
    with pytest.raises(BudgetExceededError, match=r"200 tokens; 100 tokens are spent.*spec\.budget\.mentorTokens"):
        await engine.generate(ask(max_tokens=100))
    await engine.generate(ask(max_tokens=99))
    assert inner.calls == 2


@pytest.mark.parametrize("limits", [Limits(cost=0.0), Limits(tokens=0)])
async def test_a_budget_of_zero_makes_no_call(limits: Limits) -> None:
    inner = ScriptedEngine(lambda _: ["x"])
    engine = BudgetedEngine(inner, PRICE, Budget(limits))
    with pytest.raises(BudgetExceededError):
        await engine.generate(ask())
    assert inner.requests == []


async def test_what_is_free_fits_a_budget_of_no_money() -> None:
    engine = BudgetedEngine(ScriptedEngine(lambda _: ["x"]), PriceSpec(), Budget(Limits(cost=0.0)))
    assert (await engine.generate(ask())).completions[0].text == "x"


async def test_a_call_waits_where_only_calls_in_flight_are_in_its_way() -> None:
    inner = Counting(Usage(1, 1, 0, 1), Usage(1, 1, 0, 1))
    inner.gate = asyncio.Event()
    engine = BudgetedEngine(inner, PRICE, Budget(Limits(tokens=150)), one_token_of_prompt)
    both = asyncio.gather(engine.generate(ask("a")), engine.generate(ask("b")))
    await inner.asked.wait()
    assert inner.calls == 1
    inner.gate.set()
    await both
    assert inner.calls == 2


async def test_a_call_that_waited_is_refused_when_the_others_cost_too_much() -> None:
    inner = Counting(Usage(1, 1, 0, 100))
    engine = BudgetedEngine(inner, PRICE, Budget(Limits(tokens=150)), one_token_of_prompt)
    first, second = await asyncio.gather(engine.generate(ask("a")), engine.generate(ask("b")), return_exceptions=True)
    assert isinstance(first, Generation)
    assert isinstance(second, BudgetExceededError)
    assert inner.calls == 1


async def test_a_call_that_was_cancelled_while_it_waited_takes_nothing() -> None:
    inner = Counting(Usage(1, 1, 0, 1))
    inner.gate = asyncio.Event()
    budget = Budget(Limits(tokens=150))
    engine = BudgetedEngine(inner, PRICE, budget, one_token_of_prompt)
    first = asyncio.create_task(engine.generate(ask("a")))
    await inner.asked.wait()
    waiting = asyncio.create_task(engine.generate(ask("b")))
    await asyncio.sleep(0)
    waiting.cancel()
    inner.gate.set()
    await first
    assert (budget.spent.tokens, budget.lost.tokens, inner.calls) == (2, 0, 1)


async def test_a_failed_call_that_may_have_been_charged_stays_held_back() -> None:
    budget = Budget(Limits(tokens=150))
    engine = BudgetedEngine(Counting(None), PRICE, budget, one_token_of_prompt)
    with pytest.raises(EndpointError, match="broke off"):
        await engine.generate(ask())
    assert budget.lost.tokens == 101
    with pytest.raises(BudgetExceededError, match=r"101 tokens are held back for 1 failed calls.*broke off"):
        await engine.generate(ask())


async def test_a_call_that_was_cancelled_in_flight_stays_held_back() -> None:
    inner = Counting(Usage(1, 1, 0, 1))
    inner.gate = asyncio.Event()
    budget = Budget(Limits(tokens=150))
    task = asyncio.create_task(BudgetedEngine(inner, PRICE, budget, one_token_of_prompt).generate(ask()))
    await inner.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (budget.lost.tokens, budget.failures) == (101, 1)


async def test_a_failure_that_nobody_charges_for_takes_nothing() -> None:
    def refuse(_: Request) -> list[str]:
        raise EndpointAuthError("wrong key")

    budget = Budget(Limits(cost=1.0))
    with pytest.raises(EndpointAuthError):
        await BudgetedEngine(ScriptedEngine(refuse), PRICE, budget).generate(ask())
    assert (budget.spent, budget.lost, budget.failures) == (Spent(), Spent(), 0)


async def test_an_answer_without_counts_is_counted_by_its_text_for_everybody() -> None:
    budget = Budget(Limits(cost=1.0))
    engine = BudgetedEngine(Counting(Usage(calls=1)), PRICE, budget)
    generation = await engine.generate(ask())
    assert generation.usage == Usage(1, prompt_bound(ask()), 0, len("text") + 1)
    assert budget.spent == Spent.of(generation.usage, PRICE)


async def test_mentor_and_judge_share_a_budget_at_their_own_prices() -> None:
    budget = Budget(Limits(cost=1.0))
    mentor = BudgetedEngine(Counting(Usage(1, 10, 0, 10)), PRICE, budget)
    judge = BudgetedEngine(Counting(Usage(1, 10, 0, 10)), PriceSpec(prompt=1.0, completion=1.0), budget)
    await asyncio.gather(mentor.generate(ask()), judge.generate(ask()))
    assert budget.spent.cost == pytest.approx(120e-6 + 20e-6)
    assert budget.spent.tokens == 40


def test_two_currencies_and_limits_that_are_none_are_errors() -> None:
    with pytest.raises(ValueError, match=r"EUR.*USD"):
        BudgetedEngine(ScriptedEngine(lambda _: []), PriceSpec(currency="EUR"), Budget(Limits()))
    for cost_limit, tokens in ((-1.0, None), (math.nan, None), (math.inf, None), (None, -1)):
        with pytest.raises(ValueError, match="limit in"):
            Limits(cost_limit, tokens)


async def test_what_a_journal_answers_costs_nothing_again_but_was_spent_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    def opened(inner: Engine) -> tuple[JournaledEngine, Budget]:
        journal = Journal(path)
        budget = Budget(Limits(tokens=250), spent=Spent.of(journal.usage, PRICE))
        return JournaledEngine(BudgetedEngine(inner, PRICE, budget, one_token_of_prompt), journal), budget

    engine, _ = opened(Counting(Usage(1, 10, 5, 90)))
    await engine.generate(ask("a"))
    await engine.close()

    inner = Counting(Usage(1, 10, 0, 90))
    engine, budget = opened(inner)
    assert budget.spent == Spent.of(Usage(1, 10, 5, 90), PRICE)
    await engine.generate(ask("a"))
    assert (inner.calls, budget.spent.tokens) == (0, 100)
    await engine.generate(ask("b"))
    with pytest.raises(BudgetExceededError, match="200 tokens are spent"):
        await engine.generate(ask("c"))
    await engine.close()


@pytest.mark.parametrize("sampling", [{"n": 3, "temperature": 1.0}, {"choices": ("yes", "no")}, {}])
async def test_the_worst_case_holds_for_a_server_that_ignores_what_it_is_asked(
    endpoint: Endpoint, sampling: dict[str, object]
) -> None:
    charged: list[tuple[int, int]] = []

    def ignore(body: dict[str, object]) -> object:
        charged.append((7, int(str(body["max_tokens"]))))
        return chat(["Well, perhaps."])

    endpoint.script = [failure(400, "logprobs are not supported"), ignore]
    engine = endpoint.engine()
    request = ask(**sampling)
    expected = pytest.raises(EngineError, match="none of the choices") if "choices" in sampling else nullcontext()
    with expected:
        await engine.generate(request)
    most = worst_case(request, lambda _: 7)
    assert sum(prompt for prompt, _ in charged) <= most.prompt_tokens
    assert sum(answer for _, answer in charged) <= most.completion_tokens
    await engine.close()
