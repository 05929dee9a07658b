"""Moderation: from a push to a verdict and what follows from it, in steps that may each be done
twice. Whoever is killed or finds a part down loses nothing: the step is due again."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.domain.access_errors import TooMany
from app.domain.errors import AdapterSafetyError, Unavailable
from app.domain.verdict import Verdict, VerdictState
from app.domain.verdict_errors import VerdictTaken
from app.jobs.moderate_act import act, begin_acting, give_up_acting
from app.jobs.moderate_steps import conclude, examine, import_push, submit_job, take_up
from app.jobs.moderator import Moderator

logger = logging.getLogger(__name__)

Step = Callable[[Verdict, Moderator], Verdict]

AT_ONCE = 100  # steps in a round, so that a round ends
LONGEST_PAUSE_S = 300.0
PATIENCE = timedelta(days=1)  # with a part that is down, from the first attempt at a state
FEWEST = 10  # attempts, because we may have been down ourselves for the whole day

STEPS: Mapping[VerdictState, Step] = {
    "received": take_up,
    "importing": import_push,
    "submitting": submit_job,
    "waiting": examine,
    "judged": begin_acting,
    "acting": act,
}
"""Each leaves the verdict in a later state."""


def moderate(desk: Moderator) -> int:
    """Bring verdicts on until none is due; how many steps that were. Raises Unavailable where the
    database does not answer."""
    for done in range(AT_ONCE):
        if desk.stopping.is_set():
            return done
        verdict = desk.verdicts.claim(lease_s=desk.lease_s)
        if verdict is None:
            return done
        _bring_on(verdict, desk)
    return AT_ONCE


def _bring_on(verdict: Verdict, desk: Moderator) -> None:
    step = _give_up if _is_hopeless(verdict) else STEPS[verdict.state]
    try:
        with desk.held(verdict):
            moved = step(verdict, desk)
        desk.verdicts.give_back(replace(moved, trouble=""))
    except VerdictTaken as error:
        logger.warning("%s", error)
    except (Unavailable, TooMany) as error:
        logger.warning("verdict %s, %s: %s", verdict.id, verdict.state, error)
        _postpone(verdict, str(error), desk)
    except Exception as error:  # a bug must not stop the verdicts behind this one
        logger.exception("verdict %s, %s, failed", verdict.id, verdict.state)
        said = str(error) if isinstance(error, AdapterSafetyError) else type(error).__name__
        _postpone(verdict, said, desk)


def _postpone(verdict: Verdict, trouble: str, desk: Moderator) -> None:
    """Each time in a row the pause is twice as long."""
    pause_s = min(2.0 ** min(verdict.attempts - 1, 20), LONGEST_PAUSE_S)
    try:
        desk.verdicts.postpone(verdict, trouble, due_in_s=pause_s)
    except VerdictTaken as error:
        logger.warning("%s", error)


def _is_hopeless(verdict: Verdict) -> bool:
    """Waiting, for a job or for us, is no failure: the time counts from the first attempt."""
    began = verdict.tried_since
    if began is None or verdict.attempts <= FEWEST:
        return False
    return datetime.now(UTC) - began > PATIENCE


def _give_up(verdict: Verdict, desk: Moderator) -> Verdict:
    """An attempt whose process was killed says no trouble."""
    why = f"given up after a day: {verdict.trouble or 'each attempt was cut off'}"
    if verdict.state in ("judged", "acting"):
        return give_up_acting(verdict, why, desk)
    return conclude(verdict, desk, "inconclusive", why)
