"""What vLLM is started with. Nothing of vLLM is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from perseid.api.engine import VllmSpec
from perseid.engines.vllm_settings import engine_arguments, set_process_environment

IN_PROCESS = "VLLM_ENABLE_V1_MULTIPROCESSING"


def arguments(**spec: Any) -> dict[str, Any]:
    return engine_arguments(
        Path("/model"),
        VllmSpec(**spec),
        dtype="bfloat16",
        block_size=None,
        max_model_len=4096,
        on_gpu=True,
        max_logprobs=1,
        trust_remote_code=False,
    )


def test_copies_of_the_model_and_the_gpus_of_each_are_told_to_vllm() -> None:
    told = arguments(tensor_parallel_size=4, data_parallel_size=2)
    assert (told["tensor_parallel_size"], told["data_parallel_size"]) == (4, 2)
    alone = arguments()
    assert (alone["tensor_parallel_size"], alone["data_parallel_size"]) == (1, 1)
    assert VllmSpec(tensor_parallel_size=4, data_parallel_size=2).gpus == 8


@pytest.mark.parametrize(
    ("on_gpu", "workers", "in_process"), [(False, 1, True), (False, 2, False), (True, 1, False), (True, 8, False)]
)
def test_only_a_single_worker_on_a_cpu_lives_in_this_process(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, workers: int, in_process: bool
) -> None:
    monkeypatch.setattr(os, "environ", {})
    set_process_environment(on_gpu=on_gpu, workers=workers)
    assert (os.environ.get(IN_PROCESS) == "0") is in_process
