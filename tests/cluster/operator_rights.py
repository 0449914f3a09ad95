"""What the operator may do, and some of what it may not, as an API server is asked for it."""

from __future__ import annotations

from cluster_access import Cluster, KubectlError

from perseid_operator.leader import LEASE_NAME

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


def may(cluster: Cluster, account: str, verb: str, resource: str, where: str) -> bool:
    """Whether a service account (`namespace:name`) may do that in a namespace."""
    kind, _, rest = resource.partition("/")
    what = (f"{kind}/{rest}",) if rest and rest != "status" else (kind, *(["--subresource=status"] if rest else []))
    whose = f"--as=system:serviceaccount:{account}"
    try:
        return cluster.kubectl("auth", "can-i", verb, *what, whose, f"--namespace={where}").strip() == "yes"
    except KubectlError:
        return False  # kubectl's exit status says no as well.
