"""Webhooks of version 3, delivered one after another by a thread of their own."""

import hashlib
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any

import httpx

from tests.hub.discussions import Discussion
from tests.hub.repositories import Repository

Json = dict[str, Any]
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Webhook:
    id: str
    url: str
    secret: str | None
    repos: frozenset[str] | None  # None: every one


@dataclass
class Delivery:
    webhook: Webhook
    payload: Json
    status: int | None = None  # None: no answer came
    body: str = ""
    error: str | None = None


@dataclass
class Webhooks:
    deliveries: list[Delivery] = field(default_factory=list)  # in the order of the events
    _hooks: list[Webhook] = field(default_factory=list)
    _queue: "SimpleQueue[Delivery | None]" = field(default_factory=SimpleQueue)
    _changed: Condition = field(default_factory=Condition)
    _due: int = 0
    _thread: Thread | None = None

    def add(
        self, url: str, secret: str | None = None, repos: set[str] | None = None, name: str = ""
    ) -> Webhook:
        """`name` is the id that its payloads carry; one of its own without it."""
        given = name or hashlib.sha1(f"{url} {len(self._hooks)}".encode()).hexdigest()[:24]
        hook = Webhook(given, url, secret, None if repos is None else frozenset(repos))
        self._hooks.append(hook)
        return hook

    def remove(self, hook: Webhook) -> None:
        self._hooks.remove(hook)

    def tell(self, repo: Repository, base: str, action: str, scope: str, **more: Any) -> None:
        """An event, to every webhook that watches the repository."""
        for hook in self._hooks:
            if hook.repos is None or repo.name in hook.repos:
                told = {"event": {"action": action, "scope": scope}, "repo": _repo(repo, base)}
                self._send(Delivery(hook, told | more | {"webhook": _webhook(hook)}))

    def again(self, delivery: Delivery) -> None:
        """The same payload once more, as the Hub's replay button sends it."""
        self._send(Delivery(delivery.webhook, delivery.payload))

    def wait(self, timeout_s: float = 30) -> list[Delivery]:
        """All deliveries, once every one has its answer."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._due == 0, timeout_s)
            assert done, f"{self._due} webhooks are still to be delivered"
            return list(self.deliveries)

    def stop(self) -> None:
        if self._thread:
            self._queue.put(None)
            self._thread.join()

    def _send(self, delivery: Delivery) -> None:
        with self._changed:
            self._due += 1
            self.deliveries.append(delivery)
        if self._thread is None:
            self._thread = Thread(target=self._deliver_all, name="the test's webhooks")
            self._thread.start()
        self._queue.put(delivery)

    def _deliver_all(self) -> None:
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            while delivery := self._queue.get():
                _deliver(client, delivery)
                with self._changed:
                    self._due -= 1
                    self._changed.notify_all()


def _deliver(client: httpx.Client, delivery: Delivery) -> None:
    hook = delivery.webhook
    headers = {} if hook.secret is None else {"X-Webhook-Secret": hook.secret}
    try:
        answer = client.post(hook.url, json=delivery.payload, headers=headers)
        delivery.status, delivery.body = answer.status_code, answer.text
    except httpx.HTTPError as error:
        delivery.error = repr(error)


def discussion_told(repo: Repository, discussion: Discussion, base: str) -> Json:
    told = {
        "id": discussion.id,
        "num": discussion.number,
        "title": discussion.title,
        "status": discussion.status,
        "isPullRequest": discussion.is_pull_request,
        "author": {"id": id_of(discussion.author)},
        "url": _discussion_url(repo, discussion, base),
    }
    changes = {"base": discussion.base, "mergeCommitId": discussion.merge_commit}
    if discussion.is_pull_request:
        told["changes"] = {name: value for name, value in changes.items() if value}
    return told


def comment_told(repo: Repository, discussion: Discussion, event: Json, base: str) -> Json:
    web = _discussion_url(repo, discussion, base)["web"]
    return {
        "id": event["id"],
        "author": {"id": id_of(event["author"]["name"])},
        "content": event["data"]["latest"]["raw"],
        "hidden": event["data"]["hidden"],
        "url": {"web": f"{web}#{event['id']}"},
    }


def id_of(name: str) -> str:
    """The id of a user or an organization."""
    return hashlib.sha1(name.encode()).hexdigest()[:24]


def _repo(repo: Repository, base: str) -> Json:
    return {
        "type": "model",
        "name": repo.name,
        "id": repo.id,
        "private": repo.private,
        "url": {"web": f"{base}/{repo.name}", "api": f"{base}/api/models/{repo.name}"},
        "headSha": repo.head,
        "tags": [],
        "owner": {"id": id_of(repo.name.split("/")[0])},
    }


def _discussion_url(repo: Repository, discussion: Discussion, base: str) -> dict[str, str]:
    page = f"{repo.name}/discussions/{discussion.number}"
    return {"web": f"{base}/{page}", "api": f"{base}/api/models/{page}"}


def _webhook(hook: Webhook) -> Json:
    return {"id": hook.id, "version": 3}
