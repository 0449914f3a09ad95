from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from perseid.data.records import TrainingSample
from perseid.training.encode import IGNORED, encode_samples
from perseid.training.errors import TrainingError
from tiny_llama import make_tokenizer

END = {1}


def sample(prompt: str = "add", answer: str = "a+b") -> TrainingSample:
    return TrainingSample(id="s", problem_id="p", prompt=prompt, answer=answer)


def test_the_answer_and_its_end_token_are_learned_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    [encoded], dropped = encode_samples([sample()], tokenizer, END, 512)
    given = tokenizer("<|im_start|>user\nadd<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    learned = [*tokenizer("a+b")["input_ids"], 1]
    assert list(encoded.tokens) == given + learned
    assert list(encoded.labels) == [IGNORED] * len(given) + learned
    assert encoded.answer_length == 4
    assert not dropped


def test_a_samples_weight_is_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    kept, dropped = encode_samples([sample(), sample().model_copy(update={"weight": 8.0})], tokenizer, END, 512)
    assert [one.weight for one in kept] == [1.0, 8.0]
    assert dropped == []


def test_a_sample_that_is_too_long_is_dropped_and_never_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    [long_one], _ = encode_samples([sample()], tokenizer, END, 512)
    length = len(long_one.tokens)
    assert len(encode_samples([sample()], tokenizer, END, length)[0]) == 1
    kept, [dropped] = encode_samples([sample()], tokenizer, END, length - 1)
    assert kept == []
    assert (dropped.id, dropped.reason) == ("s", "too-long")
    assert str(length) in dropped.detail


@pytest.mark.parametrize(("answer", "reason"), [("  \n", "empty-answer"), ("a<|im_end|>b", "end-of-turn-in-answer")])
def test_an_answer_that_would_teach_nonsense_is_dropped(
    tokenizer: PreTrainedTokenizerFast, answer: str, reason: str
) -> None:
    kept, [dropped] = encode_samples([sample(answer=answer)], tokenizer, END, 512)
    assert (kept, dropped.reason) == ([], reason)


def test_a_template_that_rewrites_the_prompt_is_refused() -> None:
    rewriting = "{{ messages | length }}{% for m in messages %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    with pytest.raises(TrainingError, match=r"sample s: .* does not put the answer behind the prompt"):
        encode_samples([sample()], make_tokenizer(rewriting), END, 512)


def test_a_template_that_never_ends_a_turn_is_refused() -> None:
    with pytest.raises(TrainingError, match="never learn to stop"):
        encode_samples([sample()], make_tokenizer("{% for m in messages %}{{ m['content'] }}{% endfor %}"), END, 512)


def test_a_template_that_refuses_the_chat_is_named() -> None:
    with pytest.raises(TrainingError, match=r"cannot render .*no users"):
        encode_samples([sample()], make_tokenizer("{{ raise_exception('no users') }}"), END, 512)


def test_an_answer_that_would_melt_into_the_prompt_is_tokenised_as_the_model_meets_it() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    newline = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("\n")[0][0]
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet, newline * 2])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[(newline, newline)]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(special)
    melting = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", chat_template=make_tokenizer().chat_template
    )
    [encoded], _ = encode_samples([sample(answer="\nx")], melting, END, 512)
    prompt = melting("<|im_start|>user\nadd<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    assert list(encoded.tokens[: encoded.prompt_length]) == prompt
    assert encoded.tokens[encoded.prompt_length :] == (vocabulary[newline], vocabulary["x"], 1)
