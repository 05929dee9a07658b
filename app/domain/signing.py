"""Signatures by Standard Webhooks: symmetric, `v1`."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """256 random bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(event: str, body: str, keys: Sequence[str], now: datetime) -> Mapping[str, str]:
    """Standard Webhooks' three; one signature for each secret, so that either verifies."""
    stamp = int(now.timestamp())
    return {
        "webhook-id": event,
        "webhook-timestamp": str(stamp),
        "webhook-signature": " ".join(_signature(event, stamp, body, key) for key in keys),
    }


def _signature(event: str, stamp: int, body: str, key: str) -> str:
    raw = base64.b64decode(key.removeprefix(PREFIX))
    digest = hmac.new(raw, f"{event}.{stamp}.{body}".encode(), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
