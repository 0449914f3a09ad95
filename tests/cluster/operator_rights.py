"""What the operator may do, and some of what it may not, as an API server is asked for it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from cluster_access import Cluster

from perseid_operator.leader import LEASE_NAME

Right = tuple[str, str]
"""A verb, and a resource with its group; after a slash `status`, or an object's name."""

MAY = [
    ("get", "evolutionruns.perseid.dev"),
    ("list", "evolutionruns.perseid.dev"),
    ("watch", "evolutionruns.perseid.dev"),
    ("patch", "evolutionruns.perseid.dev"),
    ("update", "evolutionruns.perseid.dev/status"),
    ("create", "configmaps"),
    ("create", "events"),
]
"""Where its EvolutionRuns are."""
MAY_FOR_ITS_LEASE = [
    ("create", "leases.coordination.k8s.io"),
    ("update", f"leases.coordination.k8s.io/{LEASE_NAME}"),
]
"""Where it is itself."""
MAY_NOT = [
    ("create", "evolutionruns.perseid.dev"),
    ("update", "evolutionruns.perseid.dev"),
    ("patch", "evolutionruns.perseid.dev/status"),
    ("delete", "configmaps"),
    ("list", "configmaps"),
    ("get", "secrets"),
    ("create", "pods"),
    ("get", "workflows.argoproj.io"),
    ("update", "leases.coordination.k8s.io/another"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
]


def allowed(cluster: Cluster, account: str, rights: Sequence[Right], where: str) -> list[Right]:
    """Which of some rights a service account (`namespace:name`) has in a namespace. One call of kubectl for all."""
    reviews = "\n---\n".join(json.dumps(_review(account, *right, where)) for right in rights)
    options = ("--filename=-", "--output=jsonpath={.status.allowed}{'\\n'}")
    answers = cluster.kubectl("create", *options, input=reviews).split()
    return [right for right, answer in zip(rights, answers, strict=True) if answer == "true"]


def wait_until_allowed(cluster: Cluster, account: str, rights: Sequence[Right], where: str) -> None:
    """Return when it has all of them: the API server takes a moment to notice a new Role. Fails after a minute."""
    deadline = time.monotonic() + 60
    while (has := allowed(cluster, account, rights, where)) != list(rights):
        assert time.monotonic() < deadline, f"{account} may not {[right for right in rights if right not in has]}"


def _review(account: str, verb: str, resource: str, where: str) -> dict[str, Any]:
    kind, _, rest = resource.partition("/")
    name, _, group = kind.partition(".")
    of = {} if not rest else {"subresource": rest} if rest == "status" else {"name": rest}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{account}",
            "groups": [
                "system:authenticated",
                "system:serviceaccounts",
                f"system:serviceaccounts:{account.partition(':')[0]}",
            ],
            "resourceAttributes": {"namespace": where, "verb": verb, "group": group, "resource": name, **of},
        },
    }
