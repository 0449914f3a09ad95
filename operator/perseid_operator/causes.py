"""Why a run failed, by the words of Argo's Workflow: KFP's API has none.

A node of a Workflow has one message: the pod's own, where it has one, else how its first container failed that did, as
`CONTAINER: REASON (exit code N): WORDS`. The container `main` is the stage, inside Argo's own executor, which ends with
128 and the signal that ended the stage: `OOMKilled` tells memory apart from a pod that was told to go.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from perseid.api.reasons import Reason

log = logging.getLogger(__name__)

_SIGNS: tuple[tuple[Reason, re.Pattern[str]], ...] = (
    (Reason.OUT_OF_MEMORY, re.compile(r"OOMKilled|out of memory", re.IGNORECASE)),
    (Reason.PREEMPTED, re.compile(r"preempt|evict|DisruptionTarget|node was low on resource", re.IGNORECASE)),
    (
        Reason.NODE_LOST,
        re.compile(r"node (was )?(lost|not ready|shut)|NodeLost|NodeShutdown|pod (was )?deleted", re.IGNORECASE),
    ),
    (
        Reason.INFRASTRUCTURE_FAULT,
        re.compile(
            r"Error \(exit code (137|143)\)"  # a drained node, a deleted pod: whoever ends it sends a signal
            r"|^(wait|init): "  # Argo's own containers
            r"|wait container did not complete|neither main nor wait container"
            r"|can't find failed message for pod"  # no container was ever made
            r"|Pod was rejected|UnexpectedAdmissionError"  # by the kubelet: a device is ill, the node is full after all
        ),
    ),
    (Reason.IMAGE_PULL_FAILED, re.compile(r"ErrImagePull|ImagePullBackOff|InvalidImageName", re.IGNORECASE)),
    (
        Reason.DEADLINE_EXCEEDED,
        re.compile(r"DeadlineExceeded|longer than (the )?specified deadline|exceeded its deadline", re.IGNORECASE),
    ),
)
_FOLLOWS = re.compile(r"^child '.*' (failed|errored)$|^No more retries left")
"""What a node says whose fault is another's."""


def reason_in(messages: Iterable[str]) -> tuple[Reason, str] | None:
    """The first known cause in what pods and Workflows say, and the words it stands in."""
    for message in messages:
        for reason, sign in _SIGNS:
            if sign.search(message):
                return reason, message
    return None


def workflow_messages(workflows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the nodes say that made a run's Workflows fail, then the Workflows themselves: pods first, in the order in
    which they ended. Tries before the last one of a node that was tried again say nothing about the end."""
    messages: list[str] = []
    for workflow in workflows:
        failed = sorted(_failed(nodes_of(workflow)), key=lambda node: str(node.get("finishedAt") or ""))
        pods = [node["message"] for node in failed if node.get("type") == "Pod"]
        others = [node["message"] for node in failed if node.get("type") != "Pod"]
        own = (workflow.get("status") or {}).get("message")
        messages += [*pods, *others, *([own] if own else [])]
    return [message for message in messages if not _FOLLOWS.search(message)]


def nodes_of(workflow: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A Workflow's nodes by id. Argo packs them where they are too many for one object; nodes that it has put into a
    database are out of sight: then there are none."""
    status = workflow.get("status") or {}
    packed = status.get("compressedNodes")
    if not packed:
        return status.get("nodes") or {}
    try:
        unpacked = json.loads(gzip.decompress(base64.b64decode(packed)))
    except (binascii.Error, OSError, EOFError, ValueError) as error:
        log.warning("the nodes of Workflow %s cannot be read: %s", workflow["metadata"]["name"], error)
        return {}
    return unpacked if isinstance(unpacked, dict) else {}


def _failed(nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Nodes that failed for good and say why."""
    outlived = {
        child
        for node in nodes.values()
        if node.get("type") == "Retry"
        for child in (node.get("children") or [])[: None if node.get("phase") == "Succeeded" else -1]
    }
    for key, node in nodes.items():
        if key not in outlived and node.get("phase") in ("Failed", "Error") and node.get("message"):
            yield node
