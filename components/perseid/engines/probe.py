"""What this machine is good at: the number format that multiplies fastest, and the KV cache's block size."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

DTypeName = Literal["float32", "bfloat16", "float16"]

_ROWS, _WIDTH = 256, 1024
_BF16_MARGIN = 1.1
"""bfloat16 must be this much faster to be worth its rounding."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured and chosen; `asdict` of it goes into a run's record."""

    device: str
    """`cpu`, or the name of the GPU."""
    dtype: DTypeName
    """The format to compute in."""
    block_size: int | None
    """Tokens in a block of the KV cache; None leaves it to the engine."""
    float32_gflops: float | None = None
    """Speed of a 256 x 1024 x 1024 matrix product in float32 on one core, 1e9 operations per second; None where not
    measured."""
    bfloat16_gflops: float | None = None
    """The same in bfloat16."""

    def record(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def probe(dtype: str = "auto", block_size: int | Literal["auto"] = "auto", seconds: float = 0.3) -> Probe:
    """Choose `dtype` and `block_size` where they are `auto`.

    On CPUs the two formats race for `seconds` each: bfloat16 wins only where the processor really multiplies it faster.
    On GPUs bfloat16 is taken where supported.
    """
    on_gpu = torch.cuda.is_available()
    block = block_size if block_size != "auto" else None if on_gpu else 32
    device = torch.cuda.get_device_name() if on_gpu else "cpu"
    if dtype in ("float32", "bfloat16", "float16"):
        return Probe(device, dtype, block)  # type: ignore[arg-type]
    if dtype != "auto":
        raise ValueError(f"dtype {dtype!r}: must be auto, float32, bfloat16 or float16")
    if on_gpu:
        return Probe(device, "bfloat16" if torch.cuda.is_bf16_supported() else "float16", block)
    single, brain = _race(seconds)
    chosen: DTypeName = "bfloat16" if brain > _BF16_MARGIN * single else "float32"
    return Probe(device, chosen, block, round(single, 1), round(brain, 1))


def _race(seconds: float) -> tuple[float, float]:
    """Speeds of float32 and bfloat16, 1e9 operations per second of one core."""
    threads = torch.get_num_threads()
    # One thread: beside other programs, two threads mostly wait for each other, and the race says nothing.
    torch.set_num_threads(1)
    try:
        generator = torch.Generator().manual_seed(0)
        left = torch.randn(_ROWS, _WIDTH, generator=generator)
        right = torch.randn(_WIDTH, _WIDTH, generator=generator)
        pairs = [(left.to(dtype), right.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
        for one, other in pairs:
            torch.mm(one, other)  # the first one sets up kernels
        best = [float("inf"), float("inf")]
        deadline = time.perf_counter() + 2 * seconds
        # In turns, and the best of each: other programs can only slow a product down.
        while time.perf_counter() < deadline:
            for index, (one, other) in enumerate(pairs):
                start = time.perf_counter()
                torch.mm(one, other)
                best[index] = min(best[index], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    operations = 2 * _ROWS * _WIDTH * _WIDTH
    return operations / best[0] / 1e9, operations / best[1] / 1e9
