"""Started by a test: opens an engine, prints its child processes' ids and waits to be killed."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from perseid.api.engine import VllmSpec
from perseid.engines.probe import Probe
from perseid.engines.vllm_engine import VllmEngine


def engine_processes() -> list[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    return [pid for pid in children if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def main() -> None:
    spec = VllmSpec(max_model_len=512, max_num_seqs=8, kv_cache_gib=0.25)
    engine = await VllmEngine.open(Path(sys.argv[1]), "id", spec, Probe("cpu", "float32", 32))
    print(*engine_processes(), flush=True)
    await asyncio.Event().wait()
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
