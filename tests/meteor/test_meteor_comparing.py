"""Comparing answers, agreement of verdicts, and pairs (ME8, ME9, ME11, ME13)."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meteor_scripted import SAMPLING, CompletionEngine, completion, question, questions

from perseid.data.records import Dropped, PreferencePair
from perseid.engines.errors import UnsupportedSamplingError
from perseid.engines.protocol import EngineError
from perseid.engines.scripted import ScriptedEngine
from perseid.evaluation.calibration import auc
from perseid.meteor.agreement import agreement, agreement_change
from perseid.meteor.comparing import agreed, compare_answers, mean_score, mirrored, score_answer, win_report
from perseid.meteor.critique import self_verdicts
from perseid.meteor.decoding import DecodingError, DecodingSettings, decode
from perseid.meteor.pairs import make_pair, make_pairs
from perseid.meteor.records import CRITERIA, ComparisonRecord, DecodedAnswer, JudgeRecord, SelfVerdictRecord

BOOTSTRAP = {"resamples": 300, "confidence": 0.95, "seed": 1}
PREFERENCES = st.sampled_from(["first", "second", "tie"])
VERDICTS = st.fixed_dictionaries(dict.fromkeys(CRITERIA, PREFERENCES))


def by_length(request):
    """Prefers the longer answer, wherever it stands."""
    text = request.messages[1].content
    first, second = text.split("Answer A:\n")[1].split("\n\nAnswer B:\n")
    winner = "A" if len(first) > len(second) else "B" if len(second) > len(first) else "tie"
    return [json.dumps(dict.fromkeys(CRITERIA, winner))]


async def test_swapping_the_answers_mirrors_the_verdict():
    engine = ScriptedEngine(by_length)
    straight = await compare_answers(question(), "a longer answer", "short", engine)
    swapped = await compare_answers(question(), "short", "a longer answer", engine)
    assert straight.verdicts == dict.fromkeys(CRITERIA, "first")
    assert swapped.verdicts == mirrored(straight.verdicts)
    assert straight.texts == swapped.swapped_texts
    assert {one.messages for one in engine.requests[:2]} == {one.messages for one in engine.requests[2:]}


async def test_a_judge_that_goes_by_the_position_gives_a_tie_that_is_counted():
    engine = ScriptedEngine(lambda request: [json.dumps(dict.fromkeys(CRITERIA, "A"))])
    record = await compare_answers(question(), "one", "two", engine)
    assert record.verdicts == dict.fromkeys(CRITERIA, "tie")
    assert record.split == CRITERIA
    assert win_report([record], **BOOTSTRAP).shares[0].split == 1.0


async def test_equal_answers_are_a_tie_without_a_call_and_nonsense_is_no_verdict():
    engine = ScriptedEngine(lambda request: ["A is better"])
    same = await compare_answers(question(), "Answer: 5", "answer:  5.", engine)
    assert same.verdicts == dict.fromkeys(CRITERIA, "tie")
    assert engine.requests == []
    lost = await compare_answers(question(), "one", "two", engine)
    assert (lost.verdicts, lost.reason) == (None, "malformed")
    assert len(lost.texts) == len(lost.swapped_texts) == 3
    report = win_report([lost], **BOOTSTRAP)
    assert (report.questions, report.unjudged, report.shares) == (0, 1, ())


@given(VERDICTS, VERDICTS)
def test_both_orders_agree_or_it_is_a_tie_and_exchange_mirrors(straight, swapped):
    got = agreed(straight, swapped)
    assert mirrored(got) == agreed(swapped, straight)
    assert mirrored(mirrored(straight)) == straight
    assert all(got[name] in {straight[name], "tie"} for name in CRITERIA)


@given(st.lists(st.tuples(st.integers(0, 5), VERDICTS), min_size=1, max_size=12))
def test_shares_add_up_to_one_and_mirrored_records_mirror_them(drawn):
    records = [ComparisonRecord(id=f"q{number}", verdicts=verdicts, source="x") for number, verdicts in drawn]
    back = [one.model_copy(update={"verdicts": mirrored(one.verdicts)}) for one in records]
    small = BOOTSTRAP | {"resamples": 20}
    for share, other in zip(win_report(records, **small).shares, win_report(back, **small).shares, strict=True):
        assert share.won + share.tied + share.lost == pytest.approx(1)
        assert share.win_share == pytest.approx(1 - other.win_share)
        assert share.won == pytest.approx(other.lost)
        assert share.win_share == pytest.approx(share.won + share.tied / 2)
        assert share.low - 1e-9 <= share.high


async def test_a_score_without_form_is_none_and_counted():
    answers = {"q1": '{"score": 8}', "q2": "eight", "q3": '{"score": 4}'}
    engine = ScriptedEngine(lambda request: [answers[request.subject]])
    records = [await score_answer(one, "x", engine) for one in questions(3)]
    assert [one.score for one in records] == [8.0, None, 4.0]
    mean = mean_score(records, **BOOTSTRAP)
    assert (mean.mean, mean.scored, mean.unscored) == (6.0, 2, 1)
    assert mean.low <= 6 <= mean.high
    assert mean_score([records[1]], **BOOTSTRAP).mean is None


def verdict_record(number, probability, right, question_id=None):
    return SelfVerdictRecord(
        id=f"q{number}/1",
        question_id=question_id or f"q{number}",
        answer="x",
        model_id="m",
        probability=probability,
        judged_right=right,
    )


def test_agreement_is_auc_accuracy_and_kappa():
    sides = [(0.9, True), (0.8, True), (0.4, True), (0.7, False), (0.2, False), (0.1, False), (None, False)]
    got = agreement([verdict_record(n, p, right) for n, (p, right) in enumerate(sides)], **BOOTSTRAP)
    assert (got.answers, got.unsaid, got.right, got.called_right) == (6, 1, 3, 3)
    assert got.auc.value == pytest.approx(8 / 9)
    assert got.accuracy.value == pytest.approx(4 / 6)
    assert got.kappa.value == pytest.approx((4 / 6 - 0.5) / 0.5)
    for one in (got.auc, got.accuracy, got.kappa):
        assert one.low <= one.value <= one.high


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), st.booleans()), min_size=1, max_size=15))
def test_the_auc_is_that_of_the_evaluation_room(sides):
    got = agreement([verdict_record(n, *side) for n, side in enumerate(sides)], resamples=5, confidence=0.9, seed=1)
    wanted = auc([p for p, _ in sides], [right for _, right in sides])
    if wanted is None:
        assert got.auc is None
    elif got.auc is not None:  # no draw of the five may have had both
        assert got.auc.value == pytest.approx(wanted)


def test_a_figure_that_does_not_exist_is_none():
    assert agreement([], **BOOTSTRAP).accuracy is None
    only_right = agreement([verdict_record(1, 0.9, True), verdict_record(2, 0.8, True)], **BOOTSTRAP)
    assert (only_right.auc, only_right.kappa) == (None, None)
    assert only_right.accuracy.value == 1.0


def test_a_change_is_paired_and_refuses_other_answers():
    before = [verdict_record(n, 0.6, n % 2 == 0) for n in range(20)]
    after = [verdict_record(n, 0.9 if n % 2 == 0 else 0.1, n % 2 == 0) for n in range(20)]
    change = agreement_change(before, after, **BOOTSTRAP)
    assert change.auc.value == pytest.approx(0.5)
    assert change.auc.low == pytest.approx(0.5)
    assert change.accuracy.value == pytest.approx(0.5)
    assert change.kappa.value == pytest.approx(1.0)
    assert agreement_change(before, before, **BOOTSTRAP).auc.value == 0.0
    with pytest.raises(ValueError, match="same answers"):
        agreement_change(before, after[1:], **BOOTSTRAP)
    other = [after[0].model_copy(update={"judged_right": False}), *after[1:]]
    with pytest.raises(ValueError, match="q0/1"):
        agreement_change(before, other, **BOOTSTRAP)


async def test_self_verdicts_are_probabilities_of_judged_answers_and_failures_have_a_reason():
    def verdict(request):
        if request.subject == "q2":
            raise EngineError("boom")
        return ["right"]

    judged = [
        JudgeRecord(id=f"q{n}/1", question_id=f"q{n}", answer="x", right=right, advice="", source="rule")
        for n, right in ((1, True), (2, False), (3, None))
    ]
    got = await self_verdicts(ScriptedEngine(verdict), questions(3), judged)
    assert [(one.probability, one.reason) for one in got] == [(pytest.approx(0.9), ""), (None, "learner-failed")]
    silent = await self_verdicts(ScriptedEngine(verdict, logprobs=False), questions(3), judged[:1])
    assert silent[0].reason == "no-probability"
    with pytest.raises(ValueError, match="q3"):
        await self_verdicts(ScriptedEngine(verdict), questions(2), judged)


def decoded(text, score=None, *, strategy="greedy", truncated=False):
    return DecodedAnswer(
        id=f"q1/{strategy}", question_id="q1", strategy=strategy, text=text, truncated=truncated, tokens=3, samples=1,
        temperature=0.0, score=score, model_id="m",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cheap", "expensive", "reason"),
    [
        (("", 0.1), ("  ", 0.9), "both-empty"),
        (("x", 0.1), ("", 0.9), "empty"),
        (("Answer: 5", 0.1), ("answer:  5.", 0.9), "identical"),
        (("short", 0.5), ("a much longer answer", 0.5), "not-better"),
        (("short", 0.5), ("a much longer answer", 0.55), "not-better"),
        (("short", 0.5), ("a much longer answer", None), "no-score"),
        (("short", 0.5), ("a much longer answer", math.nan), "not-better"),
    ],
)
def test_an_expensive_answer_is_not_preferred_for_its_length(cheap, expensive, reason):
    got = make_pair("p", decoded(*cheap), decoded(*expensive, strategy="beam"), critic=True, margin=0.1)
    assert isinstance(got, Dropped)
    assert got.reason == reason


def test_a_better_answer_is_chosen_and_a_cut_one_never():
    cheap = decoded("a long and wrong answer", 0.2)
    got = make_pair("p", cheap, decoded("short", 0.9, strategy="beam"), critic=True, margin=0.1)
    assert isinstance(got, PreferencePair)
    assert (got.id, got.chosen, got.rejected) == ("q1/greedy-beam", "short", "a long and wrong answer")
    cut = make_pair("p", cheap, decoded("short", 0.9, strategy="beam", truncated=True), critic=True)
    assert cut.reason == "truncated"
    assert isinstance(make_pair("p", cheap, decoded("other", strategy="beam"), critic=False), PreferencePair)


def settings(**more):
    return DecodingSettings(**{"seed": 1, "sampling": SAMPLING, "n": 4, **more})


def four(request):
    if request.kind == "self-verdict":
        likely = math.log(0.9 if "Answer: 2" in request.messages[0].content else 0.1)
        return [completion("right", choices={"right": likely, "wrong": math.log1p(-math.exp(likely))})]
    if request.sampling.n == 1:
        return [completion("Answer: 0", logprob=-4.0)]
    return [
        completion("Answer: 1", logprob=-0.1, finish="length"),
        completion("Answer: 2", logprob=-8.0),
        completion("Answer: 3", logprob=-2.0),
        completion("", logprob=-0.1),
    ]


@pytest.mark.parametrize(("critique", "best"), [("likelihood", "Answer: 3"), ("self-verdict", "Answer: 2")])
async def test_best_of_n_takes_the_best_whole_answer_by_the_learners_critique(critique, best):
    engine = CompletionEngine(four)
    got = await decode(engine, question(), "best-of-n", settings(critique=critique))
    assert (got.text, got.samples, got.temperature) == (best, 4, 0.7)
    cheap = await decode(engine, question(), "greedy", settings(critique=critique))
    assert (cheap.text, cheap.temperature) == ("Answer: 0", 0.0)


async def test_pairs_ask_the_learner_alone_and_add_up():
    def answer(request):
        if request.subject == "q3" and request.sampling.n > 1:
            raise EngineError("boom")
        return four(request)

    engine = CompletionEngine(answer)
    made = await make_pairs(questions(4), engine, "greedy", ["best-of-n", "sample"], settings(critique="self-verdict"))
    assert len(made.pairs) + len(made.dropped) == 8
    assert {one.reason for one in made.dropped} == {"learner-failed", "identical"}
    assert [(one.question_id, one.chosen, one.rejected) for one in made.pairs] == [
        (f"q{n}", "Answer: 2", "Answer: 0") for n in (1, 2, 4)
    ]
    assert set(engine.calls_by_kind) == {"decode", "self-verdict"}
    assert engine.calls_by_kind["decode"] == 4 * 3
    assert {one.strategy for one in made.answers} == {"greedy", "best-of-n", "sample"}


async def test_two_decodings_with_one_answer_make_one_pair():
    async def search(the_question):
        return completion("Answer: 3", logprob=-2.0)

    made = await make_pairs(
        [question()], CompletionEngine(four), "greedy", ["best-of-n", "search"], settings(decoders={"search": search})
    )
    assert len(made.pairs) == 1
    assert [one.reason for one in made.dropped] == ["repeated"]


async def test_a_decoding_that_cannot_be_had_is_an_error_before_anything_is_asked():
    engine = CompletionEngine(four)
    with pytest.raises(DecodingError, match="at least 2 beams"):
        await make_pairs(questions(2), engine, "greedy", ["beam"], settings(n=1))
    with pytest.raises(DecodingError, match="decoder named search"):
        await make_pairs(questions(2), engine, "greedy", ["search"], settings())
    with pytest.raises(DecodingError, match="critique"):
        await make_pairs(questions(2), engine, "greedy", ["best-of-n"], settings(critique=None))
    with pytest.raises(ValueError, match="different decodings"):
        await make_pairs(questions(2), engine, "greedy", ["greedy"], settings())
    assert engine.requests == []


async def test_a_beam_search_is_asked_for_with_the_request():
    def answer(request):
        return [completion("Answer: beam", logprob=-1.0)] if request.sampling.beams else four(request)

    engine = CompletionEngine(answer)
    made = await make_pairs([question()], engine, "greedy", ["beam"], settings())
    assert made.pairs[0].chosen == "Answer: beam"
    asked = {one.sampling.beams: one.sampling for one in engine.requests}
    assert set(asked) == {0, 4}
    assert (asked[4].temperature, asked[4].top_p, asked[4].n) == (0.0, 1.0, 1)
    assert asked[4].max_tokens == asked[0].max_tokens == SAMPLING.max_tokens


async def test_a_decoder_named_beam_takes_the_place_of_the_engines():
    async def beam(the_question):
        return completion("Answer: elsewhere", logprob=-1.0)

    engine = CompletionEngine(four)
    made = await make_pairs([question()], engine, "greedy", ["beam"], settings(n=1, decoders={"beam": beam}))
    assert made.pairs[0].chosen == "Answer: elsewhere"
    assert [one.sampling.beams for one in engine.requests] == [0]


async def test_an_engine_without_beams_stops_the_stage_instead_of_dropping_every_question():
    def answer(request):
        if request.sampling.beams:
            raise UnsupportedSamplingError("no beams here")
        return four(request)

    with pytest.raises(UnsupportedSamplingError):
        await make_pairs(questions(3), CompletionEngine(answer), "greedy", ["best-of-n", "beam"], settings())
