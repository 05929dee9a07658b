"""When to try again, how long to wait before it, and when to give up."""

from dataclasses import dataclass, field

import httpx

from app.client.problems import ProblemError, Throttled, Unavailable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0


@dataclass
class Patience:
    """Doubling pauses, or what the service asks for; at most so many and so long without news."""

    tries: int = 5
    longest_s: float = 90.0  # waited in all, because requests are counted by the minute
    _failures: int = field(default=0, repr=False)
    _waited_s: float = field(default=0.0, repr=False)

    def afresh(self) -> "Patience":
        return Patience(self.tries, self.longest_s)

    def renew(self) -> None:
        """There was news, so what came before counts no more."""
        self._failures, self._waited_s = 0, 0.0

    def pause_s(self, error: Exception) -> float:
        """How long to wait before another try. Raises the error where there is to be none."""
        asked = error.retry_after_s if isinstance(error, ProblemError) else None
        pause = self._doubled() if asked is None else asked
        if self._failures >= self.tries or self._waited_s + pause > self.longest_s:
            raise error
        self._failures += 1
        self._waited_s += pause
        return pause

    def _doubled(self) -> float:
        doubled: float = FIRST_PAUSE_S * 2.0**self._failures
        return min(doubled, LONGEST_PAUSE_S)


FOLLOW = Patience(tries=18, longest_s=140.0)
"""Of a stream of events: about two minutes, in which a service may be started again."""


def may_pass(error: Exception) -> bool:
    """Whether a failure can be over soon: nobody answers, or the service asks to come back."""
    return isinstance(error, httpx.TransportError | Throttled | Unavailable)
