"""Settings of what reaches beyond this service: the hub, its pushes, and webhooks."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode

from app.domain.callback import CallbackRules, parse_allowed


def _split(value: object) -> object:
    """`a, b` as the environment gives it."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _checked_networks(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError at the start of the service, not at the first webhook."""
    parse_allowed(entries)
    return entries


def _checked_proxy(url: str | None) -> str | None:
    """Raises ValueError."""
    parts = urlsplit(url or "http://unset")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://host:port or https://host:port")
    return url


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class OutsideSettings(BaseSettings):
    """A part of `app.config.Settings`."""

    hub: bool = Field(
        default=True,
        description="Whether models org/name that are no folder under the model root come from the "
        "hub (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE), and adapters may be imported from it.",
    )
    hub_dir: Path | None = Field(
        default=None,
        description="Folder of what has been read of the hub's models, which workers may share; "
        "`hub` in the data folder if unset.",
    )
    hub_cache_bytes: int = Field(
        default=200 << 30,
        ge=0,
        description="Most bytes of that folder; the least recently used models go first.",
    )
    hub_connections: int = Field(
        default=8, ge=1, le=64, description="Connections over which a model's file is read."
    )
    hub_token_repositories: Names = Field(
        default=(),
        description="Patterns of repositories, as org/*, with commas, that clients may import "
        "adapters from with the service's token; any other is read as an anonymous visitor.",
    )
    hook_secret: SecretStr | None = Field(
        default=None,
        description="Secret of the hub's webhook; several with commas, to change it. Unset, no hub "
        "may call.",
    )
    policy: Path | None = Field(
        default=None,
        description="YAML file that says what is done about adapters that are pushed to a hub.",
    )
    moderate_every_s: float = Field(
        default=1.0, gt=0, description="Seconds between two looks for verdicts that are due."
    )

    @property
    def hook_secrets(self) -> tuple[str, ...]:
        """An empty one is none: it would let everybody in."""
        given = self.hook_secret.get_secret_value() if self.hook_secret else ""
        return tuple(part.strip() for part in given.split(",") if part.strip())

    webhook_allow: Annotated[Names, AfterValidator(_checked_networks)] = Field(
        default=(),
        description="Networks (10.1.0.0/16) and host names that webhooks may call though they are "
        "not public, and by http, with commas; none if unset.",
    )
    webhook_proxy: Annotated[str | None, AfterValidator(_checked_proxy)] = Field(
        default=None,
        description="Proxy that webhooks are called through, http://host:port; it looks names up, "
        "and has to refuse addresses that are not public.",
    )
    webhook_every_s: float = Field(
        default=2.0, gt=0, description="Seconds between two looks for webhooks that are due."
    )

    @property
    def callback_rules(self) -> CallbackRules:
        return CallbackRules(parse_allowed(self.webhook_allow), self.webhook_proxy is not None)
