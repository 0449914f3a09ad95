"""What Argo 4.0.5 says of pods that failed, and what it makes of parameters: the real one, in a cluster.

The words are what `perseid_operator.causes` reads, the texts what `perseid.api.passage` is for.
"""

from __future__ import annotations

import json

import pytest
from argo_world import NAMESPACE, Argo

from perseid.api.passage import unwrap, wrap
from perseid.api.reasons import Reason
from perseid_operator.causes import nodes_of, reason_in, workflow_messages

# A pod takes ten seconds to a minute on two cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MEMORY = "python3 -c 'bytearray(400 << 20)'; exit 1"
SPECIAL = {
    "template": "{{workflow.name}}",
    "expression": "{{=1+1}}",
    "no expression": "{{=)}}",
    "unknown": "{{foo}}",
    "open": "a {{ b",
    "dollars": "$$x^2$$",
    "variable": "$(ARGO_CONTAINER_NAME)",
    "delete": "a\x7fb",
    "emoji": "\N{ROCKET}",
    "other": "f'{x}' costs $5 \u2028 \u00ad \\ \" '",
}


def reason(argo: Argo, name: str) -> tuple[Reason, str] | None:
    return reason_in(workflow_messages([argo.ended(name)]))


def test_a_stage_that_fails_gives_no_reason_but_its_exit_code(argo: Argo) -> None:
    argo.submit_stage("fails", "exit 3")
    assert workflow_messages([argo.ended("fails")]) == ["main: Error (exit code 3)"]
    assert reason(argo, "fails") is None


def test_a_stage_whose_process_is_out_of_memory_is_told_so_though_its_shell_goes_on(argo: Argo) -> None:
    argo.submit_stage("memory", MEMORY, container={"resources": {"limits": {"memory": "64Mi"}}})
    found = reason(argo, "memory")
    assert found is not None
    assert found[0] is Reason.OUT_OF_MEMORY


@pytest.mark.parametrize("way", ["deleted", "evicted"])
def test_a_pod_that_is_told_to_go_is_no_fault_of_its_stage_s(argo: Argo, way: str) -> None:
    argo.submit_stage(way, "exec sleep 600")
    pod = argo.running_pod(way)
    if way == "evicted":
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
        argo.cluster.kubectl("create", "--raw", path, "--filename", "-", stdin=json.dumps(eviction))
    else:
        argo.cluster.kubectl("delete", "pod", pod, "--namespace", NAMESPACE, "--wait=false")
    found = reason(argo, way)
    assert found is not None
    assert found[0] in (Reason.INFRASTRUCTURE_FAULT, Reason.NODE_LOST), found


def test_a_stage_that_takes_too_long_is_told_so(argo: Argo) -> None:
    argo.submit_stage("late", "exec sleep 600", activeDeadlineSeconds=5)
    found = reason(argo, "late")
    assert found is not None
    assert found[0] is Reason.DEADLINE_EXCEEDED


def test_argo_says_nothing_of_a_pod_that_waits_at_a_gate_as_kueue_s_do_until_it_is_let_in(argo: Argo) -> None:
    argo.submit_stage("gated", "exit 0", podSpecPatch=json.dumps({"schedulingGates": [{"name": "example.org/quota"}]}))
    pod = argo.gated_pod("gated")
    (node,) = (one for one in nodes_of(argo.workflow("gated")).values() if one["type"] == "Pod")
    assert (node["phase"], node.get("message", "")) == ("Pending", "")
    assert node["startedAt"], "from which on it is known how long it has waited"
    patch = '[{"op": "remove", "path": "/spec/schedulingGates"}]'
    argo.cluster.kubectl("patch", "pod", pod, "--namespace", NAMESPACE, "--type=json", "--patch", patch)
    assert argo.ended("gated")["status"]["phase"] == "Succeeded"


def test_a_disk_that_is_too_small_is_told_in_the_kubelet_s_words(argo: Argo) -> None:
    scratch = {"name": "scratch", "emptyDir": {"sizeLimit": "10Mi"}}
    mounts = {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}
    fill = "dd if=/dev/zero of=/scratch/x bs=1M count=50; exec sleep 600"
    argo.submit_stage("disk", fill, container=mounts, volumes=[scratch])
    (message, *_) = workflow_messages([argo.ended("disk")])
    assert 'Usage of EmptyDir volume "scratch" exceeds the limit' in message
    assert reason_in([message]) is None


def test_texts_come_through_as_they_are_where_they_are_wrapped(argo: Argo) -> None:
    parameters = {"run": {"texts": list(SPECIAL.values())}, "storage": "s3://a/$$/{{b}}"}
    assert unwrap(argo.passed("wrapped", wrap(parameters))) == parameters


@pytest.mark.parametrize("name", ["template", "dollars", "variable", "delete"])
def test_a_text_that_is_not_wrapped_comes_through_as_another_or_not_at_all(argo: Argo, name: str) -> None:
    parameters = {"run": {"text": SPECIAL[name]}}
    assert argo.passed(f"bare-{name}", parameters) != parameters


def test_as_many_parameters_as_the_operator_sends_come_through(argo: Argo) -> None:
    parameters = {"run": {"text": "x" * (96 * 1024 - 30)}}
    assert argo.passed("large", parameters) == parameters
