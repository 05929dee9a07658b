"""What every answer has: a request id, and headers that keep a browser from doing more with it than
showing it. A bug is answered here, so that its answer has them too."""

import logging
import re
import uuid
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import problem
from app.observe.context import bound

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
_GIVEN = re.compile(r"[A-Za-z0-9._-]{1,64}")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
POLICY = (  # a report as HTML has styles of its own, and nothing else
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Outer:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        own = given if _GIVEN.fullmatch(given) else uuid.uuid4().hex
        answer = _Answer(send, own, scope["path"])
        with bound(request_id=own):
            await self._answered(scope, receive, answer, own)

    async def _answered(
        self, scope: Scope, receive: Receive, answer: "_Answer", request_id: str
    ) -> None:
        try:
            await self._app(scope, receive, answer.send)
        except Exception:  # a bug, whatever it is: told in the log, and not to the client
            told = (request_id, scope["method"], scope["path"])
            logger.exception("request %s, %s %s, failed", *told)
            if answer.has_begun:
                raise  # which ends the connection: a cut answer must not look whole
            await _bug()(scope, receive, answer.send)


def _bug() -> Response:
    return problem(500, "internal-error", "Something went wrong", "the service failed; try again")


@dataclass
class _Answer:
    """An answer on its way, and whether it has begun."""

    _send: Send
    _request_id: str
    _path: str
    has_begun: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            self._complete(MutableHeaders(scope=message))
        await self._send(message)

    def _complete(self, headers: MutableHeaders) -> None:
        headers[REQUEST_ID] = self._request_id
        for name, value in SECURITY_HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("Content-Security-Policy", POLICY)
        if self._path.startswith("/v1/"):
            headers.setdefault("Cache-Control", "private, no-store")
