"""One line of the log and one count for each request that is answered."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import PROBLEM_IN_SCOPE
from app.api.figures import UPLOADS, ApiFigures

logger = logging.getLogger(__name__)

LONGEST_PATH = 512  # because a stranger may send 64 KiB, and fill the log with them
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds, for ever


class Observed:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, figures: ApiFigures) -> None:
        self._app, self._figures = app, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, answered = time.monotonic(), _Answered(send)
        try:
            await self._app(scope, receive, answered.send)
        except Exception:  # whatever it is: it is counted, and goes on
            answered.status = answered.status or 500  # answered by `Outer`, which has it as a bug
            raise
        finally:
            if answered.status is not None:  # else the client had gone
                self._note(scope, answered, (answered.at or time.monotonic()) - began)

    def _note(self, scope: Scope, answered: "_Answered", seconds: float) -> None:
        status = answered.status or 0
        route = getattr(scope.get("route"), "path", None)
        self._figures.answered(scope["method"], route, status, seconds)
        problem = scope.get(PROBLEM_IN_SCOPE)
        if problem and scope["method"] == "POST" and scope["path"] in UPLOADS and status < 500:
            self._figures.refused(problem)
        told = {
            "method": scope["method"],
            "path": scope["path"][:LONGEST_PATH],  # the query may hold what is nobody's business
            "route": route,
            "status": status,
            "duration_s": round(seconds, 4),
            "tenant": scope.get("state", {}).get("tenant"),
        }
        level = logging.DEBUG if route in PROBES else logging.INFO
        logger.log(level, "answered", extra={k: v for k, v in told.items() if v is not None})


class _Answered:
    """When an answer began, and how."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.at: float | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.at = message["status"], time.monotonic()
        await self._send(message)
