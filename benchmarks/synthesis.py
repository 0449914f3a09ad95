"""Synthesis against what bounds it from both sides, in one run on the embedded model.

- live: the search as the stage runs it, all trees in flight, from a cold prefix cache;
- saturated: the very same requests given to the same engine all at once, from a cold prefix cache: the best that any
  scheduler of this search could reach on this engine (eta = saturated / live; at 1 the search costs nothing);
- sequential: a sample of the same requests, one at a time, by transformers.

Reports problems per hour, calls and tokens per problem, the share of prompt tokens from the prefix cache, and the share
of the live time in which no request was at the engine. Takes about ten minutes on 2 cores; other load on the machine
falsifies it, so it says what the load was. `--problems N --sequential N` change the size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perseid.api.engine import EngineSpec, SamplingSpec
from perseid.api.problems import ProblemSet
from perseid.api.search import SearchSpec
from perseid.api.synthesis import SandboxSpec
from perseid.data.problems import load_problems
from perseid.engines.factory import open_engine
from perseid.engines.models import ResolvedModel, resolve_model
from perseid.engines.protocol import Engine, Generation, Request, Usage
from perseid.sandbox.pool import Sandbox
from perseid.search.build import build_search
from perseid.search.forest import grow_forest
from perseid.search.profiles import resolve
from perseid.stages.coder import Coder

SEED = 0


@dataclass(slots=True)
class Recorder:
    """An engine that notes what passes through it and when it is idle."""

    engine: Engine
    requests: list[Request] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    in_flight: int = 0
    idle_since: float | None = None
    idle: float = 0.0

    @property
    def model_id(self) -> str:
        """The inner engine's."""
        return self.engine.model_id

    async def generate(self, request: Request) -> Generation:
        """Pass a request on."""
        if self.in_flight == 0 and self.idle_since is not None:
            self.idle += time.perf_counter() - self.idle_since
        self.in_flight += 1
        try:
            generation = await self.engine.generate(request)
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self.idle_since = time.perf_counter()
        self.requests.append(request)
        self.usage += generation.usage
        return generation

    async def close(self) -> None:
        """The inner engine is closed by whoever opened it."""


async def main() -> None:
    """Measure and print."""
    options = _options()
    load_before = os.getloadavg()[0]
    model = resolve_model("embedded:smollm2-135m-instruct")
    engine = await open_engine(model.path, model.model_id, EngineSpec(type="vllm"))
    try:
        live, recorder = await _live(engine, options)
        await _reset(engine)
        saturated, saturated_usage = await _all_at_once(engine, recorder.requests)
    finally:
        await engine.close()
    sample = random.Random(SEED).sample(recorder.requests, min(options.sequential, len(recorder.requests)))
    sequential = await _one_at_a_time(model, sample)

    problems, calls, usage = options.problems, len(recorder.requests), recorder.usage
    report: dict[str, Any] = {
        "problems": problems,
        "problems_per_hour": round(3600 * problems / live, 1),
        "calls_per_problem": round(calls / problems, 2),
        "prompt_tokens_per_problem": round(usage.prompt_tokens / problems, 1),
        "completion_tokens_per_problem": round(usage.completion_tokens / problems, 1),
        "prefix_hit_rate": round(usage.cached_tokens / usage.prompt_tokens, 3),
        "share_of_time_outside_engine": round(recorder.idle / live, 4),
        "seconds": {
            "live": round(live, 1),
            "saturated": round(saturated, 1),
            "sequential_per_call": round(sequential / len(sample), 3),
        },
        "completion_tokens": {"live": usage.completion_tokens, "saturated": saturated_usage.completion_tokens},
        "eta_to_saturated": round(saturated / live, 3),
        "speedup_over_sequential": round(sequential / len(sample) * calls / live, 2),
        "load_before": round(load_before, 2),
    }
    print(json.dumps(report, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--sequential", type=int, default=24, help="requests of the sequential baseline")
    parser.add_argument("--profile", choices=["recommended", "paper", "reference"], default="recommended")
    return parser.parse_args()


async def _live(engine: Engine, options: argparse.Namespace) -> tuple[float, Recorder]:
    problems = load_problems(ProblemSet(split="train", limit=options.problems), Path("/"))
    recorder = Recorder(engine)
    async with Sandbox(SandboxSpec()) as sandbox:
        coder = Coder(recorder, sandbox, SamplingSpec(max_tokens=160), samples=2, seed=SEED)
        config = resolve(SearchSpec(profile=options.profile))
        search = build_search(config, recorder, execute=coder.share_of_tests)
        began = recorder.idle_since = time.perf_counter()
        async for result in grow_forest(search, problems, seed=SEED, trees_in_flight=len(problems)):
            if result.failure is not None:
                raise SystemExit(f"{result.problem_id} failed: {result.failure.detail}")
        return time.perf_counter() - began, recorder


async def _reset(engine: Engine) -> None:
    reset = getattr(engine, "reset_prefix_cache", None)
    if reset is None:
        raise SystemExit("this engine cannot empty its prefix cache: the comparison would not be fair")
    await reset()


async def _all_at_once(engine: Engine, requests: Sequence[Request]) -> tuple[float, Usage]:
    began = time.perf_counter()
    generations = await asyncio.gather(*(engine.generate(request) for request in requests))
    return time.perf_counter() - began, sum((one.usage for one in generations), Usage())


async def _one_at_a_time(model: ResolvedModel, requests: Sequence[Request]) -> float:
    spec = EngineSpec.model_validate({"type": "transformers", "transformers": {"batchSize": 1}})
    engine = await open_engine(model.path, model.model_id, spec)
    try:
        began = time.perf_counter()
        for request in requests:
            await engine.generate(request)
        return time.perf_counter() - began
    finally:
        await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
