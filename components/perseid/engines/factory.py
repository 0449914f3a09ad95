"""From a spec to a running engine."""

from __future__ import annotations

from pathlib import Path

from perseid.api.engine import DType, EngineSpec, OpenAISpec
from perseid.engines.protocol import Engine
from perseid.engines.wrappers import with_call_log


async def open_engine(
    model_path: Path, model_id: str, spec: EngineSpec, dtype: DType = "auto", *, trust_remote_code: bool = False
) -> Engine:
    """Start what the spec asks for on the model in `model_path`. Raises EngineStartError or another EngineError."""
    # PyTorch and vLLM take seconds to import: only whoever runs a model pays.
    from perseid.engines.probe import probe

    if spec.type == "vllm":
        from perseid.engines.vllm_engine import VllmEngine

        hardware = probe(dtype, spec.vllm.block_size)
        engine: Engine = await VllmEngine.open(
            model_path, model_id, spec.vllm, hardware, trust_remote_code=trust_remote_code
        )
    else:
        from perseid.engines.transformers_engine import TransformersEngine

        engine = await TransformersEngine.open(
            model_path,
            model_id,
            probe(dtype).dtype,
            batch_size=spec.transformers.batch_size,
            max_model_len=spec.transformers.max_model_len,
            trust_remote_code=trust_remote_code,
        )
    return with_call_log(engine)


def open_endpoint(spec: OpenAISpec) -> Engine:
    """A client of an OpenAI-compatible endpoint; nothing is sent yet."""
    from perseid.engines.openai_engine import OpenAIEngine

    return with_call_log(OpenAIEngine(spec))
