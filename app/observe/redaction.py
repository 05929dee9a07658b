"""No secret in a log line: the known ones by their text, others by their form."""

import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote, urlsplit

HIDDEN = "[hidden]"
SHORTEST = 6  # because replacing shorter ones everywhere would spoil ordinary words

_FORMS = re.compile(
    r"ask_[0-9a-f]{16}_[A-Za-z0-9_-]{20,}"  # an API key of this service
    r"|whsec_[A-Za-z0-9+/=]{16,}"  # a webhook's secret
    r"|hf_[A-Za-z0-9]{16,}"  # a hub's token
    r"|(?<=://)[^/\s:@\"']*:[^/\s@\"']+(?=@)"  # a name and a password in a URL
    r"|(?i:(?<=bearer )|(?<=basic ))[A-Za-z0-9._~+/=-]{6,}"
    r"|(?i:(?<=[?&]secret=)|(?<=[?&]token=)|(?<=[?&]signature=))[^&\s\"']+"
)


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Hides in a rendered line these secrets, and whatever has the form of one."""
    known = {form for secret in secrets if len(secret) >= SHORTEST for form in _written(secret)}
    texts = sorted(known, key=len, reverse=True)  # the longest first: one may be part of another
    exact = re.compile("|".join(map(re.escape, texts))) if texts else None

    def redacted(line: str) -> str:
        without = exact.sub(HIDDEN, line) if exact else line
        return _FORMS.sub(HIDDEN, without)

    return redacted


def on_one_line(text: str) -> str:
    """Without what begins a line or moves a cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def password_of(url: str | None) -> list[str]:
    """The password in a URL, as it is written there and as it is meant. One that is the user's name
    is no secret, and hiding it would spoil every line with that name."""
    if not url:
        return []
    try:
        parts = urlsplit(url)
    except ValueError:  # no URL that anything could be read from
        return []
    password = parts.password
    return [password, unquote(password)] if password and password != parts.username else []


def _written(secret: str) -> set[str]:
    """As it is, as `repr` writes it, both as they stand in JSON, and on one line."""
    forms = {secret, repr(secret)[1:-1], on_one_line(secret)}
    return forms | {json.dumps(form)[1:-1] for form in forms}
