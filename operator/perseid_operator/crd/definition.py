"""The CustomResourceDefinition as a whole."""

from __future__ import annotations

from perseid.api.base import API_VERSION, KIND, RUN_NAME
from perseid.api.spec import EvolutionRunSpec
from perseid.api.status import EvolutionRunStatus
from perseid_operator.crd.check import columns_without_field, unbounded
from perseid_operator.crd.columns import COLUMNS
from perseid_operator.crd.defaults import shorten_defaults
from perseid_operator.crd.errors import CrdError
from perseid_operator.crd.immutability import add_immutability
from perseid_operator.crd.rules import Rule
from perseid_operator.crd.schema import Schema, cel_text
from perseid_operator.crd.structural import structural_schema

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "evolutionruns"
CRD_NAME = f"{PLURAL}.{GROUP}"

_DESCRIPTION = (
    "A language model that makes itself better: generation after generation it makes data for itself, is fine-tuned on "
    "it and is scored, until it no longer improves. Every generation is a run of Kubeflow Pipelines."
)
_NAME_RULE = Rule(
    f"self.metadata.name.matches({cel_text(RUN_NAME)})",
    "metadata.name must be at most 53 lower-case letters, digits and `-`, because the names of pipelines, experiments "
    "and ConfigMaps are made from it: choose a shorter or plainer name",
    "metadata.name",
)


def custom_resource_definition() -> Schema:
    """The CRD, as JSON. Raises CrdError with every field that the models leave unclear."""
    root = _root()
    problems = [*unbounded(root), *columns_without_field(COLUMNS, root)]
    if problems:
        raise CrdError(problems)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["evorun"],
                # Not `all`: `kubectl delete all --all` tidies up, and must not take weeks of training with it.
                "categories": ["perseid"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [column.as_schema() for column in COLUMNS],
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }


def _root() -> Schema:
    spec = structural_schema(EvolutionRunSpec, "spec", defaults=True)
    spec["default"] = EvolutionRunSpec().model_dump(mode="json", by_alias=True, exclude_none=True)
    add_immutability(spec)
    shorten_defaults(spec)
    # Who writes a status says all of it: a default here would be a fact that nobody observed.
    status = structural_schema(EvolutionRunStatus, "status", defaults=False)
    # One writer writes them whole. Kept field by field, who wrote what would fill half of every object. Not so the
    # conditions, to which others may add their own.
    for part in status["properties"].values():
        if part.get("type") == "object":
            part["x-kubernetes-map-type"] = "atomic"
    return {
        "description": _DESCRIPTION,
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "enum": [API_VERSION], "description": "Version of this schema."},
            "kind": {"type": "string", "enum": [KIND], "description": "Kind of this object."},
            # Kubernetes' own limit, said again: it bounds the cost of the rule.
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": [_NAME_RULE.as_schema()],
    }
