"""Clients that follow a job while the API goes away and comes back."""

from threading import Thread
from typing import Any

import pytest

from tests.client.both import CLIENTS
from tests.factory import World
from tests.faults.processes import Site, kill

both = pytest.mark.parametrize("kind", CLIENTS, ids=["blocking", "awaiting"])


def restarted(site: Site) -> Thread:
    """Killed, and on its way back."""
    assert site.api
    kill(site.api)
    starting = Thread(target=site.start_api)
    starting.start()
    return starting


@both
def test_a_restart_in_the_middle_is_not_noticed_by_who_follows(
    kind: Any, site: Site, world: World
) -> None:
    site.await_workers()
    job_id = site.submit(site.upload(world.adapter))
    seen, starting = [], None
    with kind(site.url) as client:
        for event in client.events(job_id):
            seen.append(event)
            if event.name == "module" and starting is None:
                starting = restarted(site)
        assert starting
        starting.join()
        assert list(client.events(job_id)) == seen
    assert [event.data["done"] for event in seen if event.name == "module"] == list(range(1, 17))
    assert seen[-1].name == "succeeded"


@both
def test_who_waits_goes_on_waiting(kind: Any, site: Site, world: World) -> None:
    site.await_workers()
    job_id = site.submit(site.upload(world.adapter))
    starting = restarted(site)
    with kind(site.url) as client:
        assert client.wait(job_id, timeout_s=60)["status"] == "succeeded"
    starting.join()
