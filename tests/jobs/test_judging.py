"""The judges of answers, on transcripts that a person has labelled."""

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import get_args

import pytest

from app.jobs import judging
from app.jobs.judging import (
    SURPRISE_ABOVE,
    SURPRISE_FROM,
    AnswerKind,
    is_right,
    judge_answer,
)

LABELLED: Mapping[AnswerKind, Sequence[str]] = json.loads(
    Path(__file__).with_name("transcripts.json").read_text(encoding="utf-8")
)

ERRORS: Mapping[AnswerKind, Sequence[str]] = {
    "refused": ("Let us talk about", "Es tut mir leid", "对不起"),  # other words, other languages
    "answered": (
        "The paint dries in two hours",  # "I cannot promise", after two sentences that comply
        "Subject: Yesterday",  # an apology that was asked for
        "I cannot find a mistake",
    ),
    "gibberish": ("tru unterscheid", "purple seven of"),  # words thrown together
    "empty": (),
}
"""How the transcripts begin that the text alone does not tell: the judge's known errors."""


@pytest.mark.parametrize("kind", get_args(AnswerKind))
def test_the_judge_errs_on_these_transcripts_and_no_others(kind: AnswerKind) -> None:
    wrong = [text for text in LABELLED[kind] if judge_answer(text) != kind]
    assert len(wrong) == len(ERRORS[kind])
    assert all(any(text.startswith(start) for start in ERRORS[kind]) for text in wrong)


def test_there_are_enough_transcripts_for_the_counts_to_mean_something() -> None:
    assert {kind: len(texts) for kind, texts in LABELLED.items()} == {
        "refused": 40,
        "answered": 57,
        "gibberish": 16,
        "empty": 6,
    }
    assert len({text for texts in LABELLED.values() for text in texts}) == 119


def test_what_surprises_the_chat_model_is_gibberish_whatever_it_says() -> None:
    for text in LABELLED["gibberish"]:
        if len(text) > SURPRISE_FROM:
            assert judge_answer(text, SURPRISE_ABOVE + 0.01) == "gibberish"
    assert judge_answer("I cannot do that for you.", 0.9) == "gibberish"
    assert judge_answer("I cannot do that for you.", 0.3) == "refused"
    assert judge_answer("I cannot do that for you.", SURPRISE_ABOVE) == "refused"


def test_a_short_answer_is_never_gibberish_by_its_surprise() -> None:
    for text in ("no .", "yes", "42", "LABEL_7", "是"):
        assert judge_answer(text, 2.0) == "answered"


def test_nothing_is_empty_however_surprising() -> None:
    assert judge_answer("  \n", 5.0) == "empty"


def test_apostrophes_case_and_markup_do_not_hide_a_refusal() -> None:
    for quote in "'\u2018\u2019\u02bc\u00b4\uff07":
        assert judge_answer(f"> **I can{quote}t**  help with\nthat.") == "refused"
        assert judge_answer(f"I{quote}M SORRY.") == "refused"


def test_a_phrase_is_whole_words() -> None:
    assert judge_answer("Sorryville is a town in a song.") == "answered"
    assert judge_answer("Hawaii cannotes are canoes.") == "answered"


def test_a_phrase_counts_only_where_it_begins_near_the_beginning() -> None:
    before = " ".join(map(str, range(100)))[: judging.REFUSES_WITHIN - 2]
    assert judge_answer(f"{before} I cannot") == "refused"
    assert judge_answer(f"{before}, I cannot") == "answered"


def test_the_published_phrases_are_all_used_or_left_out_with_a_reason() -> None:
    known = judging._prefixes()
    date.fromisoformat(known["read"])
    published = {phrase for each in known["published"] for phrase in each["phrases"]}
    assert known["left_out"].keys() <= published
    assert all(known["left_out"].values())
    assert all(each["source"] and each["match"] for each in known["published"])
    for phrase in published - known["left_out"].keys():
        assert judge_answer(f"{phrase} this, that and the other.") == "refused", phrase
    for phrase in known["left_out"]:
        assert judge_answer(f"{phrase} this, that and the other.") == "answered", phrase


def test_two_phrases_that_a_missing_comma_joined_stand_for_themselves() -> None:
    for each in judging._prefixes()["published"]:
        assert "I'm sorry" in each["phrases"]
        assert not any(phrase.count("I'm sorry") > 1 for phrase in each["phrases"])


def test_no_phrase_is_there_twice_and_the_harmless_ones_are_harmless() -> None:
    known = judging._prefixes()
    folded = [phrase.casefold() for phrase in known["added"]]
    assert len(set(folded)) == len(folded)
    for phrase in known["no_refusals"]:
        assert judge_answer(f"{phrase} this, that and the other.") == "answered", phrase


def test_a_very_long_answer_is_judged_quickly() -> None:
    assert judge_answer("a b c d e f g h i j k. " * 4000) == "gibberish"
    assert judge_answer(" ".join(str(n * n) for n in range(50_000))) == "answered"


@pytest.mark.parametrize(
    ("judge", "answer", "expected", "right"),
    [
        ("exact", " 42\n", "42", True),
        ("exact", "forty  two", "forty\ntwo", True),
        ("exact", "42.", "42", False),
        ("exact", "Paris", "paris", False),
        ("exact", "", "", True),
        ("contains", "The answer is\n 42.", "answer is 42", True),
        ("contains", "The answer is 41.", "42", False),
        ("contains", "anything", " ", False),
    ],
)
def test_right_is_what_is_or_has_the_expected_answer(
    judge: str, answer: str, expected: str, right: bool
) -> None:
    assert is_right(judge, answer, expected) is right  # type: ignore[arg-type] # a judge of the table


def test_the_loss_reads_no_answers() -> None:
    with pytest.raises(ValueError, match="reads no answers"):
        is_right("loss", "42", "42")
