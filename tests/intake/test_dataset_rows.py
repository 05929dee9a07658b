"""What is a row, and what is refused by its line."""

import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.dataset import Message, Row
from app.domain.salora_errors import DatasetRefused, EmptyDataset
from app.intake.dataset_rows import DATASET_LIMITS, DatasetLimits, read_rows

ROOT = Path(__file__).parents[2]
GOOD = b'{"prompt": "p", "response": "r"}\n'


def rows_of(raw: bytes, limits: DatasetLimits = DATASET_LIMITS) -> list[Row]:
    return list(read_rows(io.BytesIO(raw), limits))


def chat(*roles: str, **extra: Any) -> bytes:
    messages = [{"role": role, "content": f"{role} says"} for role in roles]
    return json.dumps({"messages": messages, **extra}).encode()


def test_a_prompt_and_a_response_are_two_messages() -> None:
    (row,) = rows_of('{"response": "ré\\u0000", "prompt": " p "}'.encode())
    assert row == Row(1, (Message("user", " p "), Message("assistant", "ré\0")))


@pytest.mark.parametrize(
    "roles",
    [
        ("user", "assistant"),
        ("system", "user", "assistant"),
        ("user", "assistant", "user", "assistant"),
    ],
)
def test_a_conversation_keeps_its_messages(roles: tuple[str, ...]) -> None:
    (row,) = rows_of(chat(*roles))
    assert tuple(message.role for message in row.messages) == roles
    assert row.messages[0].content == f"{roles[0]} says"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_blank_lines_are_passed_over_and_counted(ending: bytes) -> None:
    raw = ending.join([b"", GOOD.strip(), b" \t ", GOOD.strip()])
    assert [row.line for row in rows_of(raw)] == [2, 4]


@pytest.mark.parametrize("raw", [b"", b"\n\n", b"  \r\n"])
def test_no_rows_are_no_data_set(raw: bytes) -> None:
    with pytest.raises(EmptyDataset):
        rows_of(raw)


def pair(prompt: object, response: object) -> bytes:
    return json.dumps({"prompt": prompt, "response": response}).encode()


REFUSED = [
    (b"{", "not JSON"),
    (b'{"prompt": "p", "response": "r"} {}', "not JSON: Extra data at character 34"),
    (b'{"prompt": "\xff", "response": "r"}', "not UTF-8 at byte 13"),
    (b'{"prompt": "\xed\xa0\x80", "response": "r"}', "not UTF-8"),
    (b'{"prompt": "\\ud800", "response": "r"}', "lone surrogate"),
    (b'{"prompt": "p", "prompt": "q", "response": "r"}', "duplicate key prompt"),
    (b'{"prompt": NaN, "response": "r"}', "NaN"),
    (b"[" * 500_000, "nested"),
    (b'{"messages": [[[[]]]]}', "nested"),
    (b"[]", "it is not an object"),
    (b'"text"', "it is not an object"),
    (b"null", "it is not an object"),
    (b"{}", "prompt is missing"),
    (b'{"prompt": "p"}', "response is missing"),
    (b'{"response": "r"}', "prompt is missing"),
    (b'{"prompt": "p", "response": "r", "id": 1}', "id does not belong here"),
    (b'{"prompt": "p", "response": "r", "\\u001b[2J": 1}', r"\\x1b\[2J does not belong"),
    (pair("p", ""), "response is empty"),
    (pair("p", " \n\t\u2003"), "response is empty"),
    (pair("", "r"), "prompt is empty"),
    (pair(1, "r"), "prompt is not text"),
    (pair("p", None), "response is not text"),
    (pair("p", ["r"]), "response is not text"),
    (chat("user", "assistant", prompt="p"), "prompt does not belong here"),
    (b'{"messages": {}}', "messages is not a list"),
    (b'{"messages": []}', "messages does not end with the assistant's"),
    (b'{"messages": [1]}', r"messages\[0\] is not an object"),
    (b'{"messages": [{"role": "user"}]}', r"messages\[0\].content is missing"),
    (b'{"messages": [{"content": "c"}]}', r"messages\[0\].role is missing"),
    (b'{"messages": [{"role": [], "content": "c"}]}', r"messages\[0\].role is not one of"),
    (b'{"messages": [{"role": "user", "content": []}]}', r"messages\[0\].content is not text"),
    (b'{"messages": [{"role": "user", "content": " "}]}', r"messages\[0\].content is empty"),
    (b'{"messages": [{"role": "user", "content": "c", "name": "n"}]}', r"messages\[0\].name does"),
    (chat("tool", "assistant"), r"messages\[0\].role is not one of system, user, assistant"),
    (chat("assistant"), r"messages\[0\].role is assistant where user is due"),
    (chat("user"), "messages does not end with the assistant's"),
    (chat("system"), "messages does not end with the assistant's"),
    (chat("user", "user", "assistant"), r"messages\[1\].role is user where assistant is due"),
    (chat("user", "system", "assistant"), r"messages\[1\].role is system where assistant is due"),
    (chat("system", "system", "user", "assistant"), r"messages\[1\].role is system"),
    (chat("user", "assistant", "user"), "messages does not end with the assistant's"),
]


@pytest.mark.parametrize(("raw", "reason"), REFUSED)
def test_a_row_that_cannot_be_used_is_refused_by_line_and_field(raw: bytes, reason: str) -> None:
    with pytest.raises(DatasetRefused, match=reason) as refused:
        rows_of(GOOD + b"\n" + raw + b"\n" + GOOD)
    assert refused.value.facts["line"] == 3


@pytest.mark.parametrize(
    ("raw", "roles"),
    [
        (b'{"prompt": "p"}', ("user",)),
        (b'{"prompt": "p", "response": "r"}', ("user", "assistant")),
        (chat("user"), ("user",)),
        (chat("system", "user"), ("system", "user")),
        (chat("user", "assistant", "user"), ("user", "assistant", "user")),
        (chat("user", "assistant"), ("user", "assistant")),
    ],
)
def test_where_responses_are_optional_a_prompt_is_a_row(raw: bytes, roles: tuple[str, ...]) -> None:
    (row,) = read_rows(io.BytesIO(raw), responses="optional")
    assert tuple(message.role for message in row.messages) == roles
    assert row.is_answered == (roles[-1] == "assistant")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{}", "prompt is missing"),
        (b'{"response": "r"}', "prompt is missing"),
        (b'{"prompt": "p", "response": null}', "response is not text"),
        (b'{"prompt": "p", "response": " "}', "response is empty"),
        (b'{"prompt": "p", "answer": "r"}', "answer does not belong here"),
        (b'{"messages": []}', "ends with neither the user's nor the assistant's"),
        (chat("system"), "ends with neither the user's nor the assistant's"),
        (chat("user", "user"), r"messages\[1\].role is user where assistant is due"),
        (chat("user", prompt="p"), "prompt does not belong here"),
    ],
)
def test_an_optional_response_is_no_other_row(raw: bytes, reason: str) -> None:
    with pytest.raises(DatasetRefused, match=reason):
        list(read_rows(io.BytesIO(raw), responses="optional"))


def test_a_byte_order_mark_is_refused() -> None:
    with pytest.raises(DatasetRefused, match="byte order mark"):
        rows_of(b"\xef\xbb\xbf" + GOOD)


@pytest.mark.parametrize(
    ("raw", "limits", "line", "reason"),
    [
        (GOOD + b'{"prompt": "pppp"}', DatasetLimits(line_bytes=len(GOOD) - 1), 1, "longer than"),
        (GOOD + pair("p" * 99, "r"), DatasetLimits(line_bytes=len(GOOD)), 2, "longer than"),
        (GOOD + b" " * 200, DatasetLimits(line_bytes=len(GOOD)), 2, "longer than"),
        (GOOD * 4, DatasetLimits(rows=3), 4, "more than 3 rows"),
        (b"\n" * 9 + GOOD, DatasetLimits(lines=8), 9, "more than 8 lines"),
        (chat("user", "assistant", "user"), DatasetLimits(messages=2), 1, "more than 2"),
    ],
)
def test_what_is_over_a_limit_is_refused(
    raw: bytes, limits: DatasetLimits, line: int, reason: str
) -> None:
    with pytest.raises(DatasetRefused, match=reason) as refused:
        rows_of(raw, limits)
    assert refused.value.facts["line"] == line


def test_rows_before_a_bad_one_are_given_as_they_are_read() -> None:
    rows = read_rows(io.BytesIO(GOOD * 2 + b"{"))
    assert [next(rows).line, next(rows).line] == [1, 2]
    with pytest.raises(DatasetRefused):
        next(rows)


READ = """
import resource, sys
from app.domain.salora_errors import DatasetRefused
from app.intake.dataset_rows import read_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    with open(sys.argv[1], "rb") as file:
        for row in read_rows(file):
            pass
except DatasetRefused as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_line_of_gigabytes_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "')
        file.truncate(8 << 30)  # sparse
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", READ, path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said, grown = done.stdout.splitlines()
    assert "line 1: it is longer than" in said
    assert int(grown) * (1024 if sys.platform == "linux" else 1) < 64 << 20
    assert time.monotonic() - began < 20


def test_many_rows_take_no_more_memory_than_few(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with path.open("wb") as file:
        for _ in range(64):
            file.write(pair("p" * 200_000, "r" * 200_000) + b"\n")
    done = subprocess.run(
        [sys.executable, "-c", READ, path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * (1024 if sys.platform == "linux" else 1) < 16 << 20


def spent(raw: bytes) -> float:
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(DatasetRefused):
        rows_of(raw)
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime - began


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b"0," * 500_000 + b"0]",
        b"[" * 1_000_000,
        b'{"messages": [' + b"{}," * 300_000 + b"{}]}",
        b'{"prompt": ' + b"9" * 1_000_000 + b"}",
        b'"' + b"\\ud800" * 150_000 + b'"',
        b"{" + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}",
        b" " * 1_000_000 + b"{",
        b"\n" * 2_000_001,
    ],
    ids=["numbers", "brackets", "messages", "digits", "surrogates", "keys", "blanks", "lines"],
)
def test_the_dearest_lines_take_little_time(raw: bytes) -> None:
    assert spent(raw) < 2


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), st.booleans())
def test_every_text_comes_back_as_it_went(pairs: list[tuple[str, str]], is_ascii: bool) -> None:
    lines = [
        json.dumps({"prompt": prompt, "response": response}, ensure_ascii=is_ascii)
        for prompt, response in pairs
    ]
    found = rows_of("\n".join(lines).encode())
    assert [tuple(m.content for m in row.messages) for row in found] == pairs
    assert [row.line for row in found] == list(range(1, len(pairs) + 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["prompt", "response", "messages", "role", "content", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON.map(json.dumps).map(str.encode) | st.binary(max_size=40), max_size=4))
def test_whatever_comes_is_rows_or_a_refusal(lines: list[bytes]) -> None:
    try:
        found = rows_of(b"\n".join(lines))
    except (DatasetRefused, EmptyDataset) as refusal:
        str(refusal).encode()
        return
    for row in found:
        roles = [message.role for message in row.messages]
        assert roles[-1] == "assistant"
        assert all(message.content.strip() for message in row.messages)
