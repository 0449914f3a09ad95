"""A spec's sampling as a request's, and where an answer ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perseid.api.engine import SamplingSpec
from perseid.engines.protocol import FinishReason, Sampling


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


@dataclass(frozen=True, slots=True)
class Ending:
    """When an answer ends: at an end token, at a stop string, or where it is long enough."""

    decode: Callable[[Sequence[int]], str]
    """Text of an answer's tokens."""
    eos_token_ids: tuple[int, ...]
    max_tokens: int
    stop: tuple[str, ...] = ()
    keep_stop: bool = False

    def of(self, tokens: Sequence[int]) -> tuple[str, FinishReason] | None:
        """Text and reason where the last of these tokens ends the answer; None where it goes on."""
        if tokens[-1] in self.eos_token_ids:
            return self.decode(tokens[:-1]), "stop"
        last = len(tokens) >= self.max_tokens
        if not self.stop and not last:
            return None
        text = self.decode(tokens)
        cut = cut_at_stop(text, self.stop, keep=self.keep_stop)
        if cut is not None:
            return cut, "stop"
        return (text, "length") if last else None
