from __future__ import annotations

import json

import pytest

from perseid.api.pipeline import PipelineSpec


@pytest.fixture(scope="session")
def pipeline() -> str:
    """A really compiled template, as the compiling process answers it."""
    from perseid.pipelines.generation import compile_template  # takes a second to import

    compiled, platform = compile_template(PipelineSpec())
    return json.dumps({"pipeline": compiled, "platform": platform}, sort_keys=True, separators=(",", ":"))
