from __future__ import annotations

from pathlib import Path

from shell_world import open_world

from kfp_double.simulation import Script
from perseid_operator.metrics import Metrics
from perseid_operator.telling import tell


async def test_what_has_ended_is_counted_once_whatever_is_decided_on_it(tmp_path: Path, pipeline: str) -> None:
    metrics = Metrics()
    script = Script(pending=40, running=60)
    async with open_world(tmp_path, pipeline, script=script, generations={"max": 2, "patience": 5}) as world:
        world.start()
        assert world.reconciler is not None
        world.reconciler._tell = lambda obj, old, new, seen: tell(metrics, obj, old, new, seen, world.now())
        await world.to_the_end()
    text = metrics.render()[0].decode()
    assert 'perseid_generations_total{namespace="team",result="Promoted"} 2.0' in text
    waited = next(line for line in text.splitlines() if line.startswith("perseid_queue_wait_seconds_sum"))
    assert 2 * 40 <= float(waited.split()[-1]) <= 2 * 80
