"""A model's manifest as training writes it, for tests that train nothing."""

from __future__ import annotations

from perseid.api.training import FinetuneSpec
from perseid.training.manifest import ModelManifest, TrainingMetrics

METRICS = TrainingMetrics(
    steps=1,
    samples=8,
    tokens=100,
    seconds=1.0,
    tokens_per_second=100.0,
    first_loss=2.0,
    final_loss=1.0,
    curve=(),
    trained_parameters=10,
    layout="packed",
    device="cpu",
)
MANIFEST = ModelManifest(
    model_id="c" * 64,
    base_model_id="b" * 64,
    base_ref="org/name",
    data_digest="sha256:" + "d" * 64,
    config_digest="sha256:" + "e" * 64,
    spec=FinetuneSpec(),
    seed=0,
    dtype="float32",
    metrics=METRICS,
    dropped=(),
    perseid_version="0",
    libraries={},
)
