"""Beam search: the search itself, in the transformers engine, and through whatever stands in front of an engine."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perseid.api.meteor import PriceSpec
from perseid.engines.beams import BeamSearch
from perseid.engines.budget import Budget, BudgetedEngine, Limits, Spent, worst_case
from perseid.engines.chat import ChatEncoder
from perseid.engines.errors import BudgetExceededError, UnsupportedSamplingError
from perseid.engines.factory import KeyGuard
from perseid.engines.journal import Journal, request_key
from perseid.engines.journaled import JournaledEngine
from perseid.engines.lazy import LazyEngine
from perseid.engines.protocol import EngineError, Message, Request, Sampling, generate_all
from perseid.engines.recorded import RecordedEngine, Recorder
from perseid.engines.sampling import Ending
from perseid.engines.scripted import ScriptedEngine
from perseid.engines.transformers_decode import Decoder, Row
from perseid.engines.transformers_engine import TransformersEngine
from perseid.engines.wrappers import CallLogEngine, LimitedEngine
from tiny_llama import make_model

Tokens = tuple[int, ...]
NextLogprobs = Callable[[Tokens], Sequence[float]]


def brute_force(
    next_logprobs: NextLogprobs, width: int, max_tokens: int, ends: Callable[[Tokens], bool], eos_tokens: int
) -> tuple[Tokens, float]:
    """The definition, word by word: no cache, no batch, every continuation of every beam scored and sorted."""
    live: list[tuple[Tokens, float]] = [((), 0.0)]
    finished: list[tuple[Tokens, float]] = []

    def mean(one: tuple[Tokens, float]) -> float:
        return one[1] / len(one[0])

    while live:
        everything = [
            ((*tokens, token), total + logprob)
            for tokens, total in live
            for token, logprob in enumerate(next_logprobs(tokens))
        ]
        everything.sort(key=lambda one: -one[1])
        everything = everything[: width * (1 + eos_tokens)]
        over = [len(one[0]) == max_tokens or ends(one[0]) for one in everything]
        finished += [one for one, is_over in zip(everything[:width], over, strict=False) if is_over]
        finished = sorted(finished, key=mean, reverse=True)[:width]
        live = [one for one, is_over in zip(everything, over, strict=True) if not is_over][:width]
        if len(finished) == width and live and mean(live[0]) <= mean(finished[-1]):
            live = []
    return finished[0]


def search(next_logprobs: NextLogprobs, width: int, ending: Ending) -> BeamSearch:
    """A search over a model that is a function."""
    going = BeamSearch(width, ending)
    while going.live:
        going.advance([list(enumerate(next_logprobs(beam.tokens))) for beam in going.live])
    return going


def letters(tokens: Sequence[int]) -> str:
    return "".join(chr(ord("a") + token) for token in tokens)


def random_model(vocabulary: int, seed: int) -> NextLogprobs:
    """Another distribution after each beginning."""

    def next_logprobs(tokens: Tokens) -> list[float]:
        generator = random.Random(f"{seed}:{tokens}")
        logits = [generator.gauss(0, 2) for _ in range(vocabulary)]
        total = math.log(sum(map(math.exp, logits)))
        return [logit - total for logit in logits]

    return next_logprobs


@given(
    seed=st.integers(0, 10**6),
    vocabulary=st.integers(2, 6),
    width=st.integers(2, 9),
    max_tokens=st.integers(1, 6),
    eos=st.sets(st.integers(0, 5), min_size=1, max_size=2),
    stop=st.sampled_from([(), ("ab",), ("ca", "bb")]),
)
def test_the_search_agrees_with_its_definition(
    seed: int, vocabulary: int, width: int, max_tokens: int, eos: set[int], stop: tuple[str, ...]
) -> None:
    model = random_model(vocabulary, seed)

    def ends(tokens: Tokens) -> bool:
        return tokens[-1] in eos or any(one in letters(tokens) for one in stop)

    expected, logprob = brute_force(model, width, max_tokens, ends, len(eos))
    best = search(model, width, Ending(letters, tuple(sorted(eos)), max_tokens, stop)).best
    assert best.tokens == expected
    assert best.logprob == pytest.approx(logprob)
    assert best.finish_reason == ("stop" if ends(expected) else "length")


def test_a_width_that_holds_every_sequence_finds_the_best_of_all() -> None:
    model, end, length = random_model(3, seed=4), 2, 4
    whole = [
        sequence
        for count in range(1, length + 1)
        for sequence in itertools.product(range(3), repeat=count)
        if end not in sequence[:-1] and (sequence[-1] == end or count == length)
    ]

    def mean(sequence: Tokens) -> float:
        return sum(model(sequence[:at])[token] for at, token in enumerate(sequence)) / len(sequence)

    found = search(model, 3**length, Ending(letters, (end,), length)).best
    assert found.tokens == max(whole, key=mean)
    assert found.score == pytest.approx(mean(found.tokens))


def test_a_better_sequence_that_starts_worse_is_found() -> None:
    # Greedy takes token 0 and must then go on with improbable ones; the end is token 2.
    table = {(): [0.6, 0.4, 1e-9], (0,): [0.34, 0.33, 0.33], (1,): [0.01, 0.01, 0.98]}
    flat = [0.34, 0.33, 0.33]

    def model(tokens: Tokens) -> list[float]:
        return [math.log(value) for value in table.get(tokens, flat)]

    going = search(model, 2, Ending(letters, (2,), 5))
    assert going.best.tokens == (1, 2)
    assert (going.best.text, going.best.finish_reason) == ("b", "stop")
    assert going.best.logprob == pytest.approx(math.log(0.4 * 0.98))


def test_every_beam_of_every_step_is_counted_as_computed() -> None:
    going = search(random_model(4, seed=1), 3, Ending(letters, (99,), 5))
    assert going.computed == 1 + 3 * 4


def test_tokens_without_probability_are_never_taken() -> None:
    def only_one(tokens: Tokens) -> list[float]:
        return [0.0 if token == len(tokens) else -math.inf for token in range(4)]

    assert search(only_one, 3, Ending(letters, (99,), 3)).best.tokens == (0, 1, 2)
    with pytest.raises(EngineError, match="no token any probability"):
        _ = search(lambda _: [-math.inf] * 4, 3, Ending(letters, (99,), 3)).best


@pytest.mark.parametrize(
    "fields", [{"beams": 1}, {"beams": -2}, {"beams": 2, "temperature": 0.5}, {"beams": 2, "n": 2}]
)
def test_a_request_whose_beams_contradict_the_rest_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="beam"):
        Sampling(9, **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no choices"):
        Sampling(9, beams=2, choices=("a", "b"))


# The transformers engine.


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # On a busy machine a tiny model's threads mostly wait for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ask(text: str = "hello", **sampling: object) -> Request:
    return Request((Message("user", text),), Sampling(**{"max_tokens": 10, "beams": 4, **sampling}))  # type: ignore[arg-type]


async def open_tiny(model: Path, batch_size: int) -> TransformersEngine:
    return await TransformersEngine.open(model, "id", "float32", batch_size=batch_size, max_model_len=256)


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[TransformersEngine]:
    opened = await open_tiny(tiny_model, 16)
    yield opened
    await opened.close()


@pytest.fixture
async def single(tiny_model: Path) -> AsyncIterator[TransformersEngine]:
    opened = await open_tiny(tiny_model, 1)
    yield opened
    await opened.close()


def plain_logprobs(model: object, prompt: list[int]) -> NextLogprobs:
    """The model's own, one whole sequence at a time, and each once."""

    @cache
    @torch.inference_mode()
    def next_logprobs(tokens: Tokens) -> list[float]:
        return list(model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].log_softmax(-1).tolist())  # type: ignore[operator]

    return next_logprobs


def decoded(engine: TransformersEngine, eos: tuple[int, ...], *rows: Row) -> None:
    Decoder(engine._decoder._model, engine._encoder, eos).decode(list(rows))


def ends_in(eos: tuple[int, ...], tokens: Tokens) -> bool:
    return tokens[-1] in eos


def greedy_token(engine: TransformersEngine, prompt: list[int], at: int) -> int:
    """The token that greedy decoding takes at a place: as an end token it ends beams that are likely."""
    row = Row(prompt=prompt, max_tokens=at + 1)
    decoded(engine, (1,), row)
    return row.tokens[at]


@pytest.mark.parametrize("width", [2, 5])
async def test_tokens_equal_those_of_a_search_without_cache_and_batch(single: TransformersEngine, width: int) -> None:
    # Takes a second or two: the definition runs the model on every whole sequence.
    reasons = set()
    for text in ("hello", "What is a mile?"):
        prompt = single._encoder.encode((Message("user", text),))
        likely = plain_logprobs(single._decoder._model, prompt)
        long = Row(prompt=prompt, max_tokens=8, beams=width)
        decoded(single, (1,), long)
        # Tokens of the answer as end tokens let likely beams end early.
        for eos in [(1,), (long.tokens[2],), (1, long.tokens[4])]:
            row = Row(prompt=prompt, max_tokens=8, beams=width)
            decoded(single, eos, row)
            expected, logprob = brute_force(likely, width, 8, partial(ends_in, eos), len(eos))
            assert tuple(row.tokens) == expected
            assert row.logprob == pytest.approx(logprob, abs=1e-3)
            reasons.add(row.finish_reason)
    assert reasons == {"stop", "length"}


@pytest.mark.parametrize("width", [2, 4, 9])
async def test_tokens_equal_those_of_transformers_own_generate(single: TransformersEngine, width: int) -> None:
    prompt = single._encoder.encode((Message("user", "hello"),))
    model = single._decoder._model
    for eos in [1, greedy_token(single, prompt, 2), greedy_token(single, prompt, 5)]:
        row = Row(prompt=prompt, max_tokens=12, beams=width)
        decoded(single, (eos,), row)
        with torch.inference_mode():
            theirs = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                num_beams=width,
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=eos,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_scores=True,
            )
        answer = theirs.sequences[0, len(prompt) :].tolist()
        assert row.tokens == answer[: len(row.tokens)]
        assert set(answer[len(row.tokens) :]) <= {0}
        assert row.logprob / len(row.tokens) == pytest.approx(float(theirs.sequences_scores[0]), abs=1e-3)


async def test_the_mean_logprob_is_that_of_the_plain_model_and_no_worse_than_the_greedy_answers(
    engine: TransformersEngine,
) -> None:
    prompt = engine._encoder.encode(ask().messages)
    row = Row(prompt=prompt, max_tokens=10, beams=4)
    decoded(engine, engine._decoder.eos_token_ids, row)
    (answer,) = (await engine.generate(ask())).completions
    likely = plain_logprobs(engine._decoder._model, prompt)
    expected = sum(likely(tuple(row.tokens[:at]))[token] for at, token in enumerate(row.tokens)) / len(row.tokens)
    assert answer.mean_logprob == pytest.approx(expected, abs=1e-4)
    greedy = (await engine.generate(ask(beams=0))).completions[0]
    assert answer.text != greedy.text
    assert greedy.mean_logprob is not None
    assert answer.mean_logprob is not None
    assert answer.mean_logprob > greedy.mean_logprob


async def test_an_answer_of_one_token_is_the_most_likely_token(engine: TransformersEngine) -> None:
    one = await engine.generate(ask(max_tokens=1))
    assert one.completions == (await engine.generate(ask(max_tokens=1, beams=0))).completions
    assert (one.completions[0].tokens, one.completions[0].finish_reason) == (1, "length")
    assert one.usage.completion_tokens == 1


async def test_more_beams_than_there_are_tokens_are_no_error(single: TransformersEngine) -> None:
    # A vocabulary of 5: the first step has 5 beams, the second 25, and only the third fills the width.
    small = make_model(vocab_size=5, initializer_range=0.5).eval()
    prompt = [2, 3, 4]
    row = Row(prompt=prompt, max_tokens=4, beams=40)
    Decoder(small, single._encoder, (1,)).decode([row])
    expected, _ = brute_force(plain_logprobs(small, prompt), 40, 4, lambda tokens: tokens[-1] == 1, 1)
    assert tuple(row.tokens) == expected
    assert row.computed == 1 + 4 + 16 + 40


async def test_a_stop_string_ends_a_beam_and_is_in_its_text_only_where_it_is_to_stay(
    engine: TransformersEngine,
) -> None:
    whole = (await engine.generate(ask("stop", max_tokens=16))).completions[0]
    assert whole.finish_reason == "length"
    stop = whole.text[4:6]
    prompt = engine._encoder.encode(ask("stop").messages)
    decode = engine._encoder.decode
    expected, logprob = brute_force(
        plain_logprobs(engine._decoder._model, prompt),
        4,
        16,
        lambda tokens: tokens[-1] == 1 or stop in decode(tokens),
        1,
    )
    stopped = (await engine.generate(ask("stop", max_tokens=16, stop=(stop,)))).completions[0]
    with_it = (await engine.generate(ask("stop", max_tokens=16, stop=(stop,), keep_stop=True))).completions[0]
    assert stop in decode(expected)
    assert stopped.text == decode(expected).partition(stop)[0]
    assert with_it.text == stopped.text + stop
    assert (stopped.finish_reason, stopped.tokens) == ("stop", len(expected))
    assert stopped.logprob == pytest.approx(logprob, abs=1e-3)


async def test_a_search_in_a_batch_gives_what_it_gives_alone_and_disturbs_nobody(
    engine: TransformersEngine, single: TransformersEngine
) -> None:
    requests = [
        ask("first", beams=3, max_tokens=9),
        ask("a sampled neighbour", beams=0, temperature=1.0, n=2, seed=3),
        ask("x" * 40, beams=5, max_tokens=14),
        ask("short", beams=0, max_tokens=2),
        ask("yes or no", beams=0, choices=("yes", "no")),
        ask("z", beams=2, max_tokens=1),
    ]
    together = await generate_all(engine, requests)
    for mine, request in zip(together, requests, strict=True):
        alone = await single.generate(request)
        assert [one.text for one in mine.completions] == [one.text for one in alone.completions]
        assert [one.logprob for one in mine.completions] == pytest.approx(
            [one.logprob for one in alone.completions], abs=1e-3
        )
        assert mine.usage == alone.usage


async def test_at_batch_size_one_a_search_depends_on_its_request_alone(
    tiny_model: Path, single: TransformersEngine
) -> None:
    alone = await single.generate(ask("the same"))
    restarted = await open_tiny(tiny_model, 1)
    crowded = await generate_all(
        restarted, [*(ask(str(index), beams=index % 3 * 2) for index in range(5)), ask("the same")]
    )
    assert crowded[-1] == alone
    assert (await single.generate(ask("the same", seed=6))).completions == alone.completions
    await restarted.close()


async def test_beams_count_as_lines_of_a_batch(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = await open_tiny(tiny_model, 6)
    batches: list[list[int]] = []
    real = opened._decoder.decode

    def watched(rows: list[Row]) -> None:
        batches.append([row.beams for row in rows])
        real(rows)

    monkeypatch.setattr(opened._decoder, "decode", watched)
    await generate_all(opened, [ask(str(at), beams=beams, max_tokens=2) for at, beams in enumerate((3, 3, 2, 0, 9, 0))])
    assert batches == [[3, 3], [2, 0], [9], [0]]
    await opened.close()


# Journal, recorders and wrappers.


def test_keys_of_journals_from_before_there_were_beams_stay_as_they_were() -> None:
    plain = Request((Message("user", "hello"),), Sampling(max_tokens=5))
    rich = Request(
        (Message("system", "Be brief."), Message("user", "hello")),
        Sampling(64, 0.7, 0.9, 4, ("\n\n",), True, 11, ("a", "b")),
        "score",
        "q1",
    )
    assert request_key("m", plain) == "b7bcaf60d028229b28ba12363c81873d885f9bf5ec1e035025726ea4bd6e0304"
    assert request_key("m", rich) == "1e95a3652422c2b8067f776e0b905604bdd9afc0dda91b5472d383993d0bc0dd"
    searching = [request_key("m", replace(plain, sampling=Sampling(5, beams=width))) for width in (2, 3)]
    assert len({request_key("m", plain), *searching}) == 3


async def test_a_search_is_answered_from_the_journal_the_second_time(
    tmp_path: Path, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = JournaledEngine(engine, Journal(tmp_path / "calls"))
    answer = await first.generate(ask())
    other_width = await first.generate(ask(beams=2))
    first._journal.close()

    async def none_is_made(request: Request) -> None:
        raise AssertionError("a call was made again")

    monkeypatch.setattr(engine, "generate", none_is_made)
    again = JournaledEngine(engine, Journal(tmp_path / "calls"))
    assert await again.generate(ask()) == answer
    assert await again.generate(ask(beams=2)) == other_width
    assert (again.counts.made, again.counts.replayed) == (0, 2)
    again._journal.close()


async def test_every_wrapper_hands_the_beams_on(tmp_path: Path) -> None:
    inner = ScriptedEngine(lambda request: [f"{request.sampling.beams} beams"])

    async def start() -> ScriptedEngine:
        return inner

    price = PriceSpec(completion=1.0)
    engine = JournaledEngine(
        BudgetedEngine(
            LimitedEngine(
                CallLogEngine(
                    KeyGuard(Recorder(LazyEngine("scripted", start), tmp_path / "file"), "key"), tmp_path / "log"
                ),
                2,
            ),
            price,
            Budget(Limits(tokens=10_000)),
        ),
        Journal(tmp_path / "calls"),
    )
    answers = await asyncio.gather(*(engine.generate(ask(beams=width)) for width in (0, 4, 7)))
    assert [answer.completions[0].text for answer in answers] == ["0 beams", "4 beams", "7 beams"]
    await engine.close()
    recorded = RecordedEngine(tmp_path / "file")
    assert [(await recorded.generate(ask(beams=width))).completions for width in (0, 4, 7)] == [
        answer.completions for answer in answers
    ]


async def test_a_recorded_answer_by_subject_answers_a_search_too(tmp_path: Path) -> None:
    path = tmp_path / "mentor.jsonl"
    path.write_text('{"kind": "decode", "subject": "q1", "answer": "An inch is 2.54 cm."}\n')
    engine = RecordedEngine(path)
    generation = await engine.generate(replace(ask(), kind="decode", subject="q1"))
    assert [one.text for one in generation.completions] == ["An inch is 2.54 cm."]


async def test_a_budget_reserves_what_all_beams_can_take_and_pays_back_what_is_refused() -> None:
    request = ask(beams=4, max_tokens=100)
    assert worst_case(request).completion_tokens == 400
    assert worst_case(replace(request, sampling=Sampling(100))).completion_tokens == 100
    price = PriceSpec(completion=1.0)
    budget = Budget(Limits(tokens=300))
    with pytest.raises(BudgetExceededError):
        await BudgetedEngine(ScriptedEngine(lambda _: ["yes"]), price, budget).generate(request)

    def refused(_: Request) -> list[str]:
        raise UnsupportedSamplingError("no beams here")

    budget = Budget(Limits(tokens=1000))
    with pytest.raises(UnsupportedSamplingError):
        await BudgetedEngine(ScriptedEngine(refused), price, budget).generate(request)
    assert (budget.spent, budget.lost) == (Spent(), Spent())


def test_the_text_of_an_ending_is_without_the_end_token(tiny_model: Path) -> None:
    encoder = ChatEncoder(tiny_model, 256)
    ids = encoder.tokenizer.encode("ab", add_special_tokens=False)
    ending = Ending(encoder.decode, (1,), 3)
    assert ending.of(ids[:1]) is None
    assert ending.of([*ids, 1]) == ("ab", "stop")
    assert ending.of([*ids, ids[0]]) == ("aba", "length")
