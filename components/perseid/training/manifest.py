"""What a trained model was made of: a small file beside the weights, readable without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from perseid.api.meteor import SelfEvolutionSpec
from perseid.api.training import FinetuneSpec
from perseid.data.records import Dropped, Record
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
    """Mean loss of the steps since the point before: nats per answer token, or the value of the manifest's
    `preference.objective`."""


class TrainingMetrics(_Part):
    """What the training did."""

    steps: int
    samples: int
    """Samples, or pairs, that were learned from (once, whatever the epochs)."""
    tokens: int
    """Tokens seen over all epochs, prompts included, padding not."""
    seconds: float
    """Time in optimizer steps, over all resumptions."""
    tokens_per_second: float
    first_loss: float
    """Mean loss of the first tenth of the steps, as the curve's."""
    final_loss: float
    """Mean loss of the last tenth of the steps."""
    curve: tuple[CurvePoint, ...]
    trained_parameters: int
    layout: Literal["packed", "single", "padded"]
    """How samples were laid out in forward passes; the gradient is the same in each."""
    device: str


class PairObjective(_Part):
    """Loss of a pair, with those settings alone that its value depends on."""

    type: Literal["dpo", "ipo", "contrastive"]
    beta: float | None
    """Of `dpo` and `ipo`."""
    margin: float | None
    """Of `contrastive`, in nats per token."""
    supervised_weight: float
    """Weight of the negative log-likelihood per token of the chosen answers."""


class PairMeasures(_Part):
    """What a model makes of the training pairs. Log-probabilities are means over an answer's tokens, in nats."""

    accuracy: float
    """Share of the pairs whose chosen answer has the higher log-probability per token."""
    margin: float
    """Mean over pairs of the chosen answer's log-probability less the rejected one's."""
    chosen: float
    """Mean log-probability of the chosen answers. Preference losses can rise while this falls."""
    rejected: float
    """Mean log-probability of the rejected answers."""


class PreferenceMetrics(_Part):
    """What learning from pairs changed, measured on the training pairs themselves."""

    objective: PairObjective
    pairs: int
    """Pairs that were learned from."""
    before: PairMeasures
    after: PairMeasures
    """Of the trained weights before adapters are merged and the result is rounded to its dtype."""
    raised: float
    """Share of the pairs whose margin grew."""


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
    """`data_digest` of the training samples or pairs."""
    config_digest: str
    """`config_digest` of spec, seed and dtype, and of the pair objective where there is one."""
    spec: FinetuneSpec
    """As it was used: with the learning rate of the preference stage, where that trained."""
    seed: int
    dtype: TrainingDType
    metrics: TrainingMetrics
    preference: PreferenceMetrics | None = None
    """None where answers were learned, and not preferences."""
    dropped: tuple[Dropped, ...]
    """Samples or pairs that were not learned from; metrics.samples + len(dropped) = those given."""
    perseid_version: str
    libraries: dict[str, str]
    """Versions of the libraries that trained it."""


def pair_objective(spec: SelfEvolutionSpec) -> PairObjective:
    """The spec's part that trained weights depend on, beside the learning rate."""
    hinge = spec.objective == "contrastive"
    return PairObjective(
        type=spec.objective,
        beta=None if hinge else spec.beta,
        margin=spec.margin if hinge else None,
        supervised_weight=spec.supervised_weight,
    )


def data_digest(samples: Iterable[Record]) -> str:
    """sha256 of the samples or pairs as a JSONL file: each record's JSON in field order and a line feed."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.model_dump_json().encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def config_digest(spec: FinetuneSpec, seed: int, dtype: TrainingDType, objective: PairObjective | None = None) -> str:
    """sha256 of everything but data and base that the trained weights depend on."""
    text = f"{spec.model_dump_json()}\n{seed}\n{dtype}"
    if objective is not None:
        text += f"\n{objective.model_dump_json()}"
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
