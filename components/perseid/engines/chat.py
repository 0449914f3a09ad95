"""Chats and choices as token ids: the part of an engine that only needs the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from perseid.engines.protocol import EngineError, Message, PromptTooLongError


class ChatEncoder:
    """Applies the model's chat template and knows how many tokens fit."""

    def __init__(self, model_path: Path, max_model_len: int, *, trust_remote_code: bool = False) -> None:
        """Load the tokenizer. `max_model_len` is shortened to what the model's configuration supports.

        Raises EngineError where the tokenizer has no chat template.
        """
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        if not self.tokenizer.chat_template:
            raise EngineError(
                f"the tokenizer in {model_path} has no chat template; use an instruction-tuned model, "
                "or add a chat_template.jinja beside its tokenizer"
            )
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        supported = getattr(config.get_text_config(), "max_position_embeddings", None)
        self.max_model_len = min(max_model_len, supported) if supported else max_model_len

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a chat, shape (prompt tokens,). A last turn by the assistant is continued, not closed."""
        if not messages:
            raise EngineError("a request needs at least one message")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if messages[-1].role != "assistant":
            return self._render(turns, add_generation_prompt=True)
        # The opening of an answer is appended as it stands: templates strip its white space, and the next token
        # depends on it.
        opening = turns.pop()["content"]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer.encode(text + opening, add_special_tokens=False))

    def _render(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> list[int]:
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of an answer, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def encode_choice(self, choice: str) -> tuple[int, ...]:
        """Token ids of a choice as it follows a prompt, shape (choice tokens,)."""
        # Some tokenizers put a space before whatever they are given; encoding after a line break leaves it out.
        line_break = self.tokenizer.encode("\n", add_special_tokens=False)
        both = self.tokenizer.encode("\n" + choice, add_special_tokens=False)
        if both[: len(line_break)] == line_break and len(both) > len(line_break):
            return tuple(both[len(line_break) :])
        return tuple(self.tokenizer.encode(choice, add_special_tokens=False))

    def check_fits(self, prompt_tokens: int, max_tokens: int) -> None:
        """Raise PromptTooLongError where prompt and answer do not fit the context; nothing is ever truncated."""
        if prompt_tokens + max_tokens > self.max_model_len:
            raise PromptTooLongError(
                f"the prompt has {prompt_tokens} tokens and the answer may have {max_tokens}, together "
                f"{prompt_tokens + max_tokens}, but the context holds {self.max_model_len}; shorten the prompt, lower "
                "max_tokens or raise maxModelLen (where the model supports it)"
            )

    def eos_token_ids(self, model_path: Path) -> tuple[int, ...]:
        """Tokens that end an answer: those of the generation configuration and the tokenizer's own."""
        from transformers import GenerationConfig

        ids: set[int] = set()
        if (model_path / "generation_config.json").is_file():
            declared = GenerationConfig.from_pretrained(model_path).eos_token_id
            ids.update([declared] if isinstance(declared, int) else declared or [])
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        if not ids:
            raise EngineError(f"neither the tokenizer nor generation_config.json in {model_path} names an end token")
        return tuple(sorted(ids))
