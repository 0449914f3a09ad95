"""The operator's metrics: the only room that knows their names, so that alerts and dashboards have one place to trust.

`perseid_operator_` is about the process, `perseid_` about runs. Labels come from closed sets or are bounded by a limit,
and no label names an object: a thousand EvolutionRuns make no more series than one.
"""

from __future__ import annotations

import platform
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from perseid.api.reasons import GenerationPhase, Phase, StageState
from perseid.api.stages import StageName
from perseid_operator.labels import Closed, Limited

ReconcileResult = Literal["unchanged", "written", "acted", "conflict", "failed"]
"""What a pass came to: nothing to do; a status written; an action carried out; somebody else was faster; an error."""
StatusWriteResult = Literal["written", "conflict", "skipped", "failed"]
SubmissionResult = Literal["created", "adopted", "ambiguous", "rejected"]

_ENDS = tuple(phase.value for phase in GenerationPhase if phase is not GenerationPhase.RUNNING)
_STAGE_ENDS = (StageState.SUCCEEDED.value, StageState.FAILED.value)
_KFP_FAILURES = ("dns", "refused", "tls", "connect-timeout", "timeout", "reset", "cancelled")

_PASS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_REQUEST_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_WORK_BUCKETS = (10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0, 259200.0)


class Metrics:
    """Counts what happens. The methods never raise for a label that they do not know: it counts as `other`."""

    def __init__(self, registry: CollectorRegistry | None = None, now: Callable[[], float] = time.time) -> None:
        """A registry of its own by default, with the process' memory, CPU time and open files. `now` gives seconds
        since the epoch."""
        # The times of creation would double the series, and nothing here asks for them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
        self.registry = registry

        self._reconciles = Counter(
            "perseid_operator_reconcile", "Passes over an EvolutionRun", ["result"], registry=registry
        )
        self._reconcile_seconds = Histogram(
            "perseid_operator_reconcile_duration_seconds",
            "One pass over an EvolutionRun",
            buckets=_PASS_BUCKETS,
            registry=registry,
        )
        self._errors = Counter("perseid_operator_errors", "Errors by their class", ["class"], registry=registry)
        self._kfp_requests = Counter(
            "perseid_operator_kfp_requests",
            "Requests to Kubeflow Pipelines by HTTP status or kind of failure",
            ["operation", "code"],
            registry=registry,
        )
        self._kfp_seconds = Histogram(
            "perseid_operator_kfp_request_duration_seconds",
            "One request to Kubeflow Pipelines",
            ["operation"],
            buckets=_REQUEST_BUCKETS,
            registry=registry,
        )
        self._last_poll = Gauge(
            "perseid_operator_kfp_last_poll_timestamp_seconds",
            "When the last look at all runs ended, whether KFP answered or not; at first, when the process started",
            registry=registry,
        )
        self._status_writes = Counter(
            "perseid_operator_status_writes", "Statuses that were to be written", ["result"], registry=registry
        )
        self._loop_lag = Histogram(
            "perseid_operator_event_loop_lag_seconds",
            "How much later than asked the event loop came back",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self._leader = Gauge(
            "perseid_operator_leader", "1 where this process acts, 0 where it waits for the Lease", registry=registry
        )
        self._build = Gauge(
            "perseid_operator_build_info",
            "Always 1; the labels say what runs",
            ["version", "python"],
            registry=registry,
        )
        self._runs = Gauge("perseid_evolutionruns", "EvolutionRuns", ["namespace", "phase"], registry=registry)
        self._oldest_progress = Gauge(
            "perseid_oldest_progress_timestamp_seconds",
            "When the running EvolutionRun that stands still for longest last got any further",
            ["namespace"],
            registry=registry,
        )
        self._stalled = Gauge(
            "perseid_evolutionruns_stalled",
            "EvolutionRuns in which nothing has changed for longer than what they do may take",
            ["namespace"],
            registry=registry,
        )
        self._submissions = Counter(
            "perseid_submissions", "Submissions of pipeline runs by their outcome", ["result"], registry=registry
        )
        self._generations = Counter(
            "perseid_generations", "Generations that ended", ["namespace", "result"], registry=registry
        )
        self._stage_seconds = Histogram(
            "perseid_stage_duration_seconds",
            "A stage from its start to its end, the waiting of its pods included",
            ["stage", "result"],
            buckets=_WORK_BUCKETS,
            registry=registry,
        )
        self._queue_wait = Histogram(
            "perseid_queue_wait_seconds",
            "From a run's submission to its first running pod",
            buckets=_WORK_BUCKETS,
            registry=registry,
        )
        self._gpu_seconds = Counter(
            "perseid_gpu_seconds",
            "GPU time used as status.usage counts it, in seconds of one GPU",
            ["namespace", "stage"],
            registry=registry,
        )

        self._reconcile_result = Closed(get_args(ReconcileResult))
        self._status_result = Closed(get_args(StatusWriteResult))
        self._submission_result = Closed(get_args(SubmissionResult))
        self._generation_result = Closed(_ENDS)
        self._stage = Closed(get_args(StageName))
        self._stage_result = Closed(_STAGE_ENDS)
        self._phase = Closed(tuple(phase.value for phase in Phase))
        self._code = Closed((*_KFP_FAILURES, *(str(code) for code in range(100, 600))))
        self._operation = Limited(32)
        self._error_class = Limited(64)
        self._namespace = Limited(500)
        self._begin(now())

    def _begin(self, now: float) -> None:
        # A counter that appears with its first event has no increase in Prometheus' eyes: alerts need the zero before.
        for counter, results in (
            (self._reconciles, get_args(ReconcileResult)),
            (self._status_writes, get_args(StatusWriteResult)),
            (self._submissions, get_args(SubmissionResult)),
        ):
            for result in results:
                counter.labels(result)
        self._last_poll.set(now)
        self._build.labels(version("perseid"), platform.python_version()).set(1)

    def reconciled(self, result: str, seconds: float) -> None:
        """A pass over an EvolutionRun ended. `result` is one of ReconcileResult."""
        self._reconciles.labels(self._reconcile_result(result)).inc()
        self._reconcile_seconds.observe(seconds)

    def failed(self, error_class: str) -> None:
        """Something raised; `error_class` is the exception's class name."""
        self._errors.labels(self._error_class(error_class)).inc()

    def kfp_request(self, operation: str, code: str, seconds: float) -> None:
        """KFP answered with an HTTP status, or did not answer. Fits KfpClient's `on_request`."""
        operation = self._operation(operation)
        self._kfp_requests.labels(operation, self._code(code)).inc()
        self._kfp_seconds.labels(operation).observe(seconds)

    def poll_round(self, seconds_since_epoch: float) -> None:
        """A look at all runs ended at that time, whether KFP answered or not."""
        self._last_poll.set(seconds_since_epoch)

    def status_write(self, result: str) -> None:
        """A status was to be written. `result` is one of StatusWriteResult."""
        self._status_writes.labels(self._status_result(result)).inc()

    def loop_lag(self, seconds: float) -> None:
        """The event loop came back that much later than asked."""
        self._loop_lag.observe(max(0.0, seconds))

    def leader(self, leads: bool) -> None:
        """Whether this process acts. Without leader election it always does, and must say so once."""
        self._leader.set(1 if leads else 0)

    def submission(self, result: str) -> None:
        """A submission's outcome became known. `result` is one of SubmissionResult."""
        self._submissions.labels(self._submission_result(result)).inc()

    def generation_ended(self, namespace: str, result: str) -> None:
        """A generation ended. `result` is a GenerationPhase but Running."""
        self._generations.labels(self._namespace(namespace), self._generation_result(result)).inc()

    def stage_ended(self, stage: str, result: str, seconds: float) -> None:
        """A stage ended after that time. `result` is Succeeded or Failed."""
        self._stage_seconds.labels(self._stage(stage), self._stage_result(result)).observe(max(0.0, seconds))

    def queue_wait(self, seconds: float) -> None:
        """A run's first pod ran that long after the submission."""
        self._queue_wait.observe(max(0.0, seconds))

    def gpu_seconds(self, namespace: str, stage: str, seconds: float) -> None:
        """A stage used more GPU time: seconds times GPUs."""
        self._gpu_seconds.labels(self._namespace(namespace), self._stage(stage)).inc(max(0.0, seconds))

    def phases(self, counts: Mapping[tuple[str, str], int]) -> None:
        """How many EvolutionRuns there are, by (namespace, phase). Replaces all that was said before."""
        tally: Tally[tuple[str, str]] = Tally()
        for (namespace, phase), count in counts.items():
            tally[self._namespace(namespace), self._phase(phase)] += count
        self._runs.clear()
        for labels, count in tally.items():
            self._runs.labels(*labels).set(count)

    def oldest_progress(self, moments: Mapping[str, float]) -> None:
        """By namespace, when (seconds since the epoch) the running EvolutionRun that stands still for longest last got
        any further. Runs that wait for a person or for a place in a queue are left out. Replaces all that was said
        before."""
        oldest: dict[str, float] = {}
        for namespace, moment in moments.items():
            label = self._namespace(namespace)
            oldest[label] = min(moment, oldest.get(label, moment))
        self._oldest_progress.clear()
        for label, moment in oldest.items():
            self._oldest_progress.labels(label).set(moment)

    def stalled(self, counts: Mapping[str, int]) -> None:
        """By namespace, how many EvolutionRuns stand still for too long. Replaces all that was said before."""
        tally: Tally[str] = Tally()
        for namespace, count in counts.items():
            tally[self._namespace(namespace)] += count
        self._stalled.clear()
        for label, count in tally.items():
            self._stalled.labels(label).set(count)

    def render(self) -> tuple[bytes, str]:
        """All metrics as Prometheus reads them, and the content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
