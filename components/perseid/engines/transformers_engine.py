"""Plain transformers: runs wherever PyTorch does, with a decoding loop of our own.

The loop exists for three things that `generate` does not give: a random generator for each sample, log-probabilities of
the unchanged logits, and stop strings, so that a sample depends on its request and seed alone (exactly so at batch size
1; in bigger batches rounding differs with the neighbours). Beam searches go through the same loop, a beam a line of the
batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perseid.engines.chat import ChatEncoder
from perseid.engines.choices import choice_distribution, sample_seed
from perseid.engines.errors import EngineClosedError, EngineStartError
from perseid.engines.protocol import Completion, EngineError, Generation, Request, Telling, Usage
from perseid.engines.transformers_decode import Decoder, Row


@dataclass(slots=True)
class _Job:
    row: Row
    done: asyncio.Future[Row]


class TransformersEngine:
    """Micro-batches the rows that wait and decodes them in a thread. Open one with `await open(...)`."""

    def __init__(self, decoder: Decoder, encoder: ChatEncoder, model_id: str, batch_size: int) -> None:
        self._decoder = decoder
        self._encoder = encoder
        self._model_id = model_id
        self._batch_size = batch_size
        self._waiting: deque[_Job] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        model_path: Path,
        model_id: str,
        dtype: str,
        *,
        batch_size: int,
        max_model_len: int,
        trust_remote_code: bool = False,
    ) -> TransformersEngine:
        """Load the model in `model_path` (transformers format) on the GPU if there is one. Raises EngineStartError."""
        encoder = ChatEncoder(model_path, max_model_len, trust_remote_code=trust_remote_code)
        eos_token_ids = encoder.eos_token_ids(model_path)
        model = await asyncio.to_thread(_load, model_path, dtype, trust_remote_code)
        return cls(Decoder(model, encoder, eos_token_ids), encoder, model_id, batch_size)

    @property
    def model_id(self) -> str:
        """Identity of the weights."""
        return self._model_id

    async def generate(self, request: Request) -> Generation:
        """Answer one request. Raises PromptTooLongError, or EngineError where the model fails."""
        sampling = request.sampling
        prompt = self._encoder.encode(request.messages)
        if sampling.choices is not None:
            return await self._choose(prompt, request)
        self._encoder.check_fits(len(prompt), sampling.max_tokens)
        # Greedy samples are all the same: one is decoded.
        count = sampling.n if sampling.temperature > 0 else 1
        rows = [
            Row(
                prompt=prompt,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                stop=sampling.stop,
                keep_stop=sampling.keep_stop,
                seed=sample_seed(sampling.seed, index),
                beams=sampling.beams,
            )
            for index in range(count)
        ]
        finished = await self._run(rows)
        completions = tuple(Completion(row.text, len(row.tokens), row.finish_reason, row.logprob) for row in finished)
        usage = Usage(1, count * len(prompt), 0, sum(row.computed for row in finished))
        return Generation(completions if count == sampling.n else completions * sampling.n, usage)

    async def stream(self, request: Request, tell: Telling) -> Generation:
        """Answer one request with one sample, and tell its text while it grows. Raises what `generate` raises."""
        sampling = request.sampling
        prompt = self._encoder.encode(request.messages)
        self._encoder.check_fits(len(prompt), sampling.max_tokens)
        loop = asyncio.get_running_loop()

        def in_loop(text: str) -> None:
            loop.call_soon_threadsafe(tell, text)

        row = Row(
            prompt=prompt,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=sampling.stop,
            keep_stop=sampling.keep_stop,
            seed=sample_seed(sampling.seed, 0),
            tell=in_loop,
        )
        try:
            await self._run([row])
        except asyncio.CancelledError:
            row.abandoned = True
            raise
        completion = Completion(row.text, len(row.tokens), row.finish_reason, row.logprob)
        return Generation((completion,), Usage(1, len(prompt), 0, row.computed))

    async def close(self) -> None:
        """Drop the model; requests that still wait fail."""
        self._closed = True
        while self._waiting:
            job = self._waiting.popleft()
            if not job.done.done():
                job.done.set_exception(EngineClosedError("the transformers engine was closed"))
        if self._worker is not None:
            await self._worker
        self._decoder.release()

    async def _choose(self, prompt: list[int], request: Request) -> Generation:
        tokens = {choice: self._encoder.encode_choice(choice) for choice in request.sampling.choices or ()}
        self._encoder.check_fits(len(prompt), max(map(len, tokens.values()), default=0) + 1)
        prompt_tokens = 0

        async def next_logprobs(path: tuple[int, ...], candidates: tuple[int, ...]) -> list[float]:
            nonlocal prompt_tokens
            prompt_tokens += len(prompt) + len(path)
            (row,) = await self._run([Row(prompt=[*prompt, *path], max_tokens=1, score=candidates)])
            return row.scores

        distribution = await choice_distribution(tokens, self._decoder.eos_token_ids, next_logprobs)
        completions = distribution.sample(request.sampling)
        return Generation(completions, Usage(1, prompt_tokens, 0, sum(one.tokens for one in completions)))

    async def _run(self, rows: list[Row]) -> list[Row]:
        if self._closed:
            raise EngineClosedError("the transformers engine is closed")
        loop = asyncio.get_running_loop()
        jobs = [_Job(row, loop.create_future()) for row in rows]
        self._waiting.extend(jobs)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return list(await asyncio.gather(*(job.done for job in jobs)))

    async def _work(self) -> None:
        while self._waiting:
            # Let every coroutine that is ready put its rows in before a batch is closed.
            await asyncio.sleep(0)
            batch = self._next_batch()
            if not batch:
                continue
            try:
                await asyncio.to_thread(self._decoder.decode, [job.row for job in batch])
            except Exception as error:  # noqa: BLE001 - handed on to every request of the batch
                for job in batch:
                    if not job.done.done():
                        failure = EngineError(
                            f"the model failed on a batch of {len(batch)}: {type(error).__name__}: {error}; where "
                            "memory is short, lower batchSize, maxModelLen or the number of beams"
                        )
                        failure.__cause__ = error
                        job.done.set_exception(failure)
                continue
            for job in batch:
                if not job.done.done():
                    job.done.set_result(job.row)

    def _next_batch(self) -> list[_Job]:
        """The jobs that waited longest, as many as fit. A search with more beams than fit is a batch of its own."""
        batch: list[_Job] = []
        lines = 0
        while self._waiting:
            job = self._waiting[0]
            if job.done.done():  # its caller was cancelled
                self._waiting.popleft()
                continue
            lines += job.row.lines
            if batch and lines > self._batch_size:
                break
            batch.append(self._waiting.popleft())
        return batch


def _load(model_path: Path, dtype: str, trust_remote_code: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            model_path, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=trust_remote_code
        )
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise EngineStartError(f"transformers cannot load the model in {model_path}: {error}") from error
