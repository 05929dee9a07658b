"""/v1/keys: the API keys of the caller's own tenant. All of it needs the scope `admin`."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import AdminServices
from app.api.schemas import RequestBody
from app.domain.access import MAX_NAME_CHARS, SCOPES, ApiKey, Scope

router = APIRouter(prefix="/v1/keys", tags=["keys"])


class KeyIn(RequestBody):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "pipeline", "scopes": ["submit", "read"]}]},
    )

    name: str = Field(description="whose it is, for the list", max_length=MAX_NAME_CHARS)
    scopes: list[Scope] = Field(min_length=1, max_length=len(SCOPES))


class KeyOut(BaseModel):
    """A key without its secret, which is nowhere."""

    id: str
    name: str
    tenant: str
    scopes: list[Scope]
    created_at: datetime
    last_used_at: datetime | None = Field(description="within a minute; null: never")
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> "KeyOut":
        return cls(**{**vars(key), "scopes": list(key.scopes)})


class NewKeyOut(KeyOut):
    secret: str = Field(description="the key itself; shown in this answer alone")


class KeyPage(BaseModel):
    items: list[KeyOut]
    next_cursor: str | None


@router.post("", status_code=201)
def create_key(body: KeyIn, services: AdminServices) -> NewKeyOut:
    """Make a key of the caller's tenant. Its secret is in this answer alone."""
    scopes = tuple(scope for scope in SCOPES if scope in body.scopes)
    key, secret = services.keys.issue(body.name, scopes)
    return NewKeyOut(**KeyOut.of(key).model_dump(), secret=secret)


@router.get("")
def list_keys(
    services: AdminServices,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> KeyPage:
    """The tenant's keys, newest first, revoked ones too; without their secrets."""
    page = services.keys.page(limit=limit, cursor=cursor)
    return KeyPage(items=[KeyOut.of(key) for key in page.items], next_cursor=page.cursor)


@router.post("/{key_id}/revoke")
def revoke_key(key_id: str, services: AdminServices) -> KeyOut:
    """From now on the key opens nothing. Doing it twice changes nothing."""
    return KeyOut.of(services.keys.revoke(key_id))
