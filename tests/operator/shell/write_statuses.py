"""Writes the statuses that this version of Perseid writes, to be read by all later ones. Once for every release:

    python tests/operator/shell/write_statuses.py

They lie in statuses/VERSION/ from then on and are never written again: what old operators left in clusters does not
change either. test_status_versions.py reads all of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from shell_world import World, open_world  # noqa: E402

from kfp_double.simulation import Script  # noqa: E402
from perseid import __version__  # noqa: E402
from perseid.api.pipeline import PipelineSpec  # noqa: E402
from perseid.api.reasons import Phase  # noqa: E402
from perseid.pipelines.generation import compile_template  # noqa: E402

STATUSES = Path(__file__).with_name("statuses")
LONG = {"max": 24, "patience": 24}


def is_in_its_third_generation(world: World) -> bool:
    current = world.kube.status.current
    return current is not None and current.generation == 2 and bool(current.stages)


async def stories(scratch: Path, pipeline: str) -> AsyncIterator[tuple[str, World]]:
    """Worlds at the moment that is worth to be kept, and its name."""
    async with open_world(scratch / "1", pipeline, generations=LONG) as world:
        # The second attempt of generation 1 succeeds, generation 2 is under way.
        world.double.script(_fails_once(world))
        await world.until(lambda: is_in_its_third_generation(world), poll=5)
        yield "mid-run", world
    async with open_world(scratch / "2", pipeline, generations=LONG, suspendPolicy="terminate") as world:
        await world.until(lambda: is_in_its_third_generation(world), poll=5)
        world.kube.edit(suspend=True)
        await world.until(lambda: world.kube.status.phase is Phase.SUSPENDED)
        yield "suspended", world
    failing = Script(pending=2, running=30, outcome="FAILED", message="OOMKilled (exit code 137)")
    async with open_world(scratch / "3", pipeline, generations={"max": 4, "maxAttempts": 2}) as world:
        world.double.script(failing)
        await world.to_the_end()
        yield "failed", world
    async with open_world(scratch / "4", pipeline, generations=LONG) as world:
        world.gain = lambda generation: 0.05 if generation % 2 == 0 else -0.05
        await world.to_the_end()
        yield "completed", world


def _fails_once(world: World) -> Any:
    def script_for(posted: dict[str, Any]) -> Script:
        parameters = posted["runtime_config"]["parameters"]
        fails = (int(parameters["generation"]), int(parameters["attempt"])) == (1, 0)
        return Script(pending=2, running=30, outcome="FAILED" if fails else "SUCCEEDED", message="a" if fails else "")

    return script_for


async def main() -> None:
    directory = STATUSES / __version__
    directory.mkdir(parents=True)
    compiled, platform = compile_template(PipelineSpec())
    pipeline = json.dumps({"pipeline": compiled, "platform": platform}, sort_keys=True, separators=(",", ":"))
    with tempfile.TemporaryDirectory() as scratch:
        async for name, world in stories(Path(scratch), pipeline):
            assert world.kube.run is not None
            kept = {"spec": world.kube.run["spec"], "status": world.kube.run["status"]}
            # Where the scratch directory was is nobody's business.
            text = json.dumps(kept, indent=1, sort_keys=True).replace(scratch, "/storage")
            (directory / f"{name}.json").write_text(f"{text}\n")


if __name__ == "__main__":
    asyncio.run(main())
