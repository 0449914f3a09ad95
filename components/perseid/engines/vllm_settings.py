"""vLLM's settings: environment and engine arguments made from a spec."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from perseid.api.engine import VllmSpec
from perseid.engines.vllm_worker import PARENT_VARIABLE

_CPU_BATCHED_TOKENS = 4096


def set_process_environment(*, on_gpu: bool, workers: int) -> None:
    """Set what vLLM reads for as long as the process lives. Must run before vLLM is imported; users' values win.

    `workers`: its processes that compute, over all copies of the model.
    """
    debug = os.environ.get("PERSEID_LOG", "").lower() == "debug"
    wanted = {
        # Its warnings are about its own build and appear on every start.
        "VLLM_LOGGING_LEVEL": "DEBUG" if debug else "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if not on_gpu and workers == 1:
        # The worker then lives in the engine core's process: one process and one hop fewer.
        wanted["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # Memory is given by the spec; this variable would override it.
        os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def start_environment(*, compiles: bool) -> Iterator[None]:
    """Environment that vLLM's child processes inherit when they start, and that is taken back here afterwards.

    `compiles`: whether they may have code compiled.
    """
    wanted = {
        PARENT_VARIABLE: str(os.getpid()),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
    if os.environ.get("PERSEID_LOG", "").lower() != "debug":
        wanted |= {"PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    if not compiles and "TORCHDYNAMO_DISABLE" not in os.environ:
        # An eager vLLM still compiles some functions of its sampler. On a CPU that takes a C++ compiler, which an image
        # need not have, and seconds at each pod's first call; answers and throughput are the same without.
        wanted["TORCHDYNAMO_DISABLE"] = "1"
    with _environment(wanted):
        yield


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def is_eager(spec: VllmSpec, *, on_gpu: bool) -> bool:
    """Whether the model is executed as it is written, without compilation."""
    return not on_gpu if spec.enforce_eager == "auto" else spec.enforce_eager


def engine_arguments(
    model_path: Path,
    spec: VllmSpec,
    *,
    dtype: str,
    block_size: int | None,
    max_model_len: int,
    on_gpu: bool,
    max_logprobs: int,
    trust_remote_code: bool,
) -> dict[str, Any]:
    """Keyword arguments of vLLM's AsyncEngineArgs."""
    arguments: dict[str, Any] = {
        "model": str(model_path),
        "dtype": dtype,
        "max_model_len": max_model_len,
        "max_num_seqs": spec.max_num_seqs,
        "enforce_eager": is_eager(spec, on_gpu=on_gpu),
        "tensor_parallel_size": spec.tensor_parallel_size,
        "data_parallel_size": spec.data_parallel_size,
        "enable_prefix_caching": True,
        # Log-probabilities are those of the model itself, before temperature and nucleus.
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": max_logprobs,
        # A model's own sampling defaults must not change what a request asks for.
        "generation_config": "vllm",
        "seed": 0,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "trust_remote_code": trust_remote_code,
        "worker_extension_cls": "perseid.engines.vllm_worker.ParentWatch",
    }
    if block_size is not None:
        arguments["block_size"] = block_size
    if on_gpu:
        arguments["gpu_memory_utilization"] = spec.gpu_memory_utilization
    else:
        arguments["kv_cache_memory_bytes"] = int(spec.kv_cache_gib * 2**30)
        # vLLM 0.32 takes back the random draw of an unfinished prompt chunk by rewinding the request's generator, which
        # CPU generators cannot do: the engine core dies. Whole prompts need no rewinding, so seeds stay per request.
        arguments["enable_chunked_prefill"] = False
        arguments["max_num_batched_tokens"] = max(max_model_len, _CPU_BATCHED_TOKENS, spec.max_num_seqs)
    return arguments
