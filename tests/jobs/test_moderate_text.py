"""What is written to a hub: a stranger's text stays text."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from app.domain.method import Method, Selection
from app.domain.policy import Plan, Thresholds
from app.domain.verdict import Push, Verdict
from app.jobs.moderate_text import (
    BEGIN,
    END,
    MAX_POST_CHARS,
    MAX_ROWS,
    card_with,
    marker_of,
    post_of,
    quiet,
    title_of,
)
from tests.jobs.test_decide import report

HOSTILE = "q_proj|<script>alert(1)</script>`@all [x](https://evil.example) www.evil.example"
PLAN = Plan("f" * 64, "acme/*", "*", "b/base", "c/chat", Method(), None, Thresholds(), {}, False)
NOW = datetime.now(UTC)


def a_verdict(**changes: Any) -> Verdict:
    push = Push("hook", "repo-id", "acme/adapter", "refs/heads/main", "a" * 40)
    made = Verdict("v" * 32, push, NOW, "judged", NOW, plan=PLAN, verdict="review", why="because")
    return replace(made, **changes)


def a_report(count: int = 2) -> dict[str, Any]:
    found = report([0.1] * count, Method(select=Selection("all", None))).as_json()
    found["layers"][0]["module"] = HOSTILE
    found["warnings"] = [HOSTILE]
    return found


def is_harmless(text: str) -> bool:
    unescaped = text.replace("\\<", "").replace("\\`", "").replace("\\|", "").replace("\\[", "")
    return not any(bad in unescaped for bad in ("<script", "@all", "](https:", "www.e", "q_proj|"))


def test_hostile_names_are_only_text() -> None:
    assert is_harmless(quiet(HOSTILE))
    assert "\n" not in quiet("a\nb")


def test_a_card_section_escapes_module_names_and_warnings() -> None:
    assert is_harmless(card_with(a_verdict(), a_report(), None))


def test_a_post_escapes_the_sentence_and_holds_its_marker_however_long_it_is() -> None:
    verdict = a_verdict(why=HOSTILE * 1000)
    text = post_of(verdict, "discussion")
    assert is_harmless(text)
    assert len(text) <= MAX_POST_CHARS
    assert marker_of(verdict, "discussion") in text
    assert marker_of(verdict, "pull_request") not in text


@pytest.mark.parametrize("name", ["pass", "patched", "review", "inconclusive", "refused"])
def test_each_verdict_has_a_title_and_a_text_of_its_own(name: Any) -> None:
    verdict = a_verdict(verdict=name, numbers={"modules": 3, "median_retained_energy": 0.123})
    assert title_of(verdict).endswith(verdict.push.sha[:12])
    text = post_of(verdict, "discussion")
    assert f"**Verdict: {name}.**" in text
    assert "| modules | 3 |" in text
    assert "| 0.123 |" in text
    assert ("it does not say that the adapter is safe" in text) == (name == "pass")


@pytest.mark.parametrize(
    ("card", "begin", "end"),
    [
        (None, BEGIN, END),
        ("# Mine\n", BEGIN, "# Mine\n"),
        ("---\na: b\n---\n# Mine\n", f"---\na: b\n---\n{BEGIN}", "# Mine\n"),
        ("---\r\na: b\r\n---\r\n# Mine\r\n", f"---\r\na: b\r\n---\r\n{BEGIN}", "# Mine\r\n"),
        (f"{BEGIN}\nold\n{END}\n# Mine\n", BEGIN, "# Mine\n"),
        (f"# Mine\n{BEGIN}\nold\n{END}\nmore", BEGIN, "# Mine\nmore"),
        (f"{END}# Mine\n{BEGIN} <!-- open", BEGIN, "# Mine\n <!-- open"),
        (f"{BEGIN[:10]}{BEGIN}{BEGIN[10:]}# Mine", BEGIN, "# Mine"),
        (f"{BEGIN[:10]}{BEGIN}old{END}{BEGIN[10:]}# Mine", BEGIN, "# Mine"),
        (f"{END[:9]}{BEGIN[:9]}{END}{BEGIN[9:]}{END[9:]}# Mine", BEGIN, "# Mine"),
    ],
)
def test_a_card_keeps_what_is_not_ours(card: str | None, begin: str, end: str) -> None:
    text = card_with(a_verdict(), a_report(), card)
    assert text.startswith(begin)
    assert text.rstrip("\n").endswith(end.rstrip("\n"))
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
    assert "old" not in text.partition(END)[2]
    assert card_with(a_verdict(), a_report(), text) == text


@pytest.mark.parametrize(
    "piece", [BEGIN, END, BEGIN[:10], BEGIN[:-1], ">", f"{BEGIN}{END}", "---\n", "\n---", "\n--- "]
)
def test_the_time_for_a_card_is_linear_in_its_length(piece: str) -> None:
    """Half a megabyte; a search for each marker anew takes minutes."""
    cards = [piece * (2**19 // len(piece)), "---\n" + piece * (2**19 // len(piece))]
    cards.append(BEGIN[:10] * 13_000 + BEGIN[10:] * 13_000)  # one inside the other
    begun_s = time.process_time()
    for card in cards:
        text = card_with(a_verdict(), a_report(), card)
        assert (text.count(BEGIN), text.count(END)) == (1, 1)
    assert time.process_time() - begun_s < 5


def test_a_long_table_is_cut() -> None:
    text = card_with(a_verdict(), a_report(MAX_ROWS + 5), None)
    assert "and 5 more." in text
