from __future__ import annotations

from pathlib import Path

import pytest

from tiny_llama import make_model, write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # vLLM's kernels want heads of 32; weights this wide apart give it something to be sure of.
    model = make_model(
        num_attention_heads=2, max_position_embeddings=2048, initializer_range=0.2, tie_word_embeddings=True
    )
    return write_model(tmp_path_factory.mktemp("tiny-model"), model)
