"""A small pipeline of two tasks, and requests for runs of it."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

from perseid_operator.kfp import KfpClient, KfpRunState, RunRequest

PIPELINE: dict[str, Any] = {
    "pipelineInfo": {"name": "sample"},
    "schemaVersion": "2.1.0",
    "sdkVersion": "kfp-2.17.0",
    "root": {
        "dag": {
            "tasks": {
                "first": {
                    "componentRef": {"name": "comp-first"},
                    "taskInfo": {"name": "first"},
                    "retryPolicy": {"maxRetryCount": 1},
                },
                "second": {
                    "componentRef": {"name": "comp-first"},
                    "taskInfo": {"name": "second"},
                    "dependentTasks": ["first"],
                },
            }
        },
        "inputDefinitions": {
            "parameters": {
                "text": {"parameterType": "STRING"},
                "number": {"parameterType": "NUMBER_INTEGER", "isOptional": True, "defaultValue": 0},
                "data": {"parameterType": "STRUCT", "isOptional": True, "defaultValue": {}},
            }
        },
    },
    "components": {"comp-first": {"executorLabel": "exec-first"}},
    "deploymentSpec": {"executors": {"exec-first": {"container": {"image": "alpine", "command": ["true"]}}}},
}
PLATFORM: dict[str, Any] = {
    "platforms": {"kubernetes": {"deploymentSpec": {"executors": {"exec-first": {"activeDeadlineSeconds": "7200"}}}}}
}


def new_id() -> str:
    return str(uuid.uuid4())


def run_request(experiment_id: str, **changes: Any) -> RunRequest:
    request = RunRequest(
        run_id=new_id(),
        display_name="ns.sample-g000-a0",
        description="of the object 1234",
        experiment_id=experiment_id,
        pipeline_spec=PIPELINE,
        platform_spec=PLATFORM,
        parameters={"text": "hello", "data": {"list": ["a", 1]}},
    )
    return replace(request, **changes)


def body(experiment: str = "", **changes: Any) -> dict[str, Any]:
    """What is posted, past the client and its checks."""
    return json.loads(run_request(experiment).to_body()) | changes


async def state(kfp: KfpClient, run_id: str) -> KfpRunState | None:
    run = await kfp.get_run(run_id)
    assert run is not None
    return run.state
