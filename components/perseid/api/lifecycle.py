"""How many generations, what promotes one, and when a run stops."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from perseid.api.base import ApiModel


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
    """Generations in a row without promotion after which the run stops."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Tries at one generation before the run fails."""
    promotion: PromotionSpec = PromotionSpec()
    """When a generation's model becomes the next one's start."""
