"""Clients that all come at once: each submits jobs, one of them twice under its key, and asks for
their states until they have ended."""

import asyncio
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

FINAL = ("succeeded", "failed", "cancelled")
ASK_EVERY_S = 1.0
TIMEOUT = httpx.Timeout(60.0)


@dataclass
class Seen:
    """What all clients together saw."""

    submit_s: list[float] = field(default_factory=list)
    status_s: list[float] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)  # ids
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: Counter[int] = field(default_factory=Counter)  # HTTP statuses
    seconds: float = 0.0

    @property
    def succeeded(self) -> int:
        return sum(job["status"] == "succeeded" for job in self.ended.values())

    @property
    def lost(self) -> int:
        return len(set(self.accepted) - self.ended.keys())

    @property
    def doubled(self) -> int:
        """Keys that gave two jobs, and jobs that ran more than once."""
        twice = len(self.accepted) - len(set(self.accepted))
        return twice + sum(job["attempts"] > 1 for job in self.ended.values())


async def all_at_once(url: str, clients: int, jobs_each: int, body: dict[str, object]) -> Seen:
    seen, started = Seen(), time.monotonic()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with (
        httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=limits) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(clients):
            group.create_task(_client(http, jobs_each, body, seen))
    seen.seconds = time.monotonic() - started
    return seen


async def _client(http: httpx.AsyncClient, jobs: int, body: dict[str, object], seen: Seen) -> None:
    waiting = set()
    for _ in range(jobs):
        key = uuid.uuid4().hex
        job = await _submit(http, body, key, seen)
        if job:
            seen.accepted.append(job)
            waiting.add(job)
    if waiting and await _submit(http, body, key, seen) not in waiting:
        seen.accepted.append(seen.accepted[-1])  # the same key gave another job
    while waiting:
        await asyncio.sleep(ASK_EVERY_S)
        for job in list(waiting):
            found = await _timed(http.get(f"/v1/jobs/{job}"), seen.status_s)
            if found.is_success and found.json()["status"] in FINAL:
                seen.ended[job] = found.json()
                waiting.remove(job)


async def _submit(
    http: httpx.AsyncClient, body: dict[str, object], key: str, seen: Seen
) -> str | None:
    asked = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})
    answer = await _timed(asked, seen.submit_s)
    if answer.is_success:
        job: str = answer.json()["id"]
        return job
    seen.refused[answer.status_code] += 1
    return None


async def _timed(request: Any, into: list[float]) -> httpx.Response:
    started = time.perf_counter()
    answer: httpx.Response = await request
    into.append(time.perf_counter() - started)
    return answer
