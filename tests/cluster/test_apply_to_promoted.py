"""From `kubectl apply` to a trained, evaluated and promoted model, with the stages' real code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster_access import Cluster
from operator_world import OperatorWorld, expected_runs, is_over, phase, prepare

from kfp_double import KfpDouble
from kfp_double.executing import ProcessExecutor
from kfp_double.parts import Timing
from perseid.api.load import load_run
from perseid.runner.directory import absolute_paths
from tiny_run import environment, write_run


# About two minutes: each stage is a process that imports torch, one after the other.
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_kubectl_apply_gives_a_promoted_model_made_by_the_stages_real_code(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    run = absolute_paths(load_run(write_run(tmp_path)), tmp_path)
    spec = run.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    # A model of random weights learns nothing in eight steps: that it is promoted all the same is asked for.
    spec["finetune"] |= {"minSamples": 1, "epochs": 1, "batchSize": 2}
    spec["generations"]["promotion"] = {"rule": "improvement", "minImprovement": -1.0}

    await prepare(cluster)
    directory = tmp_path / "world"
    (directory / "storage").mkdir(parents=True)
    executor = ProcessExecutor(directory / "workflows", die_with=os.getpid())
    async with KfpDouble(state=directory / "kfp", timing=Timing().scaled(0.05), executor=executor) as double:
        world = OperatorWorld(cluster, namespace, double, directory)
        world.log.touch()
        try:
            await world.fork_operator()
            await world.create("tiny", spec)
            await world.until(lambda objects: is_over(objects["tiny"]), seconds=400)
        finally:
            await world.close()
        item = (await world.objects())["tiny"]
        logs = "".join(path.read_text()[-3000:] for path in directory.rglob("log.txt"))
        assert phase(item) == "Completed", logs or world.log.read_text()[-3000:]
        assert double.counters().executions == expected_runs(item)
    (generation,) = item["status"]["generations"]
    assert generation["phase"] == "Promoted"
    model = Path(item["status"]["promoted"]["uri"])
    assert (model / "model.safetensors").stat().st_size > 0
    assert item["status"]["columns"]["score"] != ""
