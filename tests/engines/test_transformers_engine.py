from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from perseid.engines.errors import EngineClosedError
from perseid.engines.protocol import EngineError, Message, PromptTooLongError, Request, Sampling, generate_all
from perseid.engines.transformers_decode import Row
from perseid.engines.transformers_engine import TransformersEngine


def ask(text: str = "hello", **sampling: object) -> Request:
    return Request((Message("user", text),), Sampling(**{"max_tokens": 12, **sampling}))  # type: ignore[arg-type]


async def open_tiny(model: Path, batch_size: int = 8) -> TransformersEngine:
    return await TransformersEngine.open(model, "id", "float32", batch_size=batch_size, max_model_len=256)


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[TransformersEngine]:
    opened = await open_tiny(tiny_model)
    yield opened
    await opened.close()


@pytest.fixture
async def single(tiny_model: Path) -> AsyncIterator[TransformersEngine]:
    opened = await open_tiny(tiny_model, batch_size=1)
    yield opened
    await opened.close()


async def test_at_batch_size_one_an_answer_depends_on_request_and_seed_alone(
    tiny_model: Path, single: TransformersEngine
) -> None:
    request = ask("the same", temperature=1.0, top_p=0.9, n=3, seed=5)
    alone = await single.generate(request)
    restarted = await open_tiny(tiny_model, batch_size=1)
    crowded = await generate_all(
        restarted, [ask(str(index), temperature=1.0, seed=index) for index in range(5)] + [request]
    )
    assert crowded[-1] == alone
    assert len({completion.text for completion in alone.completions}) == 3
    assert (await single.generate(ask("the same", temperature=1.0, top_p=0.9, n=3, seed=6))) != alone
    await restarted.close()


async def test_a_batch_of_unequal_prompts_gives_what_each_gives_alone(
    engine: TransformersEngine, single: TransformersEngine
) -> None:
    requests = [
        ask("x" * length, max_tokens=length, temperature=float(length % 2), seed=length) for length in (1, 30, 4, 17)
    ]
    together = await generate_all(engine, requests)
    for mine, request in zip(together, requests, strict=True):
        other = await single.generate(request)
        assert mine.completions[0].text == other.completions[0].text
        assert mine.completions[0].logprob == pytest.approx(other.completions[0].logprob, abs=1e-3)


async def test_logprob_is_the_models_own_sum_over_the_answer(engine: TransformersEngine) -> None:
    prompt = engine._encoder.encode(ask().messages)
    row = Row(prompt=prompt, max_tokens=6, temperature=0.7, top_p=0.8, seed=1)
    engine._decoder.decode([row])
    with torch.inference_mode():
        logprobs = engine._decoder._model(torch.tensor([prompt + row.tokens])).logits[0].log_softmax(-1)
    expected = sum(float(logprobs[len(prompt) + at - 1, token]) for at, token in enumerate(row.tokens))
    assert row.tokens
    assert row.logprob == pytest.approx(expected, abs=1e-3)


async def test_a_stop_string_ends_the_text_and_is_in_it_only_where_it_is_to_stay(engine: TransformersEngine) -> None:
    whole = (await engine.generate(ask("stop", max_tokens=20))).completions[0]
    assert whole.finish_reason == "length"
    stop = whole.text[6:8]
    stopped = (await engine.generate(ask("stop", max_tokens=20, stop=(stop,)))).completions[0]
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.finish_reason == "stop"
    assert stopped.tokens < whole.tokens
    with_it = (await engine.generate(ask("stop", max_tokens=20, stop=(stop,), keep_stop=True))).completions[0]
    assert with_it.text == stopped.text + stop


async def test_choices_are_scored_exactly(engine: TransformersEngine) -> None:
    choices = ("1", "10", "2")
    generation = await engine.generate(ask(choices=choices, temperature=1.0, n=4, seed=2))
    scores = generation.completions[0].choice_logprobs
    assert scores is not None
    encoder, model = engine._encoder, engine._decoder._model
    prompt = encoder.encode(ask().messages)
    one, two, zero = (encoder.encode_choice(text)[0] for text in "120")
    end = encoder.tokenizer.eos_token_id
    with torch.inference_mode():
        first = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
        second = model(torch.tensor([[*prompt, one]])).logits[0, -1].softmax(-1)
    begins = float(first[one] / (first[one] + first[two]))
    ends = float(second[end] / (second[end] + second[zero]))
    expected = {"1": begins * ends, "10": begins * (1 - ends), "2": 1 - begins}
    assert {choice: math.exp(score) for choice, score in scores.items()} == pytest.approx(expected, abs=1e-4)
    assert all(completion.text in choices for completion in generation.completions)
    best = (await engine.generate(ask(choices=choices))).completions[0].text
    assert best == max(expected, key=expected.__getitem__)


async def test_an_opened_answer_is_continued_as_it_stands(engine: TransformersEngine) -> None:
    messages = (Message("user", "q"), Message("assistant", "Score: "))
    text = engine._encoder.tokenizer.decode(engine._encoder.encode(messages))
    assert text == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nScore: "


async def test_a_prompt_that_does_not_fit_is_an_error_with_numbers(engine: TransformersEngine) -> None:
    with pytest.raises(PromptTooLongError, match=r"has 3\d\d tokens .* have 12, .* holds 256"):
        await engine.generate(ask("x" * 300))


async def test_a_failing_model_fails_the_requests_of_its_batch_and_no_later_ones(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(rows: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._decoder, "decode", broken)
    results = await asyncio.gather(engine.generate(ask("a")), engine.generate(ask("b")), return_exceptions=True)
    assert all(isinstance(result, EngineError) and "lower batchSize" in str(result) for result in results)
    monkeypatch.undo()
    assert (await engine.generate(ask("c"))).completions[0].tokens == 12


async def test_a_closed_engine_says_so(tiny_model: Path) -> None:
    opened = await open_tiny(tiny_model)
    waiting = asyncio.create_task(opened.generate(ask()))
    await asyncio.sleep(0)
    await opened.close()
    with pytest.raises(EngineClosedError):
        await waiting
    with pytest.raises(EngineClosedError):
        await opened.generate(ask())


async def test_a_streamed_answer_grows_to_what_generate_gives(single: TransformersEngine) -> None:
    request = ask("stream", temperature=1.0, seed=3)
    told: list[str] = []
    streamed = await single.stream(request, told.append)
    await asyncio.sleep(0)  # the last word was handed to the loop from the decoding thread
    assert streamed == await single.generate(request)
    assert told[-1] == streamed.completions[0].text
    assert len(told) == streamed.completions[0].tokens


async def test_a_streamed_answer_that_is_cancelled_is_given_up(single: TransformersEngine) -> None:
    begun = asyncio.Event()
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        begun.set()

    # Unlikely to end by itself, and long enough to be cancelled in the middle of it.
    task = asyncio.create_task(single.stream(ask("long", max_tokens=200, temperature=1.0, seed=1), tell))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await single.generate(ask("next"))).completions
    assert len(told) < 200
