"""The decoding loop of the transformers engine: rows in, tokens out, no asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from perseid.engines.chat import ChatEncoder
from perseid.engines.protocol import FinishReason
from perseid.engines.sampling import cut_at_stop


@dataclass(slots=True)
class Row:
    """One sample to decode, filled in place."""

    prompt: list[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    seed: int = 0
    score: tuple[int, ...] | None = None
    """Only tell these tokens' log-probabilities after the prompt, in `scores`; decode nothing."""

    tokens: list[int] = field(default_factory=list)
    """The answer, the end token included."""
    text: str = ""
    finish_reason: FinishReason = "length"
    logprob: float = 0.0
    """Sum over `tokens`, natural logarithm, temperature 1."""
    scores: list[float] = field(default_factory=list)
    """Log-probability of each token of `score`."""


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
        """Fill all rows. Prompts are padded on the left; a row that ends leaves the batch."""
        device = self._model.device
        width = max(len(row.prompt) for row in rows)
        padding = self.eos_token_ids[0]
        ids = torch.tensor([[padding] * (width - len(row.prompt)) + row.prompt for row in rows], device=device)
        mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        generators = [torch.Generator().manual_seed(row.seed) for row in rows]
        live = list(range(len(rows)))
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
            going, chosen = [], []
            for at, index in enumerate(live):
                row = rows[index]
                if row.score is not None:
                    row.scores = logprobs[at, list(row.score)].tolist()
                    continue
                token = _pick(logits[at], row, generators[index])
                row.logprob += float(logprobs[at, token])
                if not self._append(row, token):
                    going.append(at)
                    chosen.append(token)
            if not going:
                return
            if len(going) < len(live):
                kept = torch.tensor(going, device=device)
                cache.batch_select_indices(kept)
                mask, positions = mask[kept], positions[kept]
                live = [live[at] for at in going]
            ids = torch.tensor(chosen, device=device).unsqueeze(1)
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            positions = positions[:, -1:] + 1

    def _append(self, row: Row, token: int) -> bool:
        """Add a token; True when the row is finished."""
        row.tokens.append(token)
        if token in self.eos_token_ids:
            row.text = self._encoder.decode(row.tokens[:-1])
            row.finish_reason = "stop"
            return True
        last = len(row.tokens) >= row.max_tokens
        if row.stop or last:
            row.text = self._encoder.decode(row.tokens)
            ended = cut_at_stop(row.text, row.stop, keep=row.keep_stop)
            if ended is not None:
                row.text = ended
                row.finish_reason = "stop"
                return True
        return last


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
