from __future__ import annotations

import json
from typing import Any

import pytest

from perseid.api.spec import EvolutionRunSpec


@pytest.fixture(scope="session")
def pipeline() -> str:
    """A really compiled template, as the compiling process answers it."""
    return compiled({})


@pytest.fixture(scope="session")
def meteor_pipeline() -> str:
    """The same of a run of METEOR alone."""
    return compiled({"methods": ["meteor"]})


def compiled(spec: dict[str, Any]) -> str:
    from perseid.pipelines.generation import compile_template  # takes a second to import

    compiled, platform = compile_template(EvolutionRunSpec.model_validate(spec).template)
    return json.dumps({"pipeline": compiled, "platform": platform}, sort_keys=True, separators=(",", ":"))
