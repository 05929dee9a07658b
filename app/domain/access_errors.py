"""What can go wrong with who asks, and how often; a part of the tree in `errors`."""

from app.domain.errors import AdapterSafetyError, NotFound


class Denied(AdapterSafetyError):
    """Whoever asks may not have it."""


class Unauthenticated(Denied):
    code = "unauthenticated"
    title = "An API key is needed"
    message = (
        "send a live API key as Authorization: Bearer <key>; the service's operator makes one with "
        "adapter-safety keys create"
    )


class ScraperUnknown(Unauthenticated):
    code = "scraper-unknown"
    title = "The figures need a token of their own"
    message = (
        "send the value of ADAPTER_SAFETY_METRICS_TOKEN as Authorization: Bearer; where the "
        "operator has not set it, nobody reads the figures, and no API key opens them"
    )


class Forbidden(Denied):
    code = "forbidden"
    title = "The API key does not allow this"
    message = "this needs the scope {scope}, which the key does not have"


class CrossSite(Denied):
    code = "cross-site"
    title = "A request from another site"
    message = "a service without API keys takes no requests from {origin}"


class TooMany(AdapterSafetyError):
    """A bound of this caller's; `retry_after_s` says when to come again."""


class RateLimited(TooMany):
    code = "rate-limited"
    title = "Too many requests"
    message = "this key may make {limit} requests a minute; try again in {retry_after_s} seconds"


class QuotaExceeded(TooMany):
    code = "quota-exceeded"
    title = "The quota is used up"
    message = "{what}: at most {limit}; try again in {retry_after_s} seconds"


class KeyNotFound(NotFound):
    code = "key-not-found"
    title = "No such API key"
    message = "no API key has the id {key}"
