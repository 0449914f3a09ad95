"""What every model of the contract shares: camelCase outside, snake_case inside, unknown fields refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

API_VERSION = "perseid.dev/v1alpha1"
KIND = "EvolutionRun"

Text = Annotated[str, Field(min_length=1, max_length=1024)]
"""A bounded, non-empty string: a CRD's schema must bound every string for the API server to cost its rules."""

APPROVED_GENERATION = "perseid.dev/approved-generation"
"""Annotation of an EvolutionRun: the newest generation that may start, where `generations.approval` is manual."""

RUN_NAME = r"^[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?$"
"""An EvolutionRun's name: short enough for the names that are made from it."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Temperature = Annotated[float, Field(ge=0.0, le=2.0)]


class ApiModel(BaseModel):
    """A part of the contract. Frozen, so that `decide` can share it; unknown fields are an error, not a silence."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


class RecordedModel(ApiModel):
    """A part of what programs write for programs: status and results. Unknown fields are skipped, not refused, so that
    an older reader survives a newer writer (a roll-back in the middle of a run)."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


def whole_seconds_utc(moment: datetime) -> datetime:
    """The moment as the contract stores it: UTC, without fractions of a second (as Kubernetes does)."""
    return moment.astimezone(UTC).replace(microsecond=0)


Timestamp = Annotated[AwareDatetime, AfterValidator(whole_seconds_utc)]
"""RFC 3339 in UTC, for example `2026-11-23T11:41:43Z`."""

M = TypeVar("M", bound=ApiModel)


def replace(model: M, **changes: object) -> M:
    """A copy with some fields changed, validated. Raises TypeError for a field that the model does not have."""
    fields = type(model).model_fields
    unknown = set(changes) - set(fields)
    if unknown:
        raise TypeError(f"{type(model).__name__} has no field {', '.join(sorted(unknown))}")
    return type(model)(**{**{name: getattr(model, name) for name in fields}, **changes})
