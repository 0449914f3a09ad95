"""vLLM on CPU, with the tiny model. Starting it takes 10 s and more: all tests but the killing ones share one."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

pytest.importorskip("vllm")

from perseid.api.engine import VllmSpec
from perseid.engines.errors import EngineClosedError, EngineDiedError, EngineStartError, UnsupportedSamplingError
from perseid.engines.models import resolve_model
from perseid.engines.probe import Probe
from perseid.engines.protocol import Engine, Message, PromptTooLongError, Request, Sampling, generate_all
from perseid.engines.transformers_engine import TransformersEngine
from perseid.engines.vllm_engine import VllmEngine

pytestmark = pytest.mark.slow  # every engine takes half a minute to start: vLLM imports in two processes

shared_loop = pytest.mark.asyncio(loop_scope="module")

SPEC = VllmSpec(max_model_len=2048, max_num_seqs=64, kv_cache_gib=0.25)
HARDWARE = Probe(device="cpu", dtype="float32", block_size=32)


def ask(text: str, *, kind: str = "generate", **sampling: object) -> Request:
    return Request((Message("user", text),), Sampling(**{"max_tokens": 12, **sampling}), kind)  # type: ignore[arg-type]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmEngine]:
    model = resolve_model(str(tiny_model), cache_dir=tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        # As in an image without a compiler, and nothing was compiled before.
        patch.setenv("PATH", str(programs_without_compilers(tmp_path_factory.mktemp("bin"))))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("inductor")))
        opened = await VllmEngine.open(model.path, model.model_id, SPEC, HARDWARE)
    yield opened
    await opened.close()


def programs_without_compilers(directory: Path) -> Path:
    for program in [path for place in os.environ["PATH"].split(":") for path in Path(place).glob("*")]:
        if "++" not in program.name and "clang" not in program.name and not (directory / program.name).exists():
            (directory / program.name).symlink_to(program)
    return directory


@shared_loop
async def test_where_there_is_no_cpp_compiler_an_engine_on_a_cpu_answers_all_the_same(engine: VllmEngine) -> None:
    (generation,) = await generate_all(engine, [ask("hello", temperature=1.0)])
    assert generation.completions[0].tokens > 0


@shared_loop
async def test_compilation_without_a_compiler_is_refused_at_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineStartError, match=r"enforceEager is false.* no g\+\+"):
        await VllmEngine.open(tiny_model, "id", SPEC.model_copy(update={"enforce_eager": False}), HARDWARE)


@shared_loop
async def test_a_seed_gives_the_same_samples_again_and_another_seed_others(engine: VllmEngine) -> None:
    first, again, other = await generate_all(
        engine, [ask("hello", temperature=1.0, n=3, seed=seed) for seed in (1, 1, 2)]
    )
    texts = [completion.text for completion in first.completions]
    assert texts == [completion.text for completion in again.completions]
    assert len(set(texts)) == 3
    assert not set(texts) & {completion.text for completion in other.completions}


@shared_loop
async def test_a_streamed_answer_grows_to_what_generate_gives(engine: VllmEngine) -> None:
    request = ask("stream", temperature=1.0, seed=3)
    told: list[str] = []
    streamed = await engine.stream(request, told.append)
    assert streamed.completions == (await engine.generate(request)).completions
    assert told[-1] == streamed.completions[0].text
    assert all(later.startswith(earlier.rstrip("\N{REPLACEMENT CHARACTER}")) for earlier, later in pairwise(told))


@shared_loop
async def test_long_prompts_with_seeds_do_not_kill_the_engine(engine: VllmEngine) -> None:
    # More prompt tokens at once than vLLM prefills in a step: with chunked prefill its core dies on CPUs
    # ("CPU Generator does not use offset").
    requests = [ask(f"{index} " * 500, temperature=1.0, seed=index, max_tokens=2) for index in range(12)]
    answers = await generate_all(engine, requests)
    assert [answer.usage.calls for answer in answers] == [1] * 12


@shared_loop
async def test_a_stop_string_ends_the_text_and_is_in_it_only_where_it_is_to_stay(engine: VllmEngine) -> None:
    whole = (await engine.generate(ask("stop", max_tokens=20))).completions[0].text
    stop = whole[5]
    stopped = (await engine.generate(ask("stop", max_tokens=20, stop=(stop,)))).completions[0]
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.finish_reason == "stop"
    with_it = (await engine.generate(ask("stop", max_tokens=20, stop=(stop,), keep_stop=True))).completions[0]
    assert with_it.text == stopped.text + stop


@shared_loop
async def test_greedy_answers_and_logprobs_equal_those_of_transformers(engine: VllmEngine, tiny_model: Path) -> None:
    reference: Engine = await TransformersEngine.open(tiny_model, "id", "float32", batch_size=1, max_model_len=2048)
    for text in ("one", "a longer question"):
        mine, other = await engine.generate(ask(text)), await reference.generate(ask(text))
        # The random model may end within a character; vLLM leaves such bytes out.
        assert mine.completions[0].text == other.completions[0].text.rstrip("\ufffd")
        assert mine.completions[0].tokens == other.completions[0].tokens
        assert mine.completions[0].logprob == pytest.approx(other.completions[0].logprob, abs=1e-3)
    await reference.close()


@shared_loop
async def test_choice_probabilities_are_exact_also_when_one_choice_begins_another(
    engine: VllmEngine, tiny_model: Path
) -> None:
    reference: Engine = await TransformersEngine.open(tiny_model, "id", "float32", batch_size=4, max_model_len=2048)
    request = ask("score", choices=tuple(map(str, range(11))), temperature=1.0, n=2)
    # Other requests in the same batch must not disturb the scores, nor the scores them.
    mine, *_ = await generate_all(engine, [request, *(ask(f"other {index}", n=2) for index in range(4))])
    other = await reference.generate(request)
    scores = mine.completions[0].choice_logprobs
    assert scores is not None
    assert sum(map(math.exp, scores.values())) == pytest.approx(1.0)
    assert scores == pytest.approx(other.completions[0].choice_logprobs, abs=1e-3)
    assert [c.text for c in mine.completions] == [c.text for c in other.completions]
    await reference.close()


@shared_loop
async def test_a_beam_search_gives_what_that_of_transformers_gives(engine: VllmEngine, tiny_model: Path) -> None:
    reference: Engine = await TransformersEngine.open(tiny_model, "id", "float32", batch_size=1, max_model_len=2048)
    first = await reference.generate(ask("hello", beams=4))
    requests = [
        ask("hello", beams=4),
        ask("a longer question", beams=7, max_tokens=20),
        ask("hello", beams=2, max_tokens=1),
        ask("hello", beams=4, stop=(first.completions[0].text[3:5],), keep_stop=True),
        ask("hello", beams=64, max_tokens=3),
    ]
    # Together, and beside requests of other kinds.
    found = await generate_all(engine, [*requests, ask("other", temperature=1.0, n=3)])
    for mine, request in zip(found, requests, strict=False):
        other = await reference.generate(request)
        assert [one.text for one in mine.completions] == [one.text for one in other.completions]
        assert [one.finish_reason for one in mine.completions] == [one.finish_reason for one in other.completions]
        assert mine.completions[0].mean_logprob == pytest.approx(other.completions[0].mean_logprob, abs=1e-3)
        assert mine.usage.completion_tokens == other.usage.completion_tokens
        assert mine.usage.prompt_tokens == other.usage.prompt_tokens
    await reference.close()


@shared_loop
async def test_more_beams_than_vllm_may_score_are_refused(engine: VllmEngine) -> None:
    with pytest.raises(UnsupportedSamplingError, match="64 beams at most"):
        await engine.generate(ask("hello", beams=65))


@shared_loop
async def test_a_shared_prefix_is_reported_as_cached(engine: VllmEngine) -> None:
    shared = "constant part " * 40
    await engine.generate(ask(shared + "first"))
    usage = (await engine.generate(ask(shared + "second"))).usage
    assert usage.prompt_tokens > usage.cached_tokens >= 512


@shared_loop
async def test_a_prompt_that_does_not_fit_is_an_error_with_numbers(engine: VllmEngine) -> None:
    with pytest.raises(PromptTooLongError, match=r"\d{4} tokens .* 12.* holds 2048"):
        await engine.generate(ask("x" * 2040))


@shared_loop
async def test_closing_fails_requests_in_flight_and_later_ones(engine: VllmEngine) -> None:
    # The last test of the shared engine: it closes it.
    flying = asyncio.ensure_future(engine.generate(ask("long", max_tokens=1900)))
    await asyncio.wait([flying], timeout=0.2)
    await engine.close()
    with pytest.raises(EngineClosedError, match="in flight"):
        await flying
    with pytest.raises(EngineClosedError):
        await engine.generate(ask("after"))


@shared_loop
async def test_requests_in_flight_fail_at_once_when_the_engine_process_dies(tiny_model: Path) -> None:
    # Starts an engine of its own: it gets killed.
    opened = await VllmEngine.open(tiny_model, "id", SPEC, HARDWARE)
    flying = [asyncio.ensure_future(opened.generate(ask(f"q{i}", max_tokens=1900, seed=i))) for i in range(3)]
    await asyncio.wait(flying, timeout=0.2)
    for child in children_named("EngineCore", os.getpid()):
        os.kill(child, signal.SIGKILL)
    results = await asyncio.wait_for(asyncio.gather(*flying, return_exceptions=True), timeout=20)
    assert [type(result) for result in results] == [EngineDiedError] * 3
    with pytest.raises(EngineDiedError):
        await opened.generate(ask("after"))
    await opened.close()


def test_no_engine_process_outlives_a_killed_program(tiny_model: Path) -> None:
    # Starts a program of its own, with an engine in it: it gets killed.
    program = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("vllm_program.py")), str(tiny_model)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    children = [int(pid) for pid in program.stdout.readline().split()]
    assert children
    descriptors = [os.pidfd_open(child) for child in children]
    program.kill()
    program.wait()
    import select

    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    gone: set[int] = set()
    while len(gone) < len(descriptors):
        ready = poller.poll(20_000)
        assert ready, f"still running: {children}"
        for descriptor, _ in ready:
            gone.add(descriptor)
            poller.unregister(descriptor)
    for descriptor in descriptors:
        os.close(descriptor)


def children_named(name: str, parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                command = (entry / "cmdline").read_text()
            except OSError:  # it has ended meanwhile
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent and name in command:
                found.append(int(entry.name))
    return found
