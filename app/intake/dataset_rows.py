"""Untrusted JSON lines -> conversations, one at a time, whatever the size of the file.

A line is `{"prompt": "...", "response": "..."}` or `{"messages": [{"role": "...", "content":
"..."}, ...]}`: perhaps a system message first, then user and assistant in turns, the assistant
last. Where responses are optional, the `response` may be left out, and the user may be last. Every
text says something. Nothing else is taken, so that no field is silently left out of a training.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError
from typing import BinaryIO, NoReturn

from app.domain.dataset import ROLES, Message, Responses, Role, Row
from app.domain.salora_errors import DatasetRefused, EmptyDataset
from app.intake.names import shown
from app.intake.strict_json import parse_json

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DEPTH = 3  # an object, its messages, and each of them
PAIR: Mapping[str, Role] = {"prompt": "user", "response": "assistant"}


@dataclass(frozen=True)
class DatasetLimits:
    """Caps on one data set, each with its reason."""

    # because 1 MiB of text is about 250,000 tokens, which no model of today reads in training
    line_bytes: int = 1 << 20
    rows: int = 1_000_000  # because the largest sets of instructions in use have fewer
    lines: int = 2_000_000  # because empty lines cost time too
    messages: int = 1_000  # of one row; because long chats have dozens


DATASET_LIMITS = DatasetLimits()


class _Fault(Exception):
    """What is wrong with a line, before it is known which it is."""


def read_rows(
    file: BinaryIO, limits: DatasetLimits = DATASET_LIMITS, responses: Responses = "required"
) -> Iterator[Row]:
    """The rows of a file that is open for reading in binary, in bounded memory.

    Blank lines are passed over, and counted. Raises DatasetRefused naming the line, and
    EmptyDataset at the end of a file without rows.
    """
    found = 0
    for line, raw in _lines(file, limits):
        try:
            messages = _messages(raw, limits, responses)
        except _Fault as fault:
            raise DatasetRefused(line=line, reason=str(fault)) from None
        found += 1
        if found > limits.rows:
            raise DatasetRefused(line=line, reason=f"there are more than {limits.rows} rows")
        yield Row(line, messages)
    if not found:
        raise EmptyDataset


def _lines(file: BinaryIO, limits: DatasetLimits) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers; of a line that is too long only its begin is
    ever read."""
    line = 0
    while raw := file.readline(limits.line_bytes + 1):
        line += 1
        if len(raw) > limits.line_bytes:
            reason = f"it is longer than {limits.line_bytes} bytes"
            raise DatasetRefused(line=line, reason=reason)
        if line > limits.lines:
            raise DatasetRefused(line=line, reason=f"there are more than {limits.lines} lines")
        if line == 1 and raw.startswith(BYTE_ORDER_MARK):
            reason = "it begins with a byte order mark; save the file as UTF-8 without one"
            raise DatasetRefused(line=line, reason=reason)
        if raw.strip(b" \t\r\n"):
            yield line, raw


def _messages(raw: bytes, limits: DatasetLimits, responses: Responses) -> tuple[Message, ...]:
    row = _object(_parsed(raw), "it")
    if "messages" in row:
        _check_keys(row, ("messages",))
        return _conversation(row["messages"], limits, responses)
    _check_keys(row, tuple(PAIR) if responses == "required" else ("prompt",), optional=PAIR)
    return tuple(Message(role, _text(row[key], key)) for key, role in PAIR.items() if key in row)


def _parsed(raw: bytes) -> object:
    try:
        return parse_json(raw, depth=DEPTH)
    except UnicodeDecodeError as error:
        _refuse(f"it is not UTF-8 at byte {error.start + 1}")
    except JSONDecodeError as error:
        _refuse(f"it is not JSON: {error.msg} at character {error.pos + 1}")
    except ValueError as error:
        _refuse(str(error))


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        _refuse(f"{what} is not an object")
    return value


def _check_keys(
    value: dict[str, object],
    wanted: tuple[str, ...],
    within: str = "",
    optional: Container[str] = (),
) -> None:
    for key in value:
        if key not in wanted and key not in optional:
            _refuse(f"{within}{shown(key)[:100]} does not belong here")
    for key in wanted:
        if key not in value:
            _refuse(f"{within}{key} is missing")


def _conversation(
    value: object, limits: DatasetLimits, responses: Responses
) -> tuple[Message, ...]:
    if not isinstance(value, list):
        _refuse("messages is not a list")
    if len(value) > limits.messages:
        _refuse(f"messages has more than {limits.messages}")
    messages = tuple(_message(item, f"messages[{at}]") for at, item in enumerate(value))
    _check_turns(messages)
    _check_end(messages, responses)
    return messages


def _message(value: object, where: str) -> Message:
    fields = _object(value, where)
    _check_keys(fields, ("role", "content"), f"{where}.")
    return Message(_role(fields["role"], where), _text(fields["content"], f"{where}.content"))


def _role(value: object, where: str) -> Role:
    role = next((role for role in ROLES if role == value), None)
    if role is None:
        _refuse(f"{where}.role is not one of {', '.join(ROLES)}")
    return role


def _check_turns(messages: tuple[Message, ...]) -> None:
    first = 1 if messages and messages[0].role == "system" else 0
    for at, message in enumerate(messages[first:]):
        expected = ("user", "assistant")[at % 2]
        if message.role != expected:
            _refuse(f"messages[{first + at}].role is {message.role} where {expected} is due")


def _check_end(messages: tuple[Message, ...], responses: Responses) -> None:
    last = messages[-1].role if messages else "system"
    if responses == "required" and last != "assistant":
        _refuse("messages does not end with the assistant's")
    if last == "system":
        _refuse("messages ends with neither the user's nor the assistant's")


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        _refuse(f"{field} is not text")
    if not value.strip():
        _refuse(f"{field} is empty")
    return value


def _refuse(reason: str) -> NoReturn:
    raise _Fault(reason)
