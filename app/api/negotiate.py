"""Which form of the report the client wants: `?format=` first, then `Accept` (RFC 9110, 12.5.1)."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException

from app.domain.errors import InvalidField
from app.jobs.render import FORMATS


def report_format(wanted: str | None, accept: str | None) -> str:
    """A name of `FORMATS`. Raises InvalidField(field="format"), or 406 for an impossible Accept."""
    if wanted is not None:
        if wanted not in FORMATS:
            raise InvalidField(field="format", reason=f"must be one of {', '.join(FORMATS)}")
        return wanted
    if not accept:
        return "json"
    qualities = {
        name: _quality(_plain(media), _ranges(accept)) for name, (media, _) in FORMATS.items()
    }
    best = max(qualities, key=lambda name: qualities[name])
    if qualities[best] == 0:
        known = ", ".join(_plain(media) for media, _ in FORMATS.values())
        raise HTTPException(406, f"the report comes as {known}")
    return best


def _plain(media: str) -> str:
    return media.split(";")[0]


def _ranges(accept: str) -> Mapping[str, float]:
    """Media ranges of an Accept header with their qualities; a broken quality counts as 0."""
    found = {}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            found[media] = min(1.0, max(0.0, float(quality)))
        except ValueError:
            found[media] = 0.0
    return found


def _quality(media: str, ranges: Mapping[str, float]) -> float:
    """The most specific range decides."""
    main = media.split("/")[0]
    return next((ranges[r] for r in (media, f"{main}/*", "*/*") if r in ranges), 0.0)
