from __future__ import annotations

from perseid.api.engine import SamplingSpec
from perseid.engines.sampling import cut_at_stop, sampling_of

FENCE = "\n```\n\n"
ANSWER = "```python\ndef f():\n    return 1\n```\n\nThis function returns 1.\n```\nagain\n```\n\n"


def test_an_answer_ends_with_the_first_stop_string_in_it_or_before_it() -> None:
    assert cut_at_stop(ANSWER, ("This", FENCE), keep=True) == "```python\ndef f():\n    return 1\n```\n\n"
    assert cut_at_stop(ANSWER, ("This", FENCE), keep=False) == "```python\ndef f():\n    return 1"


def test_an_answer_without_a_stop_string_is_not_cut() -> None:
    assert cut_at_stop(ANSWER, ("nowhere",), keep=True) is None
    assert cut_at_stop(ANSWER, (), keep=True) is None


def test_stop_strings_of_a_spec_stay_part_of_the_answer() -> None:
    sampling = sampling_of(SamplingSpec(max_tokens=7, temperature=0.3, top_p=0.9, stop=[FENCE]), n=2, seed=5)
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.n, sampling.seed) == (7, 0.3, 0.9, 2, 5)
    assert sampling.stop == (FENCE,)
    assert sampling.keep_stop
