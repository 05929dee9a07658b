"""A Redis that hangs, dies or forgets."""

from collections.abc import Iterator

import httpx
import pytest

from tests.factory import World
from tests.faults.checks import assert_all_is_well
from tests.faults.conftest import MakeSite
from tests.faults.processes import Site, body_of, frozen, kill, until
from tests.faults.undisturbed import Undisturbed
from tests.servers import RedisServer


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    """With an append-only file, as `up` starts it."""
    server = RedisServer(durable=True)
    server.start()
    yield server
    server.remove()


def test_a_job_that_was_kept_but_never_sent_is_brought_by_the_next_api(
    make_site: MakeSite, world: World, undisturbed: Undisturbed
) -> None:
    """The API is killed while its send hangs, so between its commit and the queue."""
    site = make_site()
    site.start_api()
    adapter = site.upload(world.adapter)
    site.redis.freeze()
    with pytest.raises(httpx.ReadTimeout):
        site.http.post("/v1/jobs", json=body_of(adapter), timeout=0.2)
    job = until(lambda: site.records.jobs(status=None, kind=None, limit=2, cursor=None).items, "")
    assert site.api
    kill(site.api)
    site.redis.thaw()
    assert site.broker.llen("adapter-safety") == 0
    site.start_worker()
    site.start_api()
    assert_all_is_well(site, {job[0].id: 1}, undisturbed)


def test_jobs_outlive_a_broker_that_is_killed_and_comes_back(
    make_site: MakeSite, durable_redis: RedisServer, world: World, undisturbed: Undisturbed
) -> None:
    site = make_site(redis=durable_redis)
    jobs = three_of_which_one_runs(site, world)
    without_its_broker(site, jobs[0])
    assert_all_is_well(site, dict.fromkeys(jobs, 1), undisturbed)


def test_jobs_outlive_a_broker_that_comes_back_empty(
    site: Site, world: World, undisturbed: Undisturbed
) -> None:
    jobs = three_of_which_one_runs(site, world)
    without_its_broker(site, jobs[0])
    assert_all_is_well(site, dict.fromkeys(jobs, 1), undisturbed)


def test_jobs_outlive_a_broker_that_is_flushed(
    site: Site, world: World, undisturbed: Undisturbed
) -> None:
    jobs = three_of_which_one_runs(site, world)
    site.broker.flushall()
    assert_all_is_well(site, dict.fromkeys(jobs, 1), undisturbed)


def without_its_broker(site: Site, job: str) -> None:
    """For as long as two modules of the job take."""
    with frozen(site.workers[0]):
        site.redis.stop()
        done = site.job(job).modules_done
    site.await_module(job, done + 2)
    with frozen(site.workers[0]):
        site.redis.start()


def three_of_which_one_runs(site: Site, world: World) -> list[str]:
    if not site.workers:
        site.start_worker()
        site.start_api()
    adapter = site.upload(world.adapter)
    jobs = [site.submit(adapter) for _ in range(3)]
    site.await_module(jobs[0])
    return jobs
