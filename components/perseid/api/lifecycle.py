"""How many generations, what promotes one, and what holds, bounds, retries or ends a run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from perseid.api.base import ApiModel, Text
from perseid.api.stages import StageName

Seconds = Annotated[int, Field(ge=1, le=315_360_000)]
"""Up to ten years."""


class PromotionSpec(ApiModel):
    """When a generation's model becomes the next one's start."""

    rule: Literal["interval", "improvement"] = "interval"
    """`interval`: the paired interval of the gain on dev is above minImprovement. `improvement`: the gain itself is."""
    min_improvement: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.0
    """Gain in pass@1 on dev, as a fraction: 0.01 is one point."""


class GenerationsSpec(ApiModel):
    """How many generations, and when to stop."""

    max: Annotated[int, Field(ge=1, le=1000)] = 1
    """Generations at most."""
    patience: Annotated[int, Field(ge=1, le=1000)] = 1
    """Generations in a row without promotion after which the run has converged and stops."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Tries at one generation before the run fails. Faults of the infrastructure do not count."""
    approval: Literal["automatic", "manual"] = "automatic"
    """`manual`: every generation but the first waits until somebody approves it, with `perseid approve` or the
    annotation `perseid.dev/approved-generation` that names it (counted from 0)."""
    promotion: PromotionSpec = PromotionSpec()
    """When a generation's model becomes the next one's start."""


class BudgetSpec(ApiModel):
    """What a run may use. Reaching it ends the run; its best model stays."""

    gpu_hours: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """GPUs times hours, over all generations and attempts, without what pods are seen to wait. Default: no limit."""
    mentor_cost: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Cost of paid mentors and judges, in the currency of their price table. No call is made that could exceed it.
    Default: no limit."""
    mentor_tokens: Annotated[int, Field(ge=1, le=10**15)] | None = None
    """Tokens of paid mentors and judges, prompts and answers. No call is made that could exceed it. Default: no
    limit."""


FailureReason = Literal[
    "RunFailed",
    "OutOfMemory",
    "DeadlineExceeded",
    "ImagePullFailed",
    "ResultMissing",
    "ResultInvalid",
    "StartDeadlineExceeded",
    "InfrastructureFault",
    "Preempted",
    "NodeLost",
    "RunLost",
]


class FailureRule(ApiModel):
    """What follows from some failures of an attempt."""

    reasons: Annotated[list[FailureReason], Field(max_length=16)] = []
    """Why the attempt failed. Empty: whatever the reason."""
    stages: Annotated[list[StageName], Field(max_length=8)] = []
    """Which stage failed. Empty: whichever; a failure of no certain stage matches then only."""
    action: Literal["fail", "count", "ignore"]
    """`fail`: the run fails at once. `count`: try again and count the attempt. `ignore`: try again without counting."""


class FailurePolicySpec(ApiModel):
    """Which failures are tried again, and which of them count towards `generations.maxAttempts`."""

    rules: Annotated[list[FailureRule], Field(max_length=16)] = []
    """The first rule that matches decides. Where none does, InfrastructureFault, Preempted, NodeLost and RunLost are
    ignored and everything else counts."""


class LifecycleSpec(ApiModel):
    """What holds, bounds and ends a run: the part of the spec that is about the run and not about the model."""

    suspend: bool = False
    """Submit nothing more. What becomes of a generation that is under way says suspendPolicy."""
    suspend_policy: Literal["drain", "terminate"] = "drain"
    """`drain`: the generation that is under way may finish. `terminate`: it is stopped, and tried again after the
    pause; its finished stages are kept."""
    start_deadline_seconds: Seconds | None = None
    """How long an attempt may wait for its first pod to run before it fails with StartDeadlineExceeded."""
    active_deadline_seconds: Seconds | None = None
    """How long the run may take, pauses not counted, before it fails with DeadlineExceeded."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """When a finished EvolutionRun is deleted. What becomes of its files says reclaimPolicy. Default: never."""
    budget: BudgetSpec = BudgetSpec()
    """What the run may use."""
    failure_policy: FailurePolicySpec = FailurePolicySpec()
    """Which failures are tried again."""
    delete_policy: Literal["terminate", "orphan"] = "terminate"
    """What becomes of a pipeline run that is alive when the EvolutionRun is deleted."""
    reclaim_policy: Literal["retain", "delete"] = "retain"
    """What becomes of the run's files in a cluster, models included, when the EvolutionRun is deleted, by hand or
    because its time to live is over. `delete`: they are gone before the object is. A laptop keeps them."""
    retain_models: Literal["all", "promoted"] = "all"
    """Which generations' weights are kept. `promoted`: when a generation has been scored, those of earlier ones are
    deleted but for the model that it started from, and so are those of its own earlier attempts."""
    managed_by: Text | None = None
    """Who carries the run through. With any value but `perseid.dev/operator`, Perseid's operator leaves it alone."""

    @model_validator(mode="after")
    def _no_run_outlives_its_files(self) -> Self:
        if self.delete_policy == "orphan" and self.reclaim_policy == "delete":
            raise ValueError(
                "deletePolicy orphan lets a pipeline run go on whose files reclaimPolicy delete deletes; set one of"
                " them to its default"
            )
        return self
