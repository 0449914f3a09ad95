"""Beam search, apart from whatever model scores its beams.

At each step all continuations of the live beams are ranked by the sum of their log-probabilities. Those among the best
`width` that end are finished, and the best `width` that do not end live on. The search is over when `width` sequences
are finished and the best live beam has a lower log-probability per token than all of them, or when nothing lives any
more. The answer is the finished sequence with the highest log-probability per token, the end token counted. These are
the rules of transformers' `generate` with its default length penalty of 1 and without early stopping; a stop string
ends a sequence as an end token does. Equal ranks go to the earlier beam, then to the smaller token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perseid.engines.protocol import EngineError, FinishReason
from perseid.engines.sampling import Ending


@dataclass(frozen=True, slots=True)
class Beam:
    """A sequence after the prompt."""

    tokens: tuple[int, ...] = ()
    logprob: float = 0.0
    """Sum over `tokens`, natural logarithm, temperature 1."""
    text: str = ""
    """Of a finished one."""
    finish_reason: FinishReason = "length"
    """Of a finished one."""

    @property
    def score(self) -> float:
        """Log-probability per token."""
        return self.logprob / len(self.tokens)


class BeamSearch:
    """One search. While `live` is not empty, whoever has the model scores its beams and calls `advance`."""

    def __init__(self, width: int, ending: Ending) -> None:
        self._width = width
        self._ending = ending
        self._finished: list[Beam] = []
        """Best ones first, `width` at most."""
        # As many can end at an end token at once, so that `width` are left to go on.
        self.candidates = width * (1 + len(ending.eos_token_ids))
        """Continuations that each beam needs: this many of the most likely, or all that there are."""
        self.live: list[Beam] = [Beam()]
        """The beams that go on, best one first; one without tokens at the start."""
        self.computed = 0
        """Tokens that the model was asked for, those of beams that lost included."""

    def advance(self, continuations: Sequence[Sequence[tuple[int, float]]]) -> list[int]:
        """Take the next step. `continuations` holds each live beam's tokens with their log-probabilities, in any order.

        Returns the place among the live beams until now of each new one's beginning.
        """
        self.computed += len(self.live)
        ranked = sorted(
            (
                (beam.logprob + logprob, parent, token)
                for parent, (beam, offered) in enumerate(zip(self.live, continuations, strict=True))
                for token, logprob in offered
                if logprob > -math.inf
            ),
            key=lambda candidate: (-candidate[0], *candidate[1:]),
        )
        going: list[Beam] = []
        parents: list[int] = []
        for rank, (logprob, parent, token) in enumerate(ranked[: self.candidates]):
            tokens = (*self.live[parent].tokens, token)
            ended = self._ending.of(tokens)
            if ended is not None:
                if rank < self._width:
                    self._finished.append(Beam(tokens, logprob, *ended))
                continue
            going.append(Beam(tokens, logprob))
            parents.append(parent)
            if len(going) == self._width:
                break
        self._finished.sort(key=lambda beam: -beam.score)
        del self._finished[self._width :]
        full = len(self._finished) == self._width
        if full and going and going[0].score <= self._finished[-1].score:
            going, parents = [], []
        self.live = going
        return parents

    @property
    def best(self) -> Beam:
        """The answer, once no beam lives. Raises EngineError where no sequence has any probability."""
        if not self._finished:
            raise EngineError("the beam search found no answer: the model gives no token any probability")
        return self._finished[0]
