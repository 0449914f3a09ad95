"""vLLM inside this program: continuous batching and prefix caching, on GPUs and CPUs."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perseid.api.engine import VllmSpec
from perseid.engines.beams import BeamSearch
from perseid.engines.chat import ChatEncoder
from perseid.engines.choices import choice_distribution, sample_seed
from perseid.engines.errors import EngineClosedError, EngineDiedError, EngineStartError, UnsupportedSamplingError
from perseid.engines.probe import Probe
from perseid.engines.protocol import Completion, EngineError, Generation, Request, Sampling, Telling, Usage
from perseid.engines.sampling import Ending
from perseid.engines.vllm_settings import engine_arguments, is_eager, set_process_environment, start_environment

_SHUTDOWN_SECONDS = 1.0
_SCORED_TOKENS = 128
"""Candidates that vLLM scores in one request (its MAX_LOGPROB_TOKEN_IDS)."""
_MOST_BEAMS = 64
"""vLLM must know at its start how many log-probabilities a request may ask for."""


class VllmEngine:
    """Batches all requests in flight. Open one with `await VllmEngine.open(...)`.

    A request's samples depend on the prompt and its seed, and, through rounding, on what else is in the batch.
    """

    def __init__(self, core: Any, encoder: ChatEncoder, eos_token_ids: tuple[int, ...], model_id: str) -> None:
        self._core = core
        self._encoder = encoder
        self._eos_token_ids = eos_token_ids
        self._model_id = model_id
        self._request_ids = itertools.count()
        self._running: set[asyncio.Future[Any]] = set()
        self._closed = False

    @classmethod
    async def open(
        cls,
        model_path: Path,
        model_id: str,
        spec: VllmSpec,
        hardware: Probe,
        *,
        trust_remote_code: bool = False,
    ) -> VllmEngine:
        """Start vLLM on the model in `model_path` (transformers format). Takes seconds to minutes; EngineStartError."""
        on_gpu = hardware.device != "cpu"
        encoder = ChatEncoder(model_path, spec.max_model_len, trust_remote_code=trust_remote_code)
        eos_token_ids = encoder.eos_token_ids(model_path)
        set_process_environment(on_gpu=on_gpu, workers=spec.gpus)
        arguments = engine_arguments(
            model_path,
            spec,
            dtype=hardware.dtype,
            block_size=hardware.block_size,
            max_model_len=encoder.max_model_len,
            on_gpu=on_gpu,
            max_logprobs=_MOST_BEAMS * (1 + len(eos_token_ids)),
            trust_remote_code=trust_remote_code,
        )
        eager = is_eager(spec, on_gpu=on_gpu)
        if not on_gpu and not eager and not _has_cpp_compiler():
            raise EngineStartError(
                "engine.vllm.enforceEager is false, and on a CPU vLLM then needs a C++ compiler, but there is no g++"
                " here; install it, name another one in the environment variable CXX, or leave enforceEager out"
            )
        started: list[Any] = []
        # Not as the thread's result: the future keeps that alive, past the engine's own end.
        await asyncio.to_thread(lambda: started.append(_start(arguments, compiles=on_gpu or not eager)))
        return cls(started.pop(), encoder, eos_token_ids, model_id)

    @property
    def model_id(self) -> str:
        """Identity of the weights."""
        return self._model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request. Raises PromptTooLongError, UnsupportedSamplingError for more than 64 beams, or
        EngineDiedError when vLLM's process is gone."""
        prompt = self._encoder.encode(request.messages)
        if request.sampling.choices is not None:
            return await self._choose(prompt, request.sampling, request.sampling.choices)
        if request.sampling.beams:
            return await self._search(prompt, request.sampling)
        return await self._complete(prompt, request.sampling)

    async def stream(self, request: Request, tell: Telling) -> Generation:
        """Answer one request with one sample, and tell its text while it grows. Raises what `generate` raises."""
        return await self._complete(self._encoder.encode(request.messages), request.sampling, tell)

    async def reset_prefix_cache(self) -> None:
        """Forget all cached prompts; for measurements that are to start cold."""
        await self._core.reset_prefix_cache()

    async def close(self) -> None:
        """End vLLM's processes; requests in flight fail."""
        if self._closed:
            return
        self._closed = True
        # vLLM leaves whoever waits for an answer waiting for ever.
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        core, self._core = self._core, None
        # The core holds nothing worth a slow farewell.
        await asyncio.to_thread(core.shutdown, timeout=_SHUTDOWN_SECONDS)
        if core.output_handler is not None:
            await asyncio.gather(core.output_handler, return_exceptions=True)
        del core
        # It is part of a reference cycle, and its finalizer complains when it runs only as the interpreter ends.
        gc.collect()

    async def _complete(self, prompt: list[int], sampling: Sampling, tell: Telling | None = None) -> Generation:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._encoder.check_fits(len(prompt), sampling.max_tokens)
        # Greedy samples are all the same: one is decoded. The others get seeds of their own, since vLLM's would be
        # seed, seed + 1, ..., which the next seed's request shares.
        count = sampling.n if sampling.temperature > 0 else 1
        parameters = [
            SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
                seed=sample_seed(sampling.seed, index),
                stop=list(sampling.stop) or None,
                include_stop_str_in_output=sampling.keep_stop,
                stop_token_ids=list(self._eos_token_ids),
                logprobs=0,
                output_kind=RequestOutputKind.FINAL_ONLY if tell is None else RequestOutputKind.CUMULATIVE,
            )
            for index in range(count)
        ]
        outputs = await self._run_all([(prompt, one) for one in parameters], tell)
        completions = [_completion(output) for output in outputs]
        if count < sampling.n:
            completions *= sampling.n
        return Generation(tuple(completions), _usage(outputs))

    async def _search(self, prompt: list[int], sampling: Sampling) -> Generation:
        """Search by beams: one request of one token for each beam and step, whose beginning the prefix cache holds."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._encoder.check_fits(len(prompt), sampling.max_tokens)
        if sampling.beams > _MOST_BEAMS:
            raise UnsupportedSamplingError(
                f"vLLM searches by {_MOST_BEAMS} beams at most here, and {sampling.beams} were asked for; ask for "
                "fewer, or use engine type transformers"
            )
        ending = Ending(
            self._encoder.decode, self._eos_token_ids, sampling.max_tokens, sampling.stop, sampling.keep_stop
        )
        search = BeamSearch(sampling.beams, ending)
        parameters = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            # More than the vocabulary has would end vLLM's process.
            logprobs=min(search.candidates, self._core.model_config.get_vocab_size()),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        usage = Usage()
        while search.live:
            outputs = await self._run_all([([*prompt, *beam.tokens], parameters) for beam in search.live])
            usage = usage if search.computed else _usage(outputs)
            search.advance(
                [
                    [(token, known.logprob) for token, known in output.outputs[0].logprobs[0].items()]
                    for output in outputs
                ]
            )
        best = search.best
        completion = Completion(best.text, len(best.tokens), best.finish_reason, best.logprob)
        # The prompt counts as what the first request made of it: later ones only read it from the cache.
        return Generation((completion,), replace(usage, completion_tokens=search.computed))

    async def _choose(self, prompt: list[int], sampling: Sampling, choices: Sequence[str]) -> Generation:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        tokens = {choice: self._encoder.encode_choice(choice) for choice in choices}
        self._encoder.check_fits(len(prompt), max(map(len, tokens.values()), default=0) + 1)
        outputs: list[Any] = []

        async def next_logprobs(path: tuple[int, ...], candidates: tuple[int, ...]) -> list[float]:
            parts = [candidates[at : at + _SCORED_TOKENS] for at in range(0, len(candidates), _SCORED_TOKENS)]
            scored = await self._run_all(
                [
                    (
                        [*prompt, *path],
                        SamplingParams(
                            max_tokens=1,
                            temperature=0.0,
                            logprob_token_ids=list(part),
                            detokenize=False,
                            output_kind=RequestOutputKind.FINAL_ONLY,
                        ),
                    )
                    for part in parts
                ]
            )
            outputs.extend(scored)
            return [
                output.outputs[0].logprobs[0][token].logprob
                for output, part in zip(scored, parts, strict=True)
                for token in part
            ]

        distribution = await choice_distribution(tokens, self._eos_token_ids, next_logprobs)
        return Generation(distribution.sample(sampling), _usage(outputs))

    async def _run_all(self, calls: list[tuple[list[int], Any]], tell: Telling | None = None) -> list[Any]:
        """Run several vLLM requests. When one fails the others are aborted, so that nothing runs on unseen."""
        tasks = [asyncio.ensure_future(self._run(prompt, parameters, tell)) for prompt, parameters in calls]
        for task in tasks:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _run(self, prompt: list[int], parameters: Any, tell: Telling | None) -> Any:
        from vllm import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if self._closed:
            raise EngineClosedError("the vLLM engine is closed")
        name = str(next(self._request_ids))
        final = None
        try:
            rendered = self._input(TokensPrompt(prompt_token_ids=prompt))
            async for output in self._core.generate(rendered, parameters, name):
                final = output
                if tell is not None:
                    tell(output.outputs[0].text)
        except asyncio.CancelledError:
            if self._closed:
                raise EngineClosedError("the vLLM engine was closed while requests were in flight") from None
            raise
        except EngineDeadError as error:
            raise EngineDiedError(
                "vLLM's engine process died. Its own message stands above in the log; often it is out of memory: "
                "lower kvCacheGib (CPU), gpuMemoryUtilization (GPU), maxNumSeqs or maxModelLen"
            ) from error
        except (EngineGenerateError, ValueError) as error:
            raise EngineError(f"vLLM refused a request: {error.__cause__ or error}") from error
        if final is None:
            raise EngineError("vLLM ended a request without an answer")
        return final

    def _input(self, prompt: Any) -> Any:
        renderer = self._core.renderer
        (rendered,) = renderer.render_cmpl([prompt], renderer.default_cmpl_tok_params)
        return rendered


def _has_cpp_compiler() -> bool:
    """Whether torch finds the one that it looks for."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def _start(arguments: dict[str, Any], *, compiles: bool) -> Any:
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise EngineStartError(
            f"vLLM cannot be imported ({error}); install `perseid[vllm]` (GPU) or `perseid[cpu]`, or use engine type "
            "transformers"
        ) from error
    with start_environment(compiles=compiles):
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except Exception as error:
            raise EngineStartError(
                f"vLLM did not start on {arguments['model']}: {error}. Run with PERSEID_LOG=debug for its log; where "
                "memory is short, lower kvCacheGib or gpuMemoryUtilization, maxModelLen or maxNumSeqs"
            ) from error


def _completion(output: Any) -> Completion:
    answer = output.outputs[0]
    if answer.finish_reason not in ("stop", "length"):
        raise EngineError(f"vLLM ended a request with {answer.finish_reason!r}")
    return Completion(
        text=answer.text,
        tokens=len(answer.token_ids),
        finish_reason=answer.finish_reason,
        logprob=answer.cumulative_logprob,
    )


def _usage(outputs: Sequence[Any]) -> Usage:
    return Usage(
        calls=1,
        prompt_tokens=sum(len(output.prompt_token_ids) for output in outputs),
        cached_tokens=sum(output.num_cached_tokens or 0 for output in outputs),
        completion_tokens=sum(len(answer.token_ids) for output in outputs for answer in output.outputs),
    )
