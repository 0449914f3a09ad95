"""Every metric, told once, so that tests see every name and every label."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from perseid_operator.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def tell_everything(metrics: Metrics) -> None:
    metrics.reconciled("acted", 0.2)
    metrics.failed("KfpServerError")
    metrics.kfp_request("get_run", "404", 0.3)
    metrics.poll_round(1234.5)
    metrics.status_write("conflict")
    metrics.loop_lag(0.7)
    metrics.leader(True)
    metrics.submission("adopted")
    metrics.generation_ended("team", "Promoted")
    metrics.stage_ended("finetune", "Succeeded", 100.0)
    metrics.queue_wait(45.0)
    metrics.gpu_seconds("team", "finetune", 400.0)
    metrics.phases({("team", "Running"): 3})
    metrics.oldest_progress({"team": 999.0})
    metrics.stalled({"team": 2})


def samples(metrics: Metrics) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
    }
