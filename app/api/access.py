"""Who asks, and whether they may.

Routes take `ReadServices`, `SubmitServices`, `TranscriptServices` or `AdminServices`: the services
as the caller's tenant has them, so that no route can forget to look whose something is.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.services import OpenDoor, Services, ServicesDep
from app.domain.access import LOCAL, NO_QUOTAS, Caller, Scope
from app.domain.access_errors import CrossSite, Forbidden, Unauthenticated

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="Needed unless the service listens on its own machine alone.",
)
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _caller(request: Request, services: ServicesDep, bearer: Bearer) -> Caller:
    """Raises Unauthenticated, CrossSite, RateLimited."""
    if bearer is None:
        if services.open_door is None or "authorization" in request.headers:
            raise Unauthenticated
        check_local(request, services.open_door)
        return LOCAL
    key = services.keys.verify(bearer.credentials)
    if key is None:
        raise Unauthenticated
    services.limiter.take(key.id)
    return Caller(key.tenant, frozenset(key.scopes), key.id)


def check_local(request: Request, door: OpenDoor) -> None:
    """A browser on this machine may carry a stranger's request here: by a name of the stranger's
    that leads to this machine (DNS rebinding), or by a form that needs no answer.

    Raises CrossSite.
    """
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    if "*" not in door.hosts and host not in door.hosts:
        raise CrossSite(origin=f"Host {host or '(none)'}")
    if request.method in SAFE_METHODS:
        return
    origin = request.headers.get("origin")
    if origin and origin not in door.origins and urlsplit(origin).netloc != request.url.netloc:
        raise CrossSite(origin=origin)
    if origin is None and request.headers.get("sec-fetch-site") == "cross-site":
        raise CrossSite(origin="another site")


def _services_for(scope: Scope) -> Callable[[Request, Services, Caller], Services]:
    def scoped(
        request: Request, services: ServicesDep, caller: Annotated[Caller, Depends(_caller)]
    ) -> Services:
        request.state.tenant = caller.tenant  # for the log
        if not caller.may(scope):
            raise Forbidden(scope=scope)
        quotas = NO_QUOTAS if caller.key is None else services.quotas
        return replace(
            services,
            records=services.records.of(caller.tenant),
            verdicts=services.verdicts.of(caller.tenant),
            tenant=caller.tenant,
            webhooks=services.webhooks.of(caller.tenant),
            keys=services.keys.of(caller.tenant),
            quotas=quotas,
        )

    return scoped


ReadServices = Annotated[Services, Depends(_services_for("read"))]
SubmitServices = Annotated[Services, Depends(_services_for("submit"))]
TranscriptServices = Annotated[Services, Depends(_services_for("transcripts"))]
AdminServices = Annotated[Services, Depends(_services_for("admin"))]
