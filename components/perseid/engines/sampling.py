"""A spec's sampling as a request's, and where a stop string ends an answer."""

from __future__ import annotations

from collections.abc import Sequence

from perseid.api.engine import SamplingSpec
from perseid.engines.protocol import Sampling


def sampling_of(spec: SamplingSpec, *, n: int, seed: int) -> Sampling:
    """How `n` answers are decoded that go by `spec`."""
    return Sampling(
        max_tokens=spec.max_tokens,
        temperature=spec.temperature,
        top_p=spec.top_p,
        n=n,
        stop=tuple(spec.stop),
        keep_stop=True,
        seed=seed,
    )


def cut_at_stop(text: str, stop: Sequence[str], *, keep: bool) -> str | None:
    """The text up to the first stop string, with it where `keep` says so; None where there is none in it."""
    found = [(at, len(one)) for one in stop if (at := text.find(one)) >= 0]
    if not found:
        return None
    at, length = min(found)
    return text[: at + length] if keep else text[:at]
