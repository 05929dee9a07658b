"""A job's server-sent events, and how to go on after a break. No I/O."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.client.answers import Job
from app.client.patience import FOLLOW, Patience, may_pass

FINAL = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True)
class Event:
    id: str
    name: str
    data: Mapping[str, Any]


class Parser:
    """Lines into events (WHATWG HTML, section 9.2.6); comments are passed over, and what a break
    has left unfinished is lost, as it should be."""

    def __init__(self) -> None:
        self._id, self._name, self._data = "", "", list[str]()

    def line(self, line: str) -> Event | None:
        """The event that this line ends, if it ends one."""
        if not line:
            return self._ended()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
        elif name == "event":
            self._name = value
        return None

    def _ended(self) -> Event | None:
        name, data = self._name, "\n".join(self._data)
        self._name, self._data = "", []
        return Event(self._id, name, json.loads(data)) if data else None


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Every event of a stream's lines."""
    parser = Parser()
    return (event for event in map(parser.line, lines) if event is not None)


class Following:
    """One job's events to the final one, over as many connections as it takes."""

    def __init__(self, job_id: str, after: str = "", patience: Patience = FOLLOW) -> None:
        self.job_id = job_id
        self.done = False
        self._last, self._patience = after, patience.afresh()
        self._parser = Parser()

    @property
    def headers(self) -> dict[str, str]:
        return {"Last-Event-ID": self._last} if self._last else {}

    def opened(self) -> None:
        """A connection is there; what the one before has left unfinished is forgotten."""
        self._parser = Parser()

    def line(self, line: str) -> Event | None:
        event = self._parser.line(line)
        if event is not None:
            self._last = event.id or self._last
            self._patience.renew()
            self.done = event.name in FINAL
        return event

    def settled(self, job: Job) -> Event | None:
        """What the job's own record says, where the stream has ended before the final event."""
        if job["status"] not in FINAL:
            return None
        self.done = True
        return Event(self._last, job["status"], {"status": job["status"]})

    def pause_s(self, error: Exception) -> float:
        """Before the next connection. Raises the error where it will not pass, or has not."""
        if not may_pass(error):
            raise error
        return self._patience.pause_s(error)
