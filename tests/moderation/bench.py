"""A hub, the service's routes, its moderation and its worker in one process, with real parts: what
the rounds do, a test does by hand and can stop anywhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, select, update

from app.config import Settings
from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.domain.verdict import Verdict
from app.jobs.moderate import moderate
from app.jobs.moderator import Moderator
from app.main import create_app, moderator
from app.storage.hub.reader import Hub
from app.storage.hub.session import HubSession
from app.storage.hub.writer import HfWriter
from app.storage.verdict_tables import verdicts
from tests.hub.server import LocalHub
from workers.runtime import Runtime, make_runtime

REPO = "acme/adapter"
HOOK = "hook-1"
SECRET = "a secret of the webhook's"
ALL = {"name": "safe_lora", "select": {"by": "all"}}
NONE = {"name": "safe_lora", "select": {"by": "threshold", "value": -0.999}}
ACTIONS = {
    "pass": ["webhook"],
    "patched": ["pull_request", "webhook"],
    "review": ["discussion", "webhook"],
    "inconclusive": ["discussion"],
    "refused": ["discussion"],
}
POLICY: Mapping[str, Any] = {
    "version": 1,
    "repositories": {"include": ["acme/*"], "exclude": ["acme/private-*"]},
    "pairs": [{"match": "org/{name}", "base": "base", "chat": "{name}"}],
    "method": ALL,
    "actions": ACTIONS,
}


class Bench:
    def __init__(self, settings: Settings, hub: LocalHub, policy: Path) -> None:
        self.settings, self.hub, self._policy = settings, hub, policy
        self._writes = 0
        self.write_policy()
        self.app = create_app(settings)
        self.services = self.app.state.services
        self.http = TestClient(self.app, base_url="http://localhost")
        found = moderator(self.services, settings)
        assert found is not None
        session = HubSession(hub.endpoint, hub.token)
        writer = HfWriter(hub.endpoint, hub.token)
        self.desk: Moderator = replace(found, reader=Hub(session), writer=writer)
        self.runtime: Runtime = make_runtime(settings)

    def write_policy(self, **changes: Any) -> None:
        """Each is a file of another length, whatever the clock says."""
        self._writes += 1
        text = yaml.safe_dump({**POLICY, **changes})
        self._policy.write_text(f"{text}#{'.' * self._writes}\n")

    def push(self, adapter: Path, repo: str = REPO, **files: bytes | str) -> str:
        """The adapter to the main branch, without telling anybody; the commit."""
        if repo not in self.hub.state.repositories:
            self.hub.create(repo)
        own = {name: (adapter / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)}
        return self.hub.commit(repo, {**own, **{_name(k): v for k, v in files.items()}})

    def payload(self, sha: str | None, **changes: Any) -> dict[str, Any]:
        """What the hub would tell; `changes` by name: ref, repo, scope, type, hook."""
        given = {"ref": "refs/heads/main", "repo": REPO, "scope": "repo.content", **changes}
        updated = {"ref": given["ref"], "oldSha": "1" * 40, "newSha": sha}
        return {
            "event": {"action": "update", "scope": given["scope"]},
            "repo": {
                "type": given.get("type", "model"),
                "name": given["repo"],
                "id": f"id-of-{given['repo'].replace('/', '-')}",
                "private": False,
                "url": {"web": "https://hub/x", "api": "https://hub/api/x"},
                "owner": {"id": "owner"},
                "headSha": "2" * 40,
                "tags": [],
            },
            "updatedRefs": [updated],
            "webhook": {"id": given.get("hook", HOOK), "version": 3},
            "something_new": 1,
        }

    def call(self, payload: Any, secret: str | None = SECRET) -> Any:
        headers = {} if secret is None else {"X-Webhook-Secret": secret}
        return self.http.post("/v1/hooks/huggingface", json=payload, headers=headers)

    def told(self, sha: str, **changes: Any) -> str:
        """The id of the verdict that the hook has made."""
        answer = self.call(self.payload(sha, **changes))
        assert answer.status_code == 202, answer.text
        found: str = answer.json()["taken"][0]["verdict"]
        return found

    def step(self) -> int:
        return moderate(self.desk)

    def settle(self) -> None:
        """Until there is nothing to do, for moderation or the worker."""
        while moderate(self.desk) or self.work():
            pass

    def work(self) -> bool:
        """Whether any job was done."""
        jobs = self.services.records.jobs(status="queued", kind=None, limit=50, cursor=None)
        return bool([self.runtime.run(job.id) for job in jobs.items])

    def verdict(self, verdict_id: str) -> Verdict:
        found: Verdict = self.services.verdicts.verdict(verdict_id)
        return found

    def settled(self, adapter: Path, **files: bytes | str) -> Verdict:
        """What becomes of a push."""
        verdict_id = self.told(self.push(adapter, **files))
        self.settle()
        return self.verdict(verdict_id)

    def make_due(self) -> None:
        """As if all pauses and leases were over."""
        long_ago = self.verdict_times()[0].replace(year=2020)
        self._update(due_at=long_ago, lease_until=None)

    def age(self) -> None:
        """As if all that has begun had begun long ago."""
        long_ago = self.verdict_times()[0].replace(year=2020)
        self._update(since=long_ago)
        begun = verdicts.c.tried_since.is_not(None)
        with self.engine() as engine, engine.begin() as connection:
            connection.execute(update(verdicts).where(begun).values(tried_since=long_ago))

    def verdict_times(self) -> list[Any]:
        with self.engine() as engine, engine.connect() as connection:
            return list(connection.scalars(select(verdicts.c.received_at)))

    def _update(self, **values: object) -> None:
        with self.engine() as engine, engine.begin() as connection:
            connection.execute(update(verdicts).values(**values))

    @contextmanager
    def engine(self) -> Iterator[Any]:
        engine = create_engine(self.settings.resolved_database_url)
        try:
            yield engine
        finally:
            engine.dispose()

    def close(self) -> None:
        self.http.close()
        self.services.records.close()
        self.services.verdicts.close()
        self.services.keys.close()
        self.services.webhooks.close()
        self.runtime.desk.records.close()


def _name(key: str) -> str:
    return {"readme": "README.md"}.get(key, key)
