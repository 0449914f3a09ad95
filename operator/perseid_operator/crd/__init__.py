"""The CustomResourceDefinition of EvolutionRun, generated from `perseid.api`.

The models are the one source. What Kubernetes wants beside them stands here, each thing in one place: how pydantic's
schema becomes a structural one (`structural`, `unions`), rules that no schema can say (`rules`), what may never change
(`immutability`), what `kubectl get` shows (`columns`). `definition` puts them together and `check` refuses a result
that the API server could not cost or `kubectl explain` could not explain. Needs Kubernetes 1.29 or later.
"""

from __future__ import annotations

from perseid_operator.crd.definition import CRD_NAME, custom_resource_definition
from perseid_operator.crd.errors import CrdError
from perseid_operator.crd.text import crd_text

__all__ = ["CRD_NAME", "CrdError", "crd_text", "custom_resource_definition"]
