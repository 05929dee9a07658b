"""The records of verdicts: `Verdicts` of `app.jobs.verdict_ports`. Each method is one transaction,
and each move one conditional UPDATE, as of jobs."""

import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    exists,
    literal,
    or_,
    select,
    update,
)

from app.domain.access import DEFAULT_TENANT
from app.domain.job import FINAL
from app.domain.verdict import STATES, Push, Verdict
from app.domain.verdict_errors import VerdictNotFound, VerdictNotRetryable, VerdictTaken
from app.jobs.ports import Page
from app.jobs.verdict_ports import VerdictFilter
from app.storage.database import Database, insert_if_absent, utc_now
from app.storage.pages import read_page
from app.storage.tables import UtcDateTime, jobs
from app.storage.verdict_events import issue
from app.storage.verdict_rows import changed_values, plain_text, push_values, to_verdict
from app.storage.verdict_tables import verdicts

OPEN = tuple(state for state in STATES if state != "done")
Values = dict[str, Any]


class SqlVerdicts:
    """Safe to share between threads, as `SqlRecords` is."""

    def __init__(self, url: str | Database, tenant: str = DEFAULT_TENANT) -> None:
        self._database = Database(url) if isinstance(url, str) else url
        self._tenant = tenant

    def of(self, tenant: str) -> "SqlVerdicts":
        """The same database, another tenant's."""
        return SqlVerdicts(self._database, tenant)

    def close(self) -> None:
        """Close this process's connections."""
        self._database.close()

    # ---------------------------------------------------------------------------------- pushes
    def receive(self, push: Push) -> tuple[Verdict, bool]:
        """See the port; the unique constraint decides."""
        with self._database.write() as connection:
            now = utc_now(connection)
            new = Verdict(uuid.uuid4().hex, push, now, "received", now, self._tenant)
            first = {"id": new.id, "tenant": new.tenant, "received_at": now, "since": now}
            values = {**push_values(push), **changed_values(new), **first, "due_at": now}
            created = insert_if_absent(connection, verdicts, {**values, "fence": 0})
            query = _of_push(push, self._tenant).with_for_update()
            found = to_verdict(connection.execute(query).one())
            if not found.may_reopen:
                return found, created
            changes = changed_values(found.reopened()) | {"since": now, "due_at": now}
            return _change(connection, found, changes | {"finished_at": None}), created

    # ------------------------------------------------------------------------------------ work
    def claim(self, *, lease_s: float) -> Verdict | None:
        """See the port. Looks before it writes, because mostly there is nothing."""
        with self._database.read() as connection:
            if connection.execute(_due(connection)).first() is None:
                return None
        with self._database.write() as connection:
            return _claim(connection, lease_s)

    def renew(self, verdict: Verdict, *, lease_s: float) -> None:
        """Raises VerdictTaken."""
        with self._database.write() as connection:
            until = utc_now(connection) + timedelta(seconds=lease_s)
            _change(connection, verdict, {"lease_until": until})

    def keep(self, verdict: Verdict) -> Verdict:
        """Raises VerdictTaken."""
        with self._database.write() as connection:
            return _change(connection, verdict, changed_values(verdict))

    def give_back(self, verdict: Verdict, *, due_in_s: float = 0) -> Verdict:
        """See the port. Raises VerdictTaken."""
        with self._database.write() as connection:
            now = utc_now(connection)
            changes = changed_values(verdict) | {"due_at": now + timedelta(seconds=due_in_s)}
            moved = verdicts.c.state != verdict.state
            changes |= {"attempts": case((moved, 0), else_=verdicts.c.attempts)}
            changes |= {"since": case((moved, literal(now, UtcDateTime())), else_=_since)}
            if verdict.state == "done":
                changes |= {"finished_at": now}
            kept = _change(connection, verdict, changes | {"lease_until": None})
            if kept.is_issued:
                issue(connection, kept, now)
            return kept

    def postpone(self, verdict: Verdict, trouble: str, *, due_in_s: float) -> None:
        """Raises VerdictTaken."""
        with self._database.write() as connection:
            due = utc_now(connection) + timedelta(seconds=due_in_s)
            changes = {"trouble": plain_text(trouble), "due_at": due, "lease_until": None}
            _change(connection, verdict, changes)

    def retry(self, verdict_id: str) -> Verdict:
        """Raises VerdictNotFound, VerdictNotRetryable."""
        with self._database.write() as connection:
            found = self._find(connection, verdict_id, for_update=True)
            if not found.may_retry:
                raise VerdictNotRetryable(verdict=verdict_id, state=_said(found))
            now = utc_now(connection)
            changes = changed_values(found.anew()) | {"since": now, "due_at": now}
            return _change(connection, found, changes | {"finished_at": None})

    # --------------------------------------------------------------------------------- reading
    def verdict(self, verdict_id: str) -> Verdict:
        """Raises VerdictNotFound."""
        with self._database.read() as connection:
            return self._find(connection, verdict_id)

    def verdicts(self, wanted: VerdictFilter, *, limit: int, cursor: str | None) -> Page[Verdict]:
        """Newest first. Raises InvalidField(field="cursor")."""
        where = [verdicts.c.tenant == self._tenant, *_conditions(wanted)]
        with self._database.read() as connection:
            return read_page(
                connection, verdicts, to_verdict, where=where, limit=limit, cursor=cursor
            )

    def thread_before(self, verdict: Verdict) -> int | None:
        """See the port."""
        earlier = verdicts.c.seq < _seq_of(verdict)
        query = _beside(verdict).where(earlier, verdicts.c.thread.is_not(None))
        with self._database.read() as connection:
            row = connection.execute(query.order_by(verdicts.c.seq.desc()).limit(1)).first()
        return None if row is None else row.thread

    def proposed(self, verdict: Verdict, content: str) -> Verdict | None:
        """See the port."""
        query = _beside(verdict).where(verdicts.c.patched == content)
        with self._database.read() as connection:
            row = connection.execute(query.order_by(verdicts.c.seq.desc()).limit(1)).first()
        return None if row is None else to_verdict(row)

    def _find(
        self, connection: Connection, verdict_id: str, *, for_update: bool = False
    ) -> Verdict:
        query = select(verdicts).where(
            verdicts.c.id == verdict_id, verdicts.c.tenant == self._tenant
        )
        if not (verdict_id.isascii() and verdict_id.isprintable()):
            raise VerdictNotFound(verdict=verdict_id)
        row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
        if row is None:
            raise VerdictNotFound(verdict=verdict_id)
        return to_verdict(row)


_since = verdicts.c.since


def _claim(connection: Connection, lease_s: float) -> Verdict | None:
    now = utc_now(connection)
    seq = connection.scalar(_due(connection).with_for_update(skip_locked=True, of=verdicts))
    if seq is None:
        return None
    changes: Values = {
        "lease_until": now + timedelta(seconds=lease_s),
        "fence": verdicts.c.fence + 1,
        "attempts": verdicts.c.attempts + 1,
        "tried_since": case(
            (verdicts.c.attempts == 0, literal(now, UtcDateTime())), else_=verdicts.c.tried_since
        ),
    }
    claimed = update(verdicts).where(verdicts.c.seq == seq).values(changes)
    return to_verdict(connection.execute(claimed.returning(*verdicts.c)).one())


def _due(connection: Connection) -> Select[tuple[int]]:
    """The `seq` of the one that is due the longest."""
    now = utc_now(connection)
    free = or_(verdicts.c.lease_until.is_(None), verdicts.c.lease_until <= now)
    goes_on = exists().where(jobs.c.id == verdicts.c.job, jobs.c.status.not_in(FINAL))
    ready = or_(verdicts.c.state != "waiting", ~goes_on)
    return (
        select(verdicts.c.seq)
        .where(verdicts.c.state.in_(OPEN), verdicts.c.due_at <= now, free, ready)
        .order_by(verdicts.c.due_at, verdicts.c.seq)
        .limit(1)
    )


def _change(connection: Connection, verdict: Verdict, changes: Values) -> Verdict:
    """Raises VerdictTaken where another has claimed it since."""
    held = and_(verdicts.c.id == verdict.id, verdicts.c.fence == verdict.fence)
    move = update(verdicts).where(held).values(changes)
    row = connection.execute(move.returning(*verdicts.c)).one_or_none()
    if row is None:
        raise VerdictTaken(verdict=verdict.id)
    return to_verdict(row)


def _of_push(push: Push, tenant: str) -> Select[Any]:
    """Whichever webhook told of it: two of one repository are no reason to answer twice."""
    of = verdicts.c
    key = (of.tenant == tenant, of.hub_repo == push.hub_repo)
    return select(verdicts).where(*key, of.ref == push.ref, of.sha == push.sha)


def _beside(verdict: Verdict) -> Select[Any]:
    """Verdicts of the same tenant on the same repository."""
    of = verdicts.c
    return select(verdicts).where(
        of.tenant == verdict.tenant, of.hub_repo == verdict.push.hub_repo, of.id != verdict.id
    )


def _seq_of(verdict: Verdict) -> Any:
    return select(verdicts.c.seq).where(verdicts.c.id == verdict.id).scalar_subquery()


def _conditions(wanted: VerdictFilter) -> list[ColumnElement[bool]]:
    given = {
        "repo": verdicts.c.repo == wanted.repo,
        "verdict": verdicts.c.verdict == wanted.verdict,
        "state": verdicts.c.state == wanted.state,
    }
    found = [each for name, each in given.items() if getattr(wanted, name) is not None]
    if wanted.since is not None:
        found.append(verdicts.c.received_at >= wanted.since)
    if wanted.until is not None:
        found.append(verdicts.c.received_at < wanted.until)
    return found


def _said(verdict: Verdict) -> str:
    return verdict.state if verdict.verdict is None else f"{verdict.state} and {verdict.verdict}"
