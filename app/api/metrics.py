"""/metrics: the figures of this process and of the queue, for Prometheus."""

import hmac

from fastapi import APIRouter, Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from app.api.access import check_local
from app.api.services import Services, ServicesDep
from app.domain.access_errors import ScraperUnknown

router = APIRouter(tags=["health"])

TEXT = {"text/plain": {"schema": {"type": "string"}}}


def check_scraper(request: Request, services: Services) -> None:
    """The figures are of all tenants, so that no tenant's API key opens them.

    Raises ScraperUnknown, and CrossSite on a service that asks for no keys.
    """
    given = request.headers.get("authorization", "")
    if services.metrics_token is not None:
        wanted = f"Bearer {services.metrics_token}"
        if not hmac.compare_digest(given.encode("latin-1"), wanted.encode()):
            raise ScraperUnknown
    elif services.open_door is None:
        raise ScraperUnknown
    else:
        check_local(request, services.open_door)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": TEXT, "description": "Prometheus's text format"}},
)
def metrics(request: Request, services: ServicesDep) -> Response:
    """Figures of this process and of the whole queue, for whoever runs the service: with
    `Authorization: Bearer` and the operator's metrics token, or on a service without keys."""
    check_scraper(request, services)
    figures = request.app.state.figures
    return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
