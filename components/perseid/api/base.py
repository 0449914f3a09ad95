"""What every model of the contract shares: camelCase outside, snake_case inside, unknown fields refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

API_VERSION = "perseid.dev/v1alpha1"
KIND = "EvolutionRun"

Text = Annotated[str, Field(min_length=1, max_length=1024)]
"""A bounded, non-empty string: a CRD's schema must bound every string for the API server to cost its rules."""

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
