"""`perseid plan` says what the operator does: what both compute comes out the same."""

from __future__ import annotations

import pytest

from perseid.api.spec import EvolutionRun
from perseid.cli.plan import PIPELINE_LIMIT, SUBMISSION_LIMIT, plan_submissions
from perseid_operator.compiler import Compiler
from perseid_operator.kfp import MAX_BODY_BYTES
from perseid_operator.snapshots import MAX_PIPELINE_BYTES


def test_the_limits_are_the_operators() -> None:
    assert (PIPELINE_LIMIT, SUBMISSION_LIMIT) == (MAX_PIPELINE_BYTES, MAX_BODY_BYTES)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {
            "pipeline": {
                "image": "org/größe:1",
                "stages": {"finetune": {"gpus": 1, "labels": {"a": "b"}, "timeoutSeconds": 5}},
            }
        },
        {"methods": ["meteor"], "pipeline": {"stages": {"selfEvolution": {"gpus": 1}}}},
        {"methods": ["meteor", "sra-mcts"]},
    ],
    ids=["defaults", "everything", "meteor", "both methods"],
)
async def test_the_pipelines_digest_is_the_one_that_the_operator_freezes(spec: dict[str, object]) -> None:
    # Over a second: the operator's compiler is a process of its own, which imports KFP.
    run = EvolutionRun.model_validate({"metadata": {"name": "small"}, "spec": spec})
    compiler = Compiler()
    try:
        compiled = await compiler.compile(run.spec.template)
    finally:
        await compiler.close()
    assert plan_submissions(run, namespace="lab").pipeline_digest == compiled.digest
