"""From a model directory to a trainable model and back to a directory that vLLM and transformers load by its path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from perseid.api.training import FinetuneSpec
from perseid.training.checkpoint import sync_directory
from perseid.training.errors import TrainingError
from perseid.training.manifest import MANIFEST_NAME, ModelManifest, TrainingDType

TORCH_DTYPES: dict[TrainingDType, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_tokenizer(base: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The base model's tokenizer. Raises TrainingError where it is missing or has no chat template."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{base} holds no tokenizer that transformers can load: {error}") from error
    if tokenizer.chat_template is None:
        raise TrainingError(
            f"the tokenizer in {base} has no chat template. Use an instruction-tuned model, or add a "
            "chat_template.jinja to its directory"
        )
    return tokenizer


def load_model(base: Path, spec: FinetuneSpec, dtype: TrainingDType, *, trust_remote_code: bool) -> PreTrainedModel:
    """The base model on the CPU, in the dtype that its weights are held in while they are trained.

    LoRA leaves the base frozen in `dtype` (adapters are float32). Full fine-tuning holds float32 weights whatever the
    dtype, because steps of a small learning rate would be lost in bfloat16's rounding; `dtype` is then the dtype of
    the arithmetic and of the result.
    """
    held = torch.float32 if spec.method == "full" else TORCH_DTYPES[dtype]
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            base, dtype=held, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise TrainingError(f"{base} holds no causal language model that transformers can load: {error}") from error
    return model


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids at which the model stops when it answers."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(token) for token in [*ids, tokenizer.eos_token_id] if token is not None)


def make_trainable(model: PreTrainedModel, spec: FinetuneSpec) -> PreTrainedModel | PeftModel:
    """Adapters on a frozen base, or the model with all weights trainable. LoRA's start is drawn from torch's RNG."""
    if spec.method == "full":
        return model.requires_grad_(True)
    targets = spec.lora.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,  # peft only divides it by the rank: any real number will do
        lora_dropout=spec.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise TrainingError(f"no adapters on lora.targetModules {targets!r}: {error}") from error
    if not isinstance(adapted, PeftModel):
        raise TrainingError(f"peft gave a {type(adapted).__name__} for {type(model).__name__}, not an adapted model")
    return adapted


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that an optimizer changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def restore_parameters(parameters: dict[str, torch.nn.Parameter], weights: dict[str, torch.Tensor]) -> None:
    """Set the trained parameters to a checkpoint's values."""
    require_same_names(parameters, weights)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def require_same_names(parameters: Mapping[str, object], weights: Mapping[str, object]) -> None:
    """Raise TrainingError where a checkpoint's weights are not those of these parameters."""
    if parameters.keys() != weights.keys():
        odd = sorted(parameters.keys() ^ weights.keys())[:3]
        raise TrainingError(f"the checkpoint is one of another model: parameters such as {odd} do not match. Delete it")


def merged(model: torch.nn.Module) -> PreTrainedModel:
    """The plain model with its adapters added into the weights; a fully trained one as it is."""
    plain = model.merge_and_unload(safe_merge=True) if isinstance(model, PeftModel) else model
    if not isinstance(plain, PreTrainedModel):
        raise TrainingError(f"cannot save a {type(plain).__name__}")
    return plain


def write_model(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, dtype: TrainingDType
) -> None:
    """Weights in safetensors, config, generation config, tokenizer and chat template. Replaces what lies there."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    model.to(TORCH_DTYPES[dtype])  # type: ignore[arg-type]  # transformers' wrapper hides torch's overloads
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def commit(unfinished: Path, output: Path, manifest: ModelManifest) -> None:
    """Write the manifest and give the finished directory its name, which it has only when it is whole and on disk."""
    (unfinished / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n")
    for path in _files(unfinished):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(unfinished)
    unfinished.replace(output)  # an empty directory in its place, as a pipeline may have made it, is no obstacle
    sync_directory(output.parent)


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())
