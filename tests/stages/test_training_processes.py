"""How many processes a stage trains with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from perseid.api.spec import EvolutionRunSpec
from perseid.stages.training import training_processes


@pytest.mark.parametrize(
    ("asked", "found", "said", "processes"),
    [
        (8, 8, None, 8),
        (8, 2, None, 2),  # a laptop, which pays no heed to what a pod would get
        (1, 8, None, 1),
        (0, 8, None, 1),
        (8, 0, None, 1),
        (0, 0, 2, 2),
        (8, 8, 1, 1),
    ],
)
def test_there_is_a_process_for_each_gpu_that_is_asked_for_and_there_unless_the_spec_says_how_many(
    monkeypatch: pytest.MonkeyPatch, asked: int, found: int, said: int | None, processes: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    finetune = {} if said is None else {"processes": said}
    spec = EvolutionRunSpec.model_validate(
        {"pipeline": {"stages": {"finetune": {"gpus": asked}, "selfAssessment": {"gpus": 64}}}, "finetune": finetune}
    )
    context: Any = SimpleNamespace(spec=spec, stage="finetune")
    assert training_processes(context) == processes
