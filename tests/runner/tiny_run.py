"""A model of a few thousand random weights, three problems, and a run of them that is over in seconds."""

from __future__ import annotations

import json
import os
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

RUN = """\
apiVersion: perseid.dev/v1alpha1
kind: EvolutionRun
metadata: {name: tiny}
spec:
  model: {ref: ./model, dtype: float32}
  engine: {type: transformers, transformers: {batchSize: 4}}
  problems:
    train: {source: jsonl, path: train.jsonl}
    dev: {source: jsonl, path: dev.jsonl, name: dev}
    test: []
  synthesis: {search: {rounds: 1, branch: 2, maxDepth: 1, minPlanWords: 0, maxStepTokens: 16}}
  conversion: {samplesPerPlan: 2, gate: {type: none}, sampling: {maxTokens: 16}}
  sandbox: {workers: 1}
  evaluation: {samples: 2, bootstrap: 100, sampling: {maxTokens: 16}}
"""


def problem(name: str) -> dict[str, object]:
    return {
        "id": name,
        "statement": f"Write a function {name}(x) that returns x.",
        "entry_point": name,
        "tests": [f"assert {name}(1) == 1"],
    }


def write_run(directory: Path) -> Path:
    """The run file, with its model and problems beside it."""
    build_model(directory / "model")
    for file, names in (("train.jsonl", ["same", "itself"]), ("dev.jsonl", ["unchanged"])):
        (directory / file).write_text("".join(json.dumps(problem(name)) + "\n" for name in names))
    path = directory / "run.yaml"
    path.write_text(RUN)
    return path


def build_model(directory: Path) -> None:
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=fast.eos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        # All hidden states point one way, in which the end of a turn lies: an answer is a few random bytes, and ends.
        model.model.embed_tokens.weight += 1.0
        model.lm_head.weight[fast.eos_token_id] = 4.0 / config.hidden_size
    model.save_pretrained(directory)


def environment(directory: Path) -> dict[str, str]:
    """What the run's processes see: a cache of their own, and one thread each, since the tests share their cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PERSEID_CACHE": str(directory / "cache")}
