"""A data set: conversations in JSON lines, and what is known of them without a tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, get_args

from app.domain.adapter import FileEntry

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
Responses = Literal["required", "optional"]
"""Whether each row must have one; `optional` takes prompts alone too."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation. What the assistant says in it is the response; it ends with one, or, of a
    prompt alone, with what the user says.

    In a set of harmful or benign prompts a row's response, where given, is what a compliant answer
    would be.
    """

    line: int  # of the file, from 1
    messages: tuple[Message, ...]

    @property
    def is_answered(self) -> bool:
        return self.messages[-1].role == "assistant"


@dataclass(frozen=True)
class TokenCount:
    """Of one model's tokenizer, over the plain texts: no template, no special tokens."""

    prompt: int
    response: int


@dataclass(frozen=True)
class StoredDataset:
    """An accepted data set as the records know it."""

    id: str  # SHA-256 (hex) of the file
    created_at: datetime
    file: FileEntry
    rows: int
    prompt_characters: int
    response_characters: int
    tokens: Mapping[str, TokenCount] = field(default_factory=dict)  # by the model's id
    unanswered: int = 0  # rows without a response
