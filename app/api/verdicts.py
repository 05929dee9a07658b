"""/v1/verdicts and /v1/policy"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from app.api.access import ReadServices, SubmitServices
from app.api.services import Services
from app.api.verdict_schemas import EvidenceOut, PolicyOut, VerdictOut, VerdictPage, verdict_path
from app.domain.errors import InvalidField
from app.domain.policy import VerdictName
from app.domain.verdict import VerdictState
from app.domain.verdict_errors import HookNotConfigured
from app.jobs.verdict_ports import VerdictFilter
from app.jobs.verdict_table import header, lines

router = APIRouter(prefix="/v1", tags=["moderation"])

CSV = "text/csv; charset=utf-8"
PAGE = 200  # rows that an export reads at once
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
Repo = Annotated[str, Query(pattern=r"^[A-Za-z0-9_./-]{1,200}$")]


def _wanted(
    repo: Repo | None = None,
    verdict: VerdictName | None = None,
    state: VerdictState | None = None,
    since: Annotated[AwareDatetime | None, Query(description="received then or later")] = None,
    until: Annotated[AwareDatetime | None, Query(description="received before")] = None,
) -> VerdictFilter:
    """Raises InvalidField."""
    for name, given in (("since", since), ("until", until)):
        if given is not None and not EARLIEST <= given <= LATEST:
            raise InvalidField(field=name, reason="must lie between 1970 and 9000")
    return VerdictFilter(repo, verdict, state, since, until)


Wanted = Annotated[VerdictFilter, Depends(_wanted)]


@router.get(
    "/verdicts",
    response_model=VerdictPage,
    responses={200: {"content": {"text/csv": {}}, "description": "A page; CSV: all of them"}},
)
def list_verdicts(
    services: ReadServices,
    wanted: Wanted,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
    format: Literal["json", "csv"] | None = None,  # noqa: A002 because this is the query parameter's public name
    accept: Annotated[str | None, Header()] = None,
) -> VerdictPage | Response:
    """Verdicts, newest first. As CSV (`format`, or `Accept: text/csv`) all that the filters leave,
    with their evidence, whatever `limit` and `cursor` say."""
    if format == "csv" or (format is None and (accept or "").strip().startswith("text/csv")):
        return StreamingResponse(_export(wanted, services), media_type=CSV)
    page = services.verdicts.verdicts(wanted, limit=limit, cursor=cursor)
    items = [VerdictOut.of(verdict) for verdict in page.items]
    return VerdictPage(items=items, next_cursor=page.cursor)


def _export(wanted: VerdictFilter, services: Services) -> Iterator[str]:
    yield header()
    cursor = None
    while True:
        page = services.verdicts.verdicts(wanted, limit=PAGE, cursor=cursor)
        yield lines(page.items)
        cursor = page.cursor
        if cursor is None:
            return


@router.get("/verdicts/{verdict_id}")
def show_verdict(verdict_id: str, services: ReadServices) -> EvidenceOut:
    """One verdict with its evidence."""
    return EvidenceOut.of(services.verdicts.verdict(verdict_id))


@router.post("/verdicts/{verdict_id}/retry", status_code=202)
def retry_verdict(verdict_id: str, services: SubmitServices, response: Response) -> EvidenceOut:
    """Begin one that ended inconclusive again, under the policy that is in force now."""
    begun = services.verdicts.retry(verdict_id)
    response.headers["Location"] = verdict_path(begun.id)
    return EvidenceOut.of(begun)


@router.get("/policy")
def show_policy(services: ReadServices) -> PolicyOut:
    """The policy in force. A tenant sees its own alone."""
    if services.policy is None:
        raise HookNotConfigured
    state = services.policy.state()
    if state.policy is not None and state.policy.tenant != services.tenant:
        raise HookNotConfigured
    return PolicyOut.of(state)
