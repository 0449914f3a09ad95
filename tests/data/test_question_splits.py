"""Splits by question, as properties."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perseid.data.errors import DataError
from perseid.data.question_splits import SPLITS, select_split, split_of
from perseid.data.question_text import normalised, plain_text
from perseid.data.records import Question

words = st.text(alphabet="abcdeéß 0123456789", min_size=1, max_size=30).filter(str.strip)


@st.composite
def question_lists(draw: st.DrawFn) -> list[Question]:
    """Questions some of which share families; the same text always has the same family."""
    families: dict[str, str] = {}
    questions = []
    for number, title in enumerate(draw(st.lists(words, min_size=1, max_size=30))):
        family = families.setdefault(normalised(title), draw(st.sampled_from(["", "", "one", "two", "three"])))
        questions.append(Question(id=str(number), title=title, family=family))
    return questions


def split_everything(questions: list[Question]) -> dict[str, str]:
    return {each.id: split for split in SPLITS for each in select_split(questions, split, "here")}


@given(question_lists())
def test_every_question_is_in_one_split_and_no_text_or_family_in_two(questions: list[Question]) -> None:
    found = [each.id for split in SPLITS for each in select_split(questions, split, "here")]
    assert sorted(found) == sorted(each.id for each in questions)
    homes = split_everything(questions)
    for keys in ([each.family or each.id for each in questions], [normalised(each.text) for each in questions]):
        by_key: dict[str, set[str]] = {}
        for key, question in zip(keys, questions, strict=True):
            by_key.setdefault(key, set()).add(homes[question.id])
        assert all(len(splits) == 1 for splits in by_key.values())


@given(question_lists(), st.integers(min_value=0), st.data())
def test_a_question_stays_in_its_split_when_rows_are_reordered_added_or_removed(
    questions: list[Question], seed: int, data: st.DataObject
) -> None:
    before = split_everything(questions)
    others = [Question(id=f"new-{number}", title=f"new question {seed} {number}") for number in range(5)]
    kept = [each for each in questions if data.draw(st.booleans())]
    changed = [*kept, *others]
    random.Random(seed).shuffle(changed)
    after = split_everything(changed)
    assert {each.id: after[each.id] for each in kept} == {each.id: before[each.id] for each in kept}


@given(words)
def test_case_punctuation_layout_and_html_do_not_move_a_question(title: str) -> None:
    home = split_of(Question(id="a", title=title))
    for other in (title.upper(), f"  {title}?! ", title.replace(" ", "\t\n"), f"<p>{title}</p>", f"**{title}**"):
        assert split_of(Question(id="b", title=other)) == home


def test_ids_fields_and_answers_do_not_move_a_question_and_numbers_make_another() -> None:
    one = Question(id="a", title="How many metres are 3 kilometres?")
    assert split_of(one) == split_of(one.model_copy(update={"id": "b", "field": "x", "answer": "3000"}))
    assert normalised(one.text) != normalised("How many metres are 5 kilometres?")


def test_the_splits_are_the_same_in_every_version_forever() -> None:
    """Written down once: a change here would move questions between the splits of runs that already exist."""
    titles = [f"How do I sort list number {number}?" for number in range(12)]
    assert [split_of(Question(id="a", title=title)) for title in titles] == [
        "train",
        "train",
        "test",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
        "train",
    ]


def test_about_eighty_ten_and_ten_of_a_hundred_families_go_to_the_splits() -> None:
    homes = [split_of(Question(id="a", title="t", family=str(number))) for number in range(4000)]
    assert 0.77 < homes.count("train") / 4000 < 0.83
    assert 0.08 < homes.count("dev") / 4000 < 0.12
    assert 0.08 < homes.count("test") / 4000 < 0.12


def test_one_text_in_two_families_of_different_splits_is_an_error_that_names_both() -> None:
    homes = {split_of(Question(id="a", title="t", family=str(number))): str(number) for number in range(100)}
    questions = [
        Question(id="first", title="Same?", family=homes["train"]),
        Question(id="second", title="same", family=homes["test"]),
    ]
    with pytest.raises(DataError, match="'first' and 'second' have the same text"):
        select_split(questions, "train", "here")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One</p><p>Two<br>Three</p>", "One\n\nTwo\nThree"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b"),
        ("<p>x</p><pre>a   b\n  <b>c</b></pre>", "x\n\n```\na   b\n  c\n```"),
        ("<p>x</p><pre><code>```\ny\n```</code></pre>", "x\n\n````\n```\ny\n```\n````"),
        ("<p>open <pre>code &amp; more", "open\n\n```\ncode & more\n```"),
        ("<p>a</p><script>alert('<p>')</script><style>p {}</style><p>b</p>", "a\n\nb"),
        ('<p>see <a href="x">this</a> <img src="y" alt="a cat"></p>', "see this a cat"),
        ("<p>&lt;p&gt; is a tag</p>", "<p> is a tag"),
        ("vector<int> a; a < b && b > c", "vector<int> a; a < b && b > c"),
        ("  two\r\nlines ", "two\nlines"),
        ("<p>nul\0 byte</p>", "nul byte"),
        ("<p></p>", ""),
    ],
)
def test_html_becomes_text_and_other_text_stays(html: str, text: str) -> None:
    assert plain_text(html) == text


@given(st.text(alphabet="<>/pre code&;lt\n `\0!-", max_size=60))
def test_no_html_however_broken_is_an_error(text: str) -> None:
    assert "\0" not in plain_text(text)
