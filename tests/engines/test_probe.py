from __future__ import annotations

import json
import time

import pytest
import torch

from perseid.engines import probe as room
from perseid.engines.probe import probe

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="chooses for a CPU")


@cpu_only
def test_the_faster_format_is_chosen_and_the_measurement_told() -> None:
    # About 0.6 s: it measures.
    start = time.perf_counter()
    result = probe(seconds=0.1)
    assert time.perf_counter() - start < 30
    assert result.float32_gflops
    assert result.bfloat16_gflops
    wins = result.bfloat16_gflops > 1.1 * result.float32_gflops
    assert result.dtype == ("bfloat16" if wins else "float32")
    assert result.block_size == 32
    assert json.loads(json.dumps(result.record()))["device"] == "cpu"


@cpu_only
@pytest.mark.parametrize(("brain", "chosen"), [(105.0, "float32"), (115.0, "bfloat16")])
def test_bfloat16_must_be_clearly_faster(brain: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_race", lambda _: (100.0, brain))
    assert probe().dtype == chosen


def test_what_the_user_chose_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_race", lambda *_: pytest.fail("measured"))
    result = probe("bfloat16", 64)
    assert (result.dtype, result.block_size, result.float32_gflops) == ("bfloat16", 64, None)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="int7"):
        probe("int7")
