"""Limits on every request body, of its size and of the time it takes, answered as problems.

The framework's own limit answers in plain text and cannot be told otherwise.
"""

import asyncio
import time
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem_of
from app.domain.errors import TooLarge

FIRST_S = 30.0  # that a body has before its speed counts


class BodyLimit:
    """ASGI middleware: `limits` in bytes by exact path, `default` elsewhere."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        default: int,
        limits: Mapping[str, int],
        min_bytes_s: int = 0,
        first_s: float = FIRST_S,
    ) -> None:
        self._app, self._default, self._limits = app, default, limits
        self._min_bytes_s, self._first_s = min_bytes_s, first_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], self._default)
        if _declared(scope) > limit:
            error = TooLarge(what="the request body", limit_bytes=limit)
            await problem_of(error)(scope, receive, send)
            return
        timed = _timed(receive, self._min_bytes_s, self._first_s) if self._min_bytes_s else receive
        await self._app(scope, _counting(timed, limit), send)


def _declared(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


def _counting(receive: Receive, limit: int) -> Receive:
    """Raises 413 in the route that reads past the limit, where errors become problems."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"the request body is over the limit of {limit} bytes")
        return message

    return counted


def _timed(receive: Receive, min_bytes_s: int, first_s: float) -> Receive:
    """Raises 408 in the route that waits for a body which comes too slowly: a client that sends a
    byte a second would keep its connection and its files for days."""
    started, received, is_whole = time.monotonic(), 0, False

    async def timed() -> Message:
        nonlocal received, is_whole
        if is_whole:  # what comes now is only that the client has gone
            return await receive()
        left_s = started + first_s + received / min_bytes_s - time.monotonic()
        try:
            message = await asyncio.wait_for(receive(), max(0.0, left_s))
        except TimeoutError:
            reason = f"the request body came at less than {min_bytes_s} bytes a second"
            raise HTTPException(408, reason, {"Connection": "close"}) from None
        received += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        return message

    return timed
