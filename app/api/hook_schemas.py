"""The payload of a hub's webhook (Hugging Face, version 3): the fields that we read. The others are
ignored, because a hub may add some."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.domain.verdict import Push

CONTENT = "repo.content"
MAX_REFS = 100
PART = "[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
Name = Annotated[str, Field(pattern=rf"^{PART}(/{PART})?$", examples=["acme/adapter"])]
Token = Annotated[str, Field(pattern=r"^[!-~]{1,100}$")]  # an id that the hub made
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", examples=["0" * 40])]
Ref = Annotated[str, Field(pattern=r"^refs/[!-~]{1,240}$", examples=["refs/heads/main"])]
Scope = Annotated[str, Field(pattern=r"^[a-z0-9_.-]{1,100}$", examples=[CONTENT])]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class EventIn(_Part):
    action: Annotated[str, Field(max_length=100)]
    scope: Scope

    @property
    def is_content(self) -> bool:
        """A scope that we do not know is read as the one that it is narrower than."""
        return self.scope == CONTENT or self.scope.startswith(f"{CONTENT}.")


class RepoIn(_Part):
    type: Annotated[str, Field(max_length=100)]
    name: Name
    id: Token
    head_sha: Sha | None = Field(default=None, alias="headSha")


class UpdatedRefIn(_Part):
    ref: Ref
    old_sha: Sha | None = Field(default=None, alias="oldSha")
    new_sha: Sha | None = Field(alias="newSha", description="null: the ref was deleted")


class HubWebhookIn(_Part):
    id: Token
    version: Literal[3]


class HookIn(_Part):
    """What the hub says has happened."""

    event: EventIn
    repo: RepoIn
    webhook: HubWebhookIn
    updated_refs: tuple[UpdatedRefIn, ...] = Field(
        default=(), alias="updatedRefs", max_length=MAX_REFS
    )

    def push(self, updated: UpdatedRefIn) -> Push | None:
        """None for a ref that was deleted."""
        if updated.new_sha is None:
            return None
        of = self.repo
        return Push(self.webhook.id, of.id, of.name, updated.ref, updated.new_sha)

    @property
    def refusal(self) -> str | None:
        """Why the event as a whole is none of ours."""
        if not self.event.is_content:
            return f"the scope {self.event.scope} changes no files"
        if self.repo.type != "model":
            return f"a {self.repo.type} is no model"
        return None if self.updated_refs else "no ref was updated"


class TakenOut(BaseModel):
    verdict: str = Field(description="its id")
    ref: str
    sha: str
    new: bool = Field(description="false: this push was taken before")
    links: dict[str, str]


class IgnoredOut(BaseModel):
    ref: str | None = Field(description="null: the event as a whole")
    reason: str


class HookOut(BaseModel):
    taken: list[TakenOut]
    ignored: list[IgnoredOut]
