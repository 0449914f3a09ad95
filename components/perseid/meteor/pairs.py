"""Stage 3's data: pairs of a cheap and an expensive answer of the learner itself (methods ME8, ME9).

METEOR's reference code prefers the longer answer (arXiv 2411.11933, stage 3). Here the length never counts: what was
more expensive to decode is preferred, and with a critique only where it is better by a margin. No mentor and no judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perseid.api.meteor import Decoding
from perseid.data.prompts import plain_question
from perseid.data.records import Dropped, PreferencePair, Question
from perseid.engines.protocol import Engine, EngineError
from perseid.engines.together import together
from perseid.meteor.calls import failure_reason, require_distinct
from perseid.meteor.decoding import DecodingSettings, decode, require_decodings
from perseid.meteor.parsing import normal_form
from perseid.meteor.records import DecodedAnswer


@dataclass(frozen=True, slots=True)
class Paired:
    """What became of the questions: pairs and dropped together are questions times expensive decodings."""

    pairs: tuple[PreferencePair, ...]
    dropped: tuple[Dropped, ...]
    """Reasons: those of `make_pair`, `repeated` (another decoding gave the same pair), `learner-failed`,
    `budget-exceeded`."""
    answers: tuple[DecodedAnswer, ...]
    """Every answer, cheap ones first, each with the decoding that gave it."""


def make_pair(
    prompt: str, cheap: DecodedAnswer, expensive: DecodedAnswer, *, critic: bool, margin: float = 0.0
) -> PreferencePair | Dropped:
    """A pair with the expensive answer chosen, or why there is none.

    Reasons: `both-empty`, `empty` (the expensive one), `truncated` (the expensive one), `identical` (both say the
    same), and with a critic `no-score` and `not-better` (the expensive answer's score is not above the cheap one's by
    more than `margin`, in the critique's own unit). Raises ValueError for answers to two questions.
    """
    if cheap.question_id != expensive.question_id:
        raise ValueError(f"a pair needs one question: {cheap.id} and {expensive.id} answer two")
    name = f"{cheap.id}-{expensive.strategy}"

    def dropped(reason: str, detail: str = "") -> Dropped:
        return Dropped(id=name, problem_id=cheap.question_id, reason=reason, detail=detail)

    if not expensive.text.strip():
        return dropped("empty" if cheap.text.strip() else "both-empty")
    if expensive.truncated:
        return dropped("truncated")
    if normal_form(cheap.text) == normal_form(expensive.text):
        return dropped("identical")
    if critic:
        if cheap.score is None or expensive.score is None:
            return dropped("no-score")
        if not expensive.score - cheap.score > margin:
            return dropped("not-better", f"{expensive.score:.4f} against {cheap.score:.4f}, margin {margin}")
    return PreferencePair(
        id=name, question_id=cheap.question_id, prompt=prompt, chosen=expensive.text, rejected=cheap.text
    )


async def make_pairs(
    questions: Sequence[Question],
    engine: Engine,
    cheap: Decoding,
    expensive: Sequence[Decoding],
    settings: DecodingSettings,
    *,
    margin: float = 0.0,
) -> Paired:
    """Decode every question cheaply and by each expensive decoding, and pair the answers.

    A failed call drops the pairs that need it and no others. Raises DecodingError for a decoding that cannot be had,
    ValueError for ids or decodings that are not distinct, and STOPPING_ERRORS.
    """
    require_distinct(questions)
    if not expensive or len({cheap, *expensive}) < 1 + len(expensive):
        raise ValueError(
            f"cheap {cheap} and expensive {list(expensive)} must be different decodings, at least one each"
        )
    require_decodings((cheap, *expensive), settings)

    async def answer(question: Question, name: Decoding) -> DecodedAnswer | Dropped:
        try:
            return await decode(engine, question, name, settings)
        except EngineError as error:
            reason = failure_reason(error, "learner")
            return Dropped(id=f"{question.id}/{name}", problem_id=question.id, reason=reason, detail=str(error))

    names = (cheap, *expensive)
    answered = await together(answer(question, name) for question in questions for name in names)
    pairs: list[PreferencePair] = []
    dropped: list[Dropped] = []
    for index, question in enumerate(questions):
        low, *highs = answered[index * len(names) : (index + 1) * len(names)]
        seen: set[str] = set()
        for name, high in zip(expensive, highs, strict=True):
            outcome = _pair(plain_question(question), low, high, name, settings, margin)
            if isinstance(outcome, Dropped):
                dropped.append(outcome)
            elif normal_form(outcome.chosen) in seen:
                dropped.append(Dropped(id=outcome.id, problem_id=question.id, reason="repeated"))
            else:
                seen.add(normal_form(outcome.chosen))
                pairs.append(outcome)
    answers = sorted((one for one in answered if isinstance(one, DecodedAnswer)), key=lambda one: one.strategy != cheap)
    return Paired(tuple(pairs), tuple(dropped), tuple(answers))


def _pair(
    prompt: str,
    low: DecodedAnswer | Dropped,
    high: DecodedAnswer | Dropped,
    name: Decoding,
    settings: DecodingSettings,
    margin: float,
) -> PreferencePair | Dropped:
    if isinstance(low, Dropped):
        return low.model_copy(update={"id": f"{low.id}-{name}"})
    if isinstance(high, Dropped):
        return high.model_copy(update={"id": f"{low.id}-{name}"})
    return make_pair(prompt, low, high, critic=settings.critique is not None, margin=margin)
