from __future__ import annotations

import logging
import re
from typing import get_args

import pytest
from ops_all_metrics import samples, tell_everything
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from perseid.api.reasons import GenerationPhase, Phase
from perseid.api.stages import StageName
from perseid_operator.kfp.errors import UnreachableKind
from perseid_operator.metrics import Metrics, ReconcileResult, StatusWriteResult, SubmissionResult

ODD = 'odd "value"\n{}'


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry(), now=lambda: 1000.0)


def test_everything_that_is_told_is_shown(metrics: Metrics) -> None:
    tell_everything(metrics)
    told = {
        ("perseid_operator_reconcile_total", "result", "acted"): 1,
        ("perseid_operator_errors_total", "class", "KfpServerError"): 1,
        ("perseid_operator_status_writes_total", "result", "conflict"): 1,
        ("perseid_submissions_total", "result", "adopted"): 1,
        ("perseid_oldest_progress_timestamp_seconds", "namespace", "team"): 999,
        ("perseid_operator_kfp_request_duration_seconds_sum", "operation", "get_run"): 0.3,
    }
    for (name, label, its), expected in told.items():
        assert value(metrics, name, **{label: its}) == expected, name
    assert value(metrics, "perseid_operator_kfp_requests_total", operation="get_run", code="404") == 1
    assert value(metrics, "perseid_operator_reconcile_duration_seconds_sum") == 0.2
    assert value(metrics, "perseid_operator_kfp_last_poll_timestamp_seconds") == 1234.5
    assert value(metrics, "perseid_operator_event_loop_lag_seconds_bucket", le="1.0") == 1
    assert value(metrics, "perseid_operator_event_loop_lag_seconds_bucket", le="0.5") == 0
    assert value(metrics, "perseid_operator_leader") == 1
    assert value(metrics, "perseid_generations_total", namespace="team", result="Promoted") == 1
    assert value(metrics, "perseid_stage_duration_seconds_sum", stage="finetune", result="Succeeded") == 100
    assert value(metrics, "perseid_queue_wait_seconds_count") == 1
    assert value(metrics, "perseid_gpu_seconds_total", namespace="team", stage="finetune") == 400
    assert value(metrics, "perseid_evolutionruns", namespace="team", phase="Running") == 3
    build = [dict(labels) for name, labels in samples(metrics) if name == "perseid_operator_build_info"]
    assert len(build) == 1
    assert set(build[0]) == {"version", "python"}


def test_what_an_alert_counts_is_there_before_it_happens(metrics: Metrics) -> None:
    for result in get_args(SubmissionResult):
        assert value(metrics, "perseid_submissions_total", result=result) == 0
    for result in get_args(ReconcileResult):
        assert value(metrics, "perseid_operator_reconcile_total", result=result) == 0
    for result in get_args(StatusWriteResult):
        assert value(metrics, "perseid_operator_status_writes_total", result=result) == 0
    assert value(metrics, "perseid_operator_kfp_last_poll_timestamp_seconds") == 1000.0
    assert value(metrics, "perseid_operator_leader") == 0


def test_phases_are_replaced_as_a_whole(metrics: Metrics) -> None:
    metrics.phases({("a", "Running"): 2, ("b", "Failed"): 1})
    metrics.phases({("a", "Completed"): 2})
    shown = {labels: number for (name, labels), number in samples(metrics).items() if name == "perseid_evolutionruns"}
    assert shown == {(("namespace", "a"), ("phase", "Completed")): 2}


def test_progress_is_replaced_as_a_whole(metrics: Metrics) -> None:
    metrics.oldest_progress({"a": 1.0, "b": 2.0})
    metrics.oldest_progress({"b": 3.0})
    assert value(metrics, "perseid_oldest_progress_timestamp_seconds", namespace="a") is None
    assert value(metrics, "perseid_oldest_progress_timestamp_seconds", namespace="b") == 3.0
    metrics.stalled({"a": 1, "b": 2})
    metrics.stalled({"b": 0})
    assert value(metrics, "perseid_evolutionruns_stalled", namespace="a") is None
    assert value(metrics, "perseid_evolutionruns_stalled", namespace="b") == 0


def test_a_label_outside_its_closed_set_counts_as_other_and_the_log_says_so_once(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            metrics.submission(ODD)
    assert value(metrics, "perseid_submissions_total", result="other") == 3
    assert len(caplog.records) == 1


def test_every_word_of_the_contract_is_known_as_a_label(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        for phase in Phase:
            metrics.phases({("a", phase): 1})
        for ended in GenerationPhase:
            if ended is not GenerationPhase.RUNNING:
                metrics.generation_ended("a", ended)
        for stage in get_args(StageName):
            metrics.gpu_seconds("a", stage, 1)
        for kind in [*UnreachableKind, "cancelled", "200", "404", "503"]:
            metrics.kfp_request("check", kind, 1)
    assert not caplog.records


def test_a_thousand_objects_and_odd_words_make_no_more_series_than_a_few(metrics: Metrics) -> None:
    def tell(word: str) -> None:
        metrics.reconciled(word, 1)
        metrics.failed(word)
        metrics.kfp_request(word, word, 1)
        metrics.status_write(word)
        metrics.submission(word)
        metrics.generation_ended(word, word)
        metrics.stage_ended(word, word, 1)
        metrics.gpu_seconds(word, word, 1)

    for number in range(2000):
        tell(f"{ODD}{number}")
    metrics.phases({(f"namespace-{number}", "Running"): 1 for number in range(2000)})
    metrics.oldest_progress({f"namespace-{number}": float(number) for number in range(2000)})
    kept = samples(metrics)
    # 500 namespaces in two counters (and those alone: the gauges' came later), 32 operations with their buckets.
    assert len(kept) < 2200
    before = len(kept)
    tell("one more")
    assert len(samples(metrics)) == before
    assert value(metrics, "perseid_evolutionruns", namespace="other", phase="Running") == 2000
    assert value(metrics, "perseid_oldest_progress_timestamp_seconds", namespace="other") == 0


def test_no_label_names_an_object(metrics: Metrics) -> None:
    tell_everything(metrics)
    labels = {label for _, pairs in samples(metrics) for label, _ in pairs}
    assert labels == {
        "class",
        "code",
        "le",
        "namespace",
        "operation",
        "phase",
        "python",
        "result",
        "stage",
        "version",
    }


def test_names_carry_their_prefix_and_unit(metrics: Metrics) -> None:
    tell_everything(metrics)
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        assert re.match(r"perseid_(operator_)?[a-z]", family.name)
        assert family.documentation
        timed = family.type == "histogram" or "timestamp" in family.name or "_seconds" in family.name
        assert not timed or re.search(r"_seconds$", family.name), family.name


def test_a_registry_of_its_own_tells_the_process_memory_too() -> None:
    assert (value(Metrics(), "process_resident_memory_bytes") or 0) > 1e6


def test_times_that_went_backwards_do_not_break_a_counter(metrics: Metrics) -> None:
    metrics.gpu_seconds("a", "finetune", -5)
    metrics.stage_ended("finetune", "Failed", -5)
    metrics.queue_wait(-1)
    metrics.loop_lag(-1)
    assert value(metrics, "perseid_gpu_seconds_total", namespace="a", stage="finetune") == 0
