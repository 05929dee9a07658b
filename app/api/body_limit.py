"""A limit on every request body, answered as a problem.

The framework's own limit answers in plain text and cannot be told otherwise.
"""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem_of
from app.domain.errors import TooLarge


class BodyLimit:
    """ASGI middleware: `limits` in bytes by exact path, `default` elsewhere."""

    def __init__(self, app: ASGIApp, *, default: int, limits: Mapping[str, int]) -> None:
        self._app, self._default, self._limits = app, default, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], self._default)
        if _declared(scope) > limit:
            error = TooLarge(what="the request body", limit_bytes=limit)
            await problem_of(error)(scope, receive, send)
            return
        await self._app(scope, _counting(receive, limit), send)


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
