"""`Prefer: wait=N` (RFC 7240, section 4.3)."""

import math
import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request

from app.api.services import ServicesDep
from app.domain.errors import InvalidField

WAIT = re.compile(r"wait\s*=\s*\"?([0-9]{1,9})\"?", re.IGNORECASE)


def wanted_wait_s(headers: Sequence[str]) -> float | None:
    """The first `wait` preference in seconds, None without one.

    Raises InvalidField(field="Prefer") for a `wait` that is no whole number of seconds.
    """
    for preference in ",".join(headers).split(","):
        name = preference.split(";")[0].strip()
        if re.match(r"wait\b", name, re.IGNORECASE):
            match = WAIT.fullmatch(name)
            if match is None:
                raise InvalidField(field="Prefer", reason="wait takes a whole number of seconds")
            return float(match[1])
    return None


def _wait_s(request: Request, services: ServicesDep) -> float | None:
    wanted = wanted_wait_s(request.headers.getlist("prefer"))
    return None if wanted is None else min(wanted, services.max_wait_s)


WaitDep = Annotated[float | None, Depends(_wait_s)]
"""Seconds to wait for the job, capped by the settings; None when the client did not ask."""


def applied(wait_s: float | None) -> dict[str, str]:
    """The header that says which preference was followed."""
    return {} if wait_s is None else {"Preference-Applied": f"wait={math.floor(wait_s)}"}
