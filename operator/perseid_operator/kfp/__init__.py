"""A client of Kubeflow Pipelines' REST API (v2beta1): few calls, no retries, errors that say what is known.

Neither the KFP SDK nor its generated client is used: a submission must be sent exactly once, and what is known after
an answer that did not come must be known exactly.
"""

from perseid_operator.kfp.client import KfpClient
from perseid_operator.kfp.errors import (
    KfpAmbiguousError,
    KfpError,
    KfpExperimentMissingError,
    KfpRateLimitedError,
    KfpServerError,
    KfpSettingsError,
    KfpUnauthorizedError,
    KfpUnreachableError,
    RunRejectedError,
    UnreachableKind,
)
from perseid_operator.kfp.request import MAX_BODY_BYTES, RunRequest
from perseid_operator.kfp.runs import KfpRun, KfpRunState, KfpTask, StateChange
from perseid_operator.kfp.settings import KfpSettings

__all__ = [
    "MAX_BODY_BYTES",
    "KfpAmbiguousError",
    "KfpClient",
    "KfpError",
    "KfpExperimentMissingError",
    "KfpRateLimitedError",
    "KfpRun",
    "KfpRunState",
    "KfpServerError",
    "KfpSettings",
    "KfpSettingsError",
    "KfpTask",
    "KfpUnauthorizedError",
    "KfpUnreachableError",
    "RunRejectedError",
    "RunRequest",
    "StateChange",
    "UnreachableKind",
]
