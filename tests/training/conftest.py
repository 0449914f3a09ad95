from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from perseid.data.records import TrainingSample
from tiny_llama import make_model, make_tokenizer, write_model


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """A model of this size only loses time to threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base"), make_model())


@pytest.fixture
def samples() -> list[TrainingSample]:
    return [
        TrainingSample(
            id=f"s{i}", problem_id=f"p{i}", prompt=f"say {'n' * i} {i}", answer=f"{i} is {'x' * (3 * i % 7)}!"
        )
        for i in range(10)
    ]
