"""From `kubectl apply` to a trained, evaluated and promoted model, by both methods, with the stages' real code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cluster_access import Cluster
from operator_world import OperatorWorld, expected_runs, is_over, phase, prepare

from kfp_double import KfpDouble
from kfp_double.executing import ProcessExecutor
from kfp_double.parts import Timing
from perseid.api.stages import METEOR_STAGES, stages_of

SPEC = {
    "seed": 7,
    "methods": ["sra-mcts", "meteor"],
    "engine": {"type": "transformers", "transformers": {"batchSize": 4}},
    "problems": {
        "train": {"source": "pack", "split": "train", "levels": ["one-line"], "limit": 3},
        "dev": {"source": "pack", "split": "dev", "levels": ["one-line"], "limit": 1},
        "test": [],
    },
    "synthesis": {"search": {"rounds": 1, "branch": 2, "maxStepTokens": 32}},
    "conversion": {"samplesPerPlan": 2, "thinking": False, "sampling": {"maxTokens": 48}},
    "meteor": {
        "questions": {
            "train": {"source": "pack", "split": "train", "limit": 4},
            "dev": {"source": "pack", "split": "dev", "limit": 1},
            "test": [],
        },
        "mentorSupervised": {"sampling": {"maxTokens": 32}},
        "selfAssessment": {"maxTries": 1, "sampling": {"maxTokens": 48}},
        "selfEvolution": {"expensive": ["sample"], "maxTurns": 1, "sampling": {"maxTokens": 48}},
    },
    "finetune": {"epochs": 1, "batchSize": 2, "minSamples": 1},
    "evaluation": {"samples": 1, "sampling": {"maxTokens": 48}, "bootstrap": 100},
    # One problem and one question tell no model from another: that this one is promoted all the same is asked for.
    "generations": {"promotion": {"rule": "improvement", "minImprovement": -1.0}},
}


# Some minutes: the embedded model really searches, is trained and is scored, each stage in a process of its own.
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_kubectl_apply_gives_a_promoted_model_made_by_the_stages_real_code(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    await prepare(cluster)
    directory = tmp_path / "world"
    (directory / "storage").mkdir(parents=True)
    executor = ProcessExecutor(directory / "workflows", die_with=os.getpid())
    async with KfpDouble(state=directory / "kfp", timing=Timing().scaled(0.05), executor=executor) as double:
        world = OperatorWorld(cluster, namespace, double, directory)
        world.log.touch()
        try:
            await world.fork_operator()
            await world.create("tiny", SPEC)
            await world.until(lambda objects: is_over(objects["tiny"]), seconds=800)
        finally:
            await world.close()
        item = (await world.objects())["tiny"]
        logs = "".join(path.read_text()[-3000:] for path in directory.rglob("log.txt"))
        assert phase(item) == "Completed", logs or world.log.read_text()[-3000:]
        assert double.counters().executions == expected_runs(item)
    (generation,) = item["status"]["generations"]
    assert generation["phase"] == "Promoted"
    model = Path(item["status"]["promoted"]["uri"])
    assert (model / "model.safetensors").stat().st_size > 100_000_000
    assert item["status"]["columns"]["score"] != ""
    result = json.loads((model.parents[1] / "result.json").read_text())
    assert list(result["usage"]) == list(stages_of(["sra-mcts", "meteor"], METEOR_STAGES))
    assert [one["stage"] for one in result["lineage"]][:2] == ["finetune", "mentor-supervised"]
    assert result["dev"]["name"] == "all-dev", "a problem and a question decide together"
