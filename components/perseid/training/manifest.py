"""What a trained model was made of: a small file beside the weights, readable without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from perseid.api.training import FinetuneSpec
from perseid.data.records import Dropped, TrainingSample
from perseid.training.errors import TrainingError

MANIFEST_NAME = "perseid-model.json"
CURVE_POINTS = 200
"""Points of the loss curve that a manifest holds at most."""

TrainingDType = Literal["float32", "bfloat16"]

_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CurvePoint(_Part):
    """A point of the loss curve."""

    step: int
    """Last step of the mean, from 1."""
    loss: float
    """Mean loss of the steps since the point before, in nats per answer token."""


class TrainingMetrics(_Part):
    """What the training did."""

    steps: int
    samples: int
    """Samples that were learned from (once, whatever the epochs)."""
    tokens: int
    """Tokens seen over all epochs, prompts included, padding not."""
    seconds: float
    """Time in optimizer steps, over all resumptions."""
    tokens_per_second: float
    first_loss: float
    """Mean loss of the first tenth of the steps, in nats per answer token."""
    final_loss: float
    """Mean loss of the last tenth of the steps."""
    curve: tuple[CurvePoint, ...]
    trained_parameters: int
    layout: Literal["packed", "single", "padded"]
    """How samples were laid out in forward passes; the gradient is the same in each."""
    device: str


class ModelManifest(_Part):
    """Origin and identity of a fine-tuned model."""

    schema_version: Literal[1] = 1
    model_id: str
    """Identity of these weights: `engines.identity.content_id` of the directory."""
    base_model_id: str
    """Identity of the weights that training began with."""
    base_ref: str
    """What the base was called by whoever asked."""
    data_digest: str
    """`data_digest` of the training samples."""
    config_digest: str
    """`config_digest` of spec, seed and dtype."""
    spec: FinetuneSpec
    seed: int
    dtype: TrainingDType
    metrics: TrainingMetrics
    dropped: tuple[Dropped, ...]
    """Samples that were not learned from; metrics.samples + len(dropped) = samples given."""
    perseid_version: str
    libraries: dict[str, str]
    """Versions of the libraries that trained it."""


def data_digest(samples: Iterable[TrainingSample]) -> str:
    """sha256 of the samples as a JSONL file: each record's JSON in field order and a line feed."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.model_dump_json().encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def config_digest(spec: FinetuneSpec, seed: int, dtype: TrainingDType) -> str:
    """sha256 of everything but data and base that the trained weights depend on."""
    text = f"{spec.model_dump_json()}\n{seed}\n{dtype}"
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def read_manifest(directory: Path) -> ModelManifest | None:
    """The manifest in a model directory; None where there is none. Raises TrainingError for one that is broken."""
    path = directory / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        return ModelManifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TrainingError(f"{path} is not a manifest that this version of Perseid understands: {error}") from error


def library_versions() -> dict[str, str]:
    """Versions of what the weights can depend on."""
    return {name: version(name) for name in _LIBRARIES}


def summarise_losses(losses: Sequence[float]) -> tuple[float, float, tuple[CurvePoint, ...]]:
    """First loss, final loss (means of a tenth of the steps each) and the curve in at most CURVE_POINTS points."""
    tenth = max(1, len(losses) // 10)
    points = min(CURVE_POINTS, len(losses))
    curve: list[CurvePoint] = []
    for point in range(points):
        start, stop = point * len(losses) // points, (point + 1) * len(losses) // points
        curve.append(CurvePoint(step=stop, loss=_mean(losses[start:stop])))
    return _mean(losses[:tenth]), _mean(losses[-tenth:]), tuple(curve)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
