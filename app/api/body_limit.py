"""Limits on every request body, of its size and of its time, answered as a problem.

The framework's own limit answers in plain text and cannot be told otherwise.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from anyio import fail_after
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem_of
from app.domain.errors import TooLarge


@dataclass(frozen=True)
class Pace:
    """The slowest that a body may come, so that nobody holds a place for ever."""

    bytes_per_s: float
    grace_s: float

    def allowed_s(self, received: int) -> float:
        """To wait for a body of which so many bytes have come."""
        return self.grace_s + received / self.bytes_per_s


class BodyLimit:
    """ASGI middleware: `limits` in bytes by exact path, `default` elsewhere; one pace for all."""

    def __init__(
        self, app: ASGIApp, *, default: int, limits: Mapping[str, int], pace: Pace
    ) -> None:
        self._app, self._default, self._limits, self._pace = app, default, limits, pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], self._default)
        if _declared(scope) > limit:
            error = TooLarge(what="the request body", limit_bytes=limit)
            await problem_of(error)(scope, receive, send)
            return
        await self._app(scope, _Body(receive, limit, self._pace).receive, send)


def _declared(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


class _Body:
    """Raises 413 or 408 in the route that reads it, where errors become problems."""

    def __init__(self, receive: Receive, limit: int, pace: Pace) -> None:
        self._receive, self._limit, self._pace = receive, limit, pace
        self._received, self._ended, self._waited_s = 0, False, 0.0

    async def receive(self) -> Message:
        message = await (self._receive() if self._ended else self._in_time())
        self._received += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._received > self._limit:
            raise HTTPException(413, f"the request body is over the limit of {self._limit} bytes")
        return message

    async def _in_time(self) -> Message:
        """Counts the time that we wait for the client, and none of our own."""
        began = time.monotonic()
        try:
            with fail_after(max(self._pace.allowed_s(self._received) - self._waited_s, 0)):
                return await self._receive()
        except TimeoutError:
            # closed, because the rest of the body would be taken for the next request
            headers = {"Connection": "close"}
            raise HTTPException(408, "the request body came too slowly", headers) from None
        finally:
            self._waited_s += time.monotonic() - began
