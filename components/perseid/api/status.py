"""The status of an EvolutionRun: all that survives a restart of whoever drives it, bounded in size."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from perseid.api.base import Fraction, RecordedModel, Text, Timestamp
from perseid.api.reasons import AttemptState, ConditionStatus, ConditionType, GenerationPhase, Phase, Reason, StageState
from perseid.api.result import Count, Difference, Message, ModelRef, PaidUsage, RunId, Seconds, Uri
from perseid.api.stages import StageName

MAX_GENERATIONS_INLINE = 10
"""Newest generations that are kept in the status; older ones are in their own result files. With every text in it as
long as it may be, a status has 66 kB then, and a tenth of that in ordinary runs."""
MAX_GENERATIONS_READ = 20
"""As many as any version has ever written."""
MAX_ATTEMPTS_INLINE = 5
"""Newest attempts of the newest generation in the status. Of older generations the last attempt stays."""
MAX_STOPPING = 8
NOTE_LIMIT = 512

Note = Annotated[str, Field(max_length=NOTE_LIMIT)]
"""A message of which a status holds many."""


class Condition(RecordedModel):
    """A fact about the run, in Kubernetes' form."""

    type: ConditionType
    status: ConditionStatus
    reason: Reason
    message: Message = ""
    """For people: what is the matter and what to do."""
    last_transition_time: Timestamp
    """When `status` last changed."""
    observed_generation: Count = 0
    """`metadata.generation` that the condition speaks of."""


class AttemptStatus(RecordedModel):
    """One try at a generation."""

    number: Count
    run_id: RunId
    state: AttemptState
    submitted_at: Timestamp
    """When it was last decided to submit it, before anything was asked of the backend."""
    finished_at: Timestamp | None = None
    url: Uri | None = None
    """The run's page in the Kubeflow UI, once the attempt is over."""
    reason: Reason | None = None
    """Why it failed; what it waits for while it is under way."""
    message: Note = ""
    charged: bool = False
    """Whether the failure counts towards `spec.generations.maxAttempts`."""


class ResultSummary(RecordedModel):
    """What a generation was worth; the whole of it is in its `result.json`."""

    run_id: RunId
    """The attempt that the result comes from."""
    dev_candidate: Fraction | None = None
    """pass@1 of the generation's model on dev."""
    dev_parent: Fraction | None = None
    """pass@1 of its start model on dev."""
    gain: Difference | None = None
    gain_low: Difference | None = None
    gain_high: Difference | None = None
    samples_kept: Count
    samples_total: Count
    message: Note = ""
    """Why it was promoted, rejected or skipped."""


class GenerationStatus(RecordedModel):
    """One pass of data synthesis, training and evaluation."""

    index: Count
    phase: GenerationPhase
    start_model: ModelRef
    candidate: ModelRef | None = None
    result: ResultSummary | None = None
    attempts: Annotated[list[AttemptStatus], Field(max_length=MAX_ATTEMPTS_INLINE)] = []
    """The newest, in their order."""
    charged_attempts: Count = 0
    """Failed attempts that count towards `spec.generations.maxAttempts`."""
    infrastructure_faults: Count = 0
    """Attempts in a row that ended through no fault of the run's."""
    paid: PaidUsage = PaidUsage()
    """What its mentors and judges have cost, failed attempts included, as far as `status.usage` has it."""
    started_at: Timestamp
    finished_at: Timestamp | None = None


class Intent(RecordedModel):
    """The run that is to exist now. Written before it is asked for, so that a crash in between loses nothing."""

    generation: Count
    attempt: Count
    run_id: RunId
    intent_time: Timestamp
    url: Uri | None = None
    """The run's page in the Kubeflow UI."""
    stages: Annotated[dict[StageName, StageState], Field(max_length=16)] = {}
    """State of each stage that has begun."""
    changed_at: Timestamp | None = None
    """When its state, its stages or what it waits for was last seen to change; None before anything was seen."""
    gpu_seconds: Seconds = 0.0
    """What it has used so far, to the minute."""
    gpu_seconds_waited: Seconds = 0.0
    """What its pods have waited for a queue, a node or an image, as far as anybody saw it: that is not used."""


class Snapshot(RecordedModel):
    """What the run was resolved to when it was accepted; every attempt is submitted from it."""

    config_map: Annotated[str, Field(max_length=253)]
    """Name of the owned ConfigMap with the compiled pipeline."""
    pipeline_digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
    perseid_version: Annotated[str, Field(max_length=64)]
    image: Text | None = None
    """Image of the stages, named by the spec or by the operator's defaults."""


class UsageTotals(RecordedModel):
    """What ended attempts have used."""

    gpu_seconds: Seconds = 0.0
    """GPUs times seconds."""
    cost: Annotated[float, Field(ge=0.0)] = 0.0
    """Of paid mentors and judges, in the currency of their price table."""
    mentor_tokens: Count = 0
    """Of paid mentors and judges, prompts and answers."""


class Columns(RecordedModel):
    """Texts that `kubectl get` shows."""

    generation: Annotated[str, Field(max_length=32)] = ""
    """Generations that are done, of how many at most: `2/5`."""
    score: Annotated[str, Field(max_length=32)] = ""
    """pass@1 on dev of the newest generation's model."""
    best: Annotated[str, Field(max_length=32)] = ""
    """pass@1 on dev of the best model."""
    gpu_hours: Annotated[str, Field(max_length=32)] = ""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why the phase is what it is."""
    run: Annotated[str, Field(max_length=36)] = ""
    """Id of the newest attempt's pipeline run."""
    link: Annotated[str, Field(max_length=1024)] = ""
    """Page of that run in the Kubeflow UI."""


class EvolutionRunStatus(RecordedModel):
    """What is known about a run. Whoever drives it writes the status first and acts after."""

    uid: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", max_length=36)]
    """Identity of this lineage of runs: the object's UID in a cluster, drawn once for a run directory."""
    observed_generation: Count = 0
    """`metadata.generation` of the spec that was last decided on."""
    phase: Phase = Phase.PENDING
    conditions: Annotated[list[Condition], Field(max_length=16)] = []
    generations: Annotated[list[GenerationStatus], Field(max_length=MAX_GENERATIONS_READ)] = []
    """The newest, in their order."""
    current: Intent | None = None
    """The attempt that is under way; None between attempts and at the end."""
    stopping: Annotated[list[RunId], Field(max_length=MAX_STOPPING)] = []
    """Runs that were given up and have not been seen to end. They are stopped, and nothing is submitted before."""
    promoted: ModelRef | None = None
    """The best model so far: what the next generation starts from."""
    promoted_score: Fraction | None = None
    """pass@1 of the promoted model on dev, where it has been measured."""
    patience_used: Count = 0
    """Generations in a row without promotion."""
    spec_digest: Text | None = None
    """Digest of the spec that the run was accepted with."""
    snapshot: Snapshot | None = None
    """The compiled pipeline; None on a laptop, which compiles for itself."""
    usage: UsageTotals = UsageTotals()
    """What ended attempts have used."""
    suspended_at: Timestamp | None = None
    """Since when the run is suspended; None while it is not."""
    suspended_seconds: Count = 0
    """Earlier pauses together: deadlines do not count them."""
    columns: Columns = Columns()
    """Texts that `kubectl get` shows."""
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None

    def condition(self, type_: ConditionType) -> Condition | None:
        """The condition of that type."""
        return next((condition for condition in self.conditions if condition.type is type_), None)

    @property
    def generation(self) -> GenerationStatus | None:
        """The newest generation."""
        return self.generations[-1] if self.generations else None

    @property
    def url(self) -> str | None:
        """Page of the newest attempt's run in the Kubeflow UI, whether it is under way or over."""
        if self.current is not None:
            return self.current.url
        attempts = self.generation.attempts if self.generation is not None else []
        return attempts[-1].url if attempts else None

    @property
    def best_model_message(self) -> str:
        """Which model is the best so far, in words."""
        if self.promoted is None:
            return "No model yet."
        name = "the base model" if self.promoted.is_base else f"the model of generation {self.promoted.generation}"
        score = "" if self.promoted_score is None else f" (pass@1 on dev {self.promoted_score:.3f})"
        return f"Best so far: {name}{score}, {self.promoted.uri}."
