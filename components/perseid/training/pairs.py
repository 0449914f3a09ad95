"""Pairs of answers to tokens: the better and the worse one behind the same prompt, each as it is asked for and learned.

Whatever cannot be learned from is dropped with its reason: equal texts say nothing (and a pair whose answers are of
different length only by what the chat template strips is such a pair), and a cut answer would teach to stop early.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from perseid.data.records import Dropped, PreferencePair, TrainingSample
from perseid.training.encode import EncodedSample, encode_samples

EQUAL_ANSWERS = "equal-answers"
REPEATED_ID = "repeated-id"


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Two answers to one prompt, of which the first is to become likelier than the second."""

    id: str
    chosen: EncodedSample
    rejected: EncodedSample
    """Has the tokens of `chosen` as its prompt, `prompt_length` of them."""

    @property
    def sequences(self) -> tuple[EncodedSample, ...]:
        """The chosen one, then the rejected one."""
        return (self.chosen, self.rejected)


def encode_pairs(
    pairs: Iterable[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    end_tokens: Collection[int],
    max_length: int,
) -> tuple[list[EncodedPair], list[Dropped]]:
    """Encode every pair, or say why it was dropped; kept + dropped = given.

    A pair is dropped whole where `encode_samples` drops one of its answers, as one of more than `max_length` tokens
    with its prompt, where both answers are the same to the model, and where its id was there before: what is measured
    of a pair is kept by its id. Raises TrainingError where the chat template cannot be trained with.
    """
    kept: list[EncodedPair] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for pair in pairs:
        encoded = _encode(pair, tokenizer, end_tokens, max_length)
        if isinstance(encoded, EncodedPair) and pair.id in seen:
            encoded = _drop(pair, REPEATED_ID, "another pair has this id")
        if isinstance(encoded, Dropped):
            dropped.append(encoded)
        else:
            kept.append(encoded)
            seen.add(pair.id)
    return kept, dropped


def _encode(
    pair: PreferencePair, tokenizer: PreTrainedTokenizerBase, end_tokens: Collection[int], max_length: int
) -> EncodedPair | Dropped:
    answers: list[EncodedSample] = []
    for side, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        sample = TrainingSample(id=pair.id, problem_id=pair.question_id, prompt=pair.prompt, answer=answer)
        kept, dropped = encode_samples([sample], tokenizer, end_tokens, max_length)
        if dropped:
            detail = f"the {side} answer{': ' if dropped[0].detail else ''}{dropped[0].detail}"
            return dropped[0].model_copy(update={"detail": detail})
        answers += kept
    chosen, rejected = answers
    if chosen.tokens == rejected.tokens:
        return _drop(pair, EQUAL_ANSWERS, "chosen and rejected are the same text to the model")
    return EncodedPair(pair.id, chosen, rejected)


def _drop(pair: PreferencePair, reason: str, detail: str) -> Dropped:
    return Dropped(id=pair.id, problem_id=pair.question_id, reason=reason, detail=detail)
