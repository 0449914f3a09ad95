"""Chats to tokens, by the model's own chat template, with the border between what is given and what is learned."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from perseid.data.records import Dropped, TrainingSample
from perseid.training.errors import TrainingError

IGNORED = -100
"""Label of a token that is not learned: what torch's cross entropy ignores."""

TOO_LONG = "too-long"
EMPTY_ANSWER = "empty-answer"
END_OF_TURN_IN_ANSWER = "end-of-turn-in-answer"


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One chat as tokens: the prompt as the model sees it when it has to answer, then the answer and its end token."""

    id: str
    tokens: tuple[int, ...]
    prompt_length: int
    """Tokens that are given, at least 1. The rest is learned."""
    weight: float = 1.0
    """How much each of its answer's tokens counts."""

    @property
    def answer_length(self) -> int:
        """Tokens that are learned, the end-of-turn token included."""
        return len(self.tokens) - self.prompt_length

    @property
    def sequences(self) -> tuple[EncodedSample, ...]:
        """Itself: an item of training that is one sequence of tokens."""
        return (self,)

    @property
    def labels(self) -> tuple[int, ...]:
        """The tokens with `IGNORED` for the prompt, shape (len(tokens),)."""
        return (IGNORED,) * self.prompt_length + self.tokens[self.prompt_length :]


def encode_samples(
    samples: Iterable[TrainingSample],
    tokenizer: PreTrainedTokenizerBase,
    end_tokens: Collection[int],
    max_length: int,
) -> tuple[list[EncodedSample], list[Dropped]]:
    """Encode every sample, or say why it was dropped; kept + dropped = given.

    `end_tokens` are the ids at which the model stops when it answers; one of them must close the assistant's turn.
    A sample of more than `max_length` tokens is dropped, never cut. Raises TrainingError where the chat template
    cannot be trained with.
    """
    kept: list[EncodedSample] = []
    dropped: list[Dropped] = []
    for sample in samples:
        encoded = _encode(sample, tokenizer, end_tokens)
        if isinstance(encoded, EncodedSample) and len(encoded.tokens) > max_length:
            encoded = _drop(sample, TOO_LONG, f"{len(encoded.tokens)} tokens, maxLength is {max_length}")
        if isinstance(encoded, Dropped):
            dropped.append(encoded)
        else:
            kept.append(encoded)
    return kept, dropped


def _encode(
    sample: TrainingSample, tokenizer: PreTrainedTokenizerBase, end_tokens: Collection[int]
) -> EncodedSample | Dropped:
    if not sample.answer.strip():
        return _drop(sample, EMPTY_ANSWER)
    question = {"role": "user", "content": sample.prompt}
    prompt = _render(tokenizer, [question], sample.id, generation_prompt=True)
    chat = _render(
        tokenizer, [question, {"role": "assistant", "content": sample.answer}], sample.id, generation_prompt=False
    )
    if not prompt or not chat.startswith(prompt):
        raise TrainingError(
            f"sample {sample.id}: the model's chat template does not put the answer behind the prompt that the model "
            f"sees when it has to answer (prompt ends {prompt[-60:]!r}, chat goes {chat[:200]!r}). Fine-tuning on it "
            "would teach another format than the one that is asked for; use a chat template that only appends"
        )
    prompt_tokens = _tokenize(tokenizer, prompt)
    tokens = _tokenize(tokenizer, chat)
    if tokens[: len(prompt_tokens)] != prompt_tokens:
        tokens = _split_at_the_border(tokenizer, prompt_tokens, chat[len(prompt) :], tokens, sample.id)
    end = next((i for i in range(len(prompt_tokens), len(tokens)) if tokens[i] in end_tokens), None)
    if end is None:
        raise TrainingError(
            f"sample {sample.id}: the chat template closes the assistant's turn with none of the model's end tokens "
            f"({sorted(end_tokens)}), so the model would never learn to stop. Set eos_token in the tokenizer or "
            "eos_token_id in generation_config.json to the token that ends a turn"
        )
    # Behind the end of the turn only layout may follow, and the model never has to write it.
    rest = [token for token in tokens[end + 1 :] if token not in end_tokens]
    if rest and str(tokenizer.decode(rest)).strip():
        return _drop(sample, END_OF_TURN_IN_ANSWER, "the answer holds the model's own end-of-turn token")
    return EncodedSample(sample.id, tuple(tokens[: end + 1]), len(prompt_tokens), sample.weight)


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], sample_id: str, *, generation_prompt: bool
) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt))
    except (TemplateError, ValueError) as error:
        raise TrainingError(
            f"sample {sample_id}: the model's chat template cannot render the chat ({error}). Use an instruction-tuned "
            "model, or add a chat_template.jinja to its directory"
        ) from error


def _tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # The template has written every special token itself.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _split_at_the_border(
    tokenizer: PreTrainedTokenizerBase, prompt_tokens: list[int], rest: str, whole: list[int], sample_id: str
) -> list[int]:
    """Tokens of a chat whose answer would melt into the prompt's last token, as the model really meets them.

    When it answers, the prompt's tokens are fixed; so the answer is tokenised for itself, if that gives the same text.
    """
    tokens = prompt_tokens + _tokenize(tokenizer, rest)
    if tokenizer.decode(tokens) != tokenizer.decode(whole):
        raise TrainingError(
            f"sample {sample_id}: the tokenizer joins the prompt's end and the answer's beginning into one token, and "
            "the two cannot be tokenised apart. End the chat template's generation prompt with a special token or a "
            "line break"
        )
    return tokens


def _drop(sample: TrainingSample, reason: str, detail: str = "") -> Dropped:
    return Dropped(id=sample.id, problem_id=sample.problem_id, reason=reason, detail=detail)
