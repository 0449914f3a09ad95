"""The decoding loop of the transformers engine: rows in, tokens out, no asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from transformers import DynamicCache

from perseid.engines.beams import BeamSearch
from perseid.engines.chat import ChatEncoder
from perseid.engines.protocol import FinishReason, Telling
from perseid.engines.sampling import Ending


@dataclass(slots=True)
class Row:
    """One sample to decode, or one beam search, filled in place."""

    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    seed: int = 0
    beams: int = 0
    """Width of a beam search in place of a sample; 0 for none."""
    score: tuple[int, ...] | None = None
    """Only tell these tokens' log-probabilities after the prompt, in `scores`; decode nothing."""

    tokens: list[int] = field(default_factory=list)
    """The answer, the end token included."""
    text: str = ""
    finish_reason: FinishReason = "length"
    logprob: float = 0.0
    """Sum over `tokens`, natural logarithm, temperature 1."""
    computed: int = 0
    """Tokens that were decoded for the answer, those of beams that lost included."""
    scores: list[float] = field(default_factory=list)
    """Log-probability of each token of `score`."""
    tell: Telling | None = None
    """Told the text of a sample after each of its tokens, in the decoding thread."""
    abandoned: bool = False
    """Nobody wants a sample any more: it ends with its next token."""

    @property
    def lines(self) -> int:
        """Lines of a batch that the row takes at most."""
        return max(1, self.beams)


class Decoder:
    """A model and its decoding loop. Not thread-safe: one `decode` at a time."""

    def __init__(self, model: Any, encoder: ChatEncoder, eos_token_ids: Sequence[int]) -> None:
        self._model = model
        self._encoder = encoder
        self.eos_token_ids = tuple(eos_token_ids)

    def release(self) -> None:
        """Give the model's memory back."""
        self._model = None

    @torch.inference_mode()
    def decode(self, rows: list[Row]) -> None:
        """Fill all rows. Prompts are padded on the left; a row that ends leaves the batch.

        A row has one line in the batch, and during a beam search one for each live beam, which stand together.
        """
        device = self._model.device
        width = max(len(row.prompt) for row in rows)
        padding = self.eos_token_ids[0]
        ids = torch.tensor([[padding] * (width - len(row.prompt)) + row.prompt for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        decoding = [self._start(row) for row in rows]
        while True:
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1].float().cpu()
            logprobs = torch.log_softmax(logits, dim=-1)
            going: list[int] = []
            """The line that each line of the next step continues."""
            chosen: list[int] = []
            first = 0
            for one in decoding:
                here = slice(first, first + one.lines)
                for parent, token in one.advance(logits[here], logprobs[here]):
                    going.append(first + parent)
                    chosen.append(token)
                first = here.stop
            if not going:
                return
            decoding = [one for one in decoding if one.lines]
            if going != list(range(first)):
                kept = torch.tensor(going, device=device)
                cache.batch_select_indices(kept)
                mask, positions = mask[kept], positions[kept]
            ids = torch.tensor(chosen, device=device).unsqueeze(1)
            mask = torch.cat([mask, mask.new_ones(len(going), 1)], dim=1)
            positions = positions[:, -1:] + 1

    def _start(self, row: Row) -> _Decoding:
        if row.score is not None:
            return _Scoring(row, row.score)
        ending = Ending(self._encoder.decode, self.eos_token_ids, row.max_tokens, row.stop, row.keep_stop)
        return _Searching(row, ending) if row.beams else _Sampling(row, ending)


class _Decoding(Protocol):
    """One row of a batch on its way."""

    lines: int
    """Lines that it has in the batch now; 0 when the row is filled."""

    def advance(self, logits: torch.Tensor, logprobs: torch.Tensor) -> list[tuple[int, int]]:
        """Take the next step; both have shape (lines, vocabulary).

        Returns, for each line of the next step, which line it continues and its token.
        """
        ...


class _Scoring:
    def __init__(self, row: Row, tokens: tuple[int, ...]) -> None:
        self._row = row
        self._tokens = tokens
        self.lines = 1

    def advance(self, logits: torch.Tensor, logprobs: torch.Tensor) -> list[tuple[int, int]]:
        self._row.scores = logprobs[0, list(self._tokens)].tolist()
        self.lines = 0
        return []


class _Sampling:
    def __init__(self, row: Row, ending: Ending) -> None:
        self._row = row
        self._ending = ending
        self._generator = torch.Generator().manual_seed(row.seed)
        self.lines = 1

    def advance(self, logits: torch.Tensor, logprobs: torch.Tensor) -> list[tuple[int, int]]:
        row = self._row
        if row.abandoned:
            self.lines = 0
            return []
        token = _pick(logits[0], row, self._generator)
        row.tokens.append(token)
        row.logprob += float(logprobs[0, token])
        row.computed += 1
        ended = self._ending.of(row.tokens)
        if row.tell is not None:
            row.tell(self._ending.decode(row.tokens) if ended is None else ended[0])
        if ended is None:
            return [(0, token)]
        row.text, row.finish_reason = ended
        self.lines = 0
        return []


class _Searching:
    def __init__(self, row: Row, ending: Ending) -> None:
        self._row = row
        self._search = BeamSearch(row.beams, ending)
        self.lines = 1

    def advance(self, logits: torch.Tensor, logprobs: torch.Tensor) -> list[tuple[int, int]]:
        search, row = self._search, self._row
        values, tokens = logprobs.topk(min(search.candidates, logprobs.shape[-1]), dim=-1)
        parents = search.advance(
            [list(zip(*line, strict=True)) for line in zip(tokens.tolist(), values.tolist(), strict=True)]
        )
        self.lines = len(search.live)
        if not search.live:
            best = search.best
            row.tokens, row.logprob, row.computed = list(best.tokens), best.logprob, search.computed
            row.text, row.finish_reason = best.text, best.finish_reason
        return [(parent, beam.tokens[-1]) for parent, beam in zip(parents, search.live, strict=True)]


def _pick(logits: torch.Tensor, row: Row, generator: torch.Generator) -> int:
    """Next token of one row; `logits` has shape (vocabulary,)."""
    if row.temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / row.temperature, dim=-1)
    if row.top_p < 1:
        ordered, order = probabilities.sort(descending=True, stable=True)
        # A token stays while those before it have not reached the mass, so the best one always stays.
        ordered[ordered.cumsum(0) - ordered >= row.top_p] = 0
        return int(order[torch.multinomial(ordered, 1, generator=generator)])
    return int(torch.multinomial(probabilities, 1, generator=generator))
