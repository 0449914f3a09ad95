"""A model of a few thousand random weights, three problems, and a run of them that is over in seconds."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tiny_llama import make_model, write_model

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

    model = make_model(hidden_size=16, intermediate_size=32, num_hidden_layers=1, max_position_embeddings=4096)
    with torch.no_grad():
        # All hidden states point one way, in which the end of a turn lies: an answer is a few random bytes, and ends.
        model.model.embed_tokens.weight += 1.0
        model.lm_head.weight[model.config.eos_token_id] = 4.0 / model.config.hidden_size
    write_model(directory, model)


def environment(directory: Path) -> dict[str, str]:
    """What the run's processes see: a cache of their own, and one thread each, since the tests share their cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PERSEID_CACHE": str(directory / "cache")}
