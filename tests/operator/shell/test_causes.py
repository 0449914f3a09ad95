"""Why a run failed, by what its Workflow says. The words are those of Argo 4.0.5, the kubelet and the scheduler."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from perseid.api.reasons import NOT_CHARGED, Reason
from perseid_operator.causes import nodes_of, reason_in, workflow_messages

KILLED = "main: Error (exit code 137)"
FAILED = "main: Error (exit code 1)"


def node(message: str | None, phase: str = "Failed", kind: str = "Pod", **more: Any) -> dict[str, Any]:
    return {"type": kind, "phase": phase, **({} if message is None else {"message": message}), **more}


def workflow(nodes: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "perseid-x7f2p"}, "status": {"phase": "Failed", "nodes": nodes, **status}}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("main: OOMKilled (exit code 137)", Reason.OUT_OF_MEMORY),
        ("main: OOMKilled (exit code 1): the launcher outlived what it had started", Reason.OUT_OF_MEMORY),
        (KILLED, Reason.INFRASTRUCTURE_FAULT),
        ("main: Error (exit code 143)", Reason.INFRASTRUCTURE_FAULT),
        ("wait: Error (exit code 2)", Reason.INFRASTRUCTURE_FAULT),
        ("init: Error (exit code 64): no space left on device", Reason.INFRASTRUCTURE_FAULT),
        ("pod failed: neither main nor wait container completed successfully", Reason.INFRASTRUCTURE_FAULT),
        ("can't find failed message for pod x-1 namespace team", Reason.INFRASTRUCTURE_FAULT),
        (
            "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices"
            " nvidia.com/gpu, which is unexpected",
            Reason.INFRASTRUCTURE_FAULT,
        ),
        ("pod deleted", Reason.NODE_LOST),
        ("Pod was terminated in response to imminent node shutdown.", Reason.NODE_LOST),
        (
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 40Mi. Container main was using"
            " 2Gi, request is 1Gi, has larger consumption of memory. ",
            Reason.PREEMPTED,
        ),
        ("Preempted in order to admit critical pod", Reason.PREEMPTED),
        ("Pod was active on the node longer than the specified deadline", Reason.DEADLINE_EXCEEDED),
        (
            "Pod failed before main container starts due to ImagePullBackOff: Back-off pulling image",
            Reason.IMAGE_PULL_FAILED,
        ),
    ],
)
def test_a_pod_s_words_have_a_reason(message: str, reason: Reason) -> None:
    assert reason_in(workflow_messages([workflow({"a": node(message)})])) == (reason, message)


@pytest.mark.parametrize(
    "message",
    [FAILED, 'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". ', "main: Error (exit code 2): usage"],
)
def test_what_is_the_stage_s_own_fault_has_none(message: str) -> None:
    assert reason_in([message]) is None


def test_a_memory_that_is_too_small_is_charged_and_a_pod_that_was_told_to_go_is_not() -> None:
    assert Reason.OUT_OF_MEMORY not in NOT_CHARGED
    assert {Reason.INFRASTRUCTURE_FAULT, Reason.NODE_LOST, Reason.PREEMPTED} <= NOT_CHARGED


def test_a_try_that_was_followed_by_another_says_nothing_about_the_end() -> None:
    tried = {
        "again": node("No more retries left", kind="Retry", children=["first", "second"]),
        "first": node(KILLED, finishedAt="2026-01-01T00:00:01Z"),
        "second": node(FAILED, finishedAt="2026-01-01T00:00:02Z"),
    }
    assert workflow_messages([workflow(tried)]) == [FAILED]


def test_a_node_that_succeeded_in_the_end_says_nothing() -> None:
    tried = {
        "again": node(None, "Succeeded", "Retry", children=["first", "second"]),
        "first": node(KILLED),
        "second": node(None, "Succeeded"),
        "later": node(FAILED),
    }
    assert workflow_messages([workflow(tried)]) == [FAILED]


def test_of_several_pods_the_first_to_fail_is_heard_first_and_parents_that_only_follow_are_not() -> None:
    nodes = {
        "root": node("child 'perseid-x7f2p-12' failed", kind="DAG", finishedAt="2026-01-01T00:00:00Z"),
        "late": node(KILLED, finishedAt="2026-01-01T00:00:09Z"),
        "early": node(FAILED, finishedAt="2026-01-01T00:00:03Z"),
    }
    assert workflow_messages([workflow(nodes, message="child 'perseid-x7f2p-1' failed")]) == [FAILED, KILLED]


def test_a_workflow_that_never_came_to_a_pod_speaks_itself() -> None:
    message = 'error in entry template execution: serviceaccounts "trainer" not found'
    assert workflow_messages([workflow({}, message=message)]) == [message]


def test_nodes_that_argo_has_packed_are_unpacked() -> None:
    nodes = {"a": node("main: OOMKilled (exit code 137)")}
    packed = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    assert nodes_of(workflow({}, compressedNodes=packed)) == nodes
    assert workflow_messages([workflow({}, compressedNodes=packed)]) == ["main: OOMKilled (exit code 137)"]


@pytest.mark.parametrize(
    "packed",
    ["?", "AAAA", base64.b64encode(gzip.compress(b"[")).decode()],
    ids=["not base64", "not gzip", "not JSON"],  # what is packed has the time in it
)
def test_nodes_that_cannot_be_unpacked_are_none_and_the_log_says_so(
    packed: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert nodes_of(workflow({}, compressedNodes=packed)) == {}
    assert "perseid-x7f2p cannot be read" in caplog.text
