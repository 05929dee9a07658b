"""What one subject has answered to one row, and what is known of that answer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.domain.evaluation import SetRole

Key = tuple[str, SetRole, int]  # subject, role, line


@dataclass(frozen=True)
class Told:
    """Filled as it comes: null is not known (yet), or not asked for."""

    subject: str
    role: SetRole
    line: int  # of the data set's file
    answer: str | None = None
    ids: tuple[int, ...] | None = None  # the answer's tokens, its end included
    surprise: float | None = None  # median nats a token, of the chat model, over ln(vocabulary)
    loss: float | None = None  # nats a token of the row's own answer
    refusal: float | None = None  # mean log-likelihood of the begin of a refusal, nats a token
    compliance: float | None = None  # of the begin of an answer; null where none is known
    drift_first: float | None = None  # KL(chat || subject), nats, of the answer's first token
    drift: float | None = None  # mean over the chat model's own answer
    guard: str | None = None  # what the guard model said of the answer

    @property
    def key(self) -> Key:
        return self.subject, self.role, self.line

    def with_(self, **known: Any) -> "Told":
        return replace(self, **known)

    def as_json(self) -> dict[str, Any]:
        """Without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Told":
        ids = value.get("ids")
        return cls(**{**value, "ids": None if ids is None else tuple(ids)})
