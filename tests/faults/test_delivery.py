"""A broker that delivers a message more than once."""

from app.storage.queue import QUEUE_NAME
from tests.factory import World
from tests.faults.checks import assert_all_is_well
from tests.faults.conftest import MakeSite
from tests.faults.processes import Site, until
from tests.faults.undisturbed import Undisturbed


def test_a_job_longer_than_the_visibility_timeout_runs_once(
    make_site: MakeSite, world: World, undisturbed: Undisturbed
) -> None:
    site = make_site()
    for _ in range(2):
        site.start_worker(app="impatient")
    site.start_api()
    adapter = site.upload(world.adapter)
    site.await_workers()
    job = site.submit(adapter)
    assert_all_is_well(site, {job: 1}, undisturbed)
    assert deliveries(site, job) > 1


def test_jobs_that_two_workers_are_given_at_the_same_time_run_once(
    make_site: MakeSite, world: World, undisturbed: Undisturbed
) -> None:
    site = make_site()
    site.start_api()
    adapter = site.upload(world.adapter)
    jobs = [site.submit(adapter) for _ in range(4)]
    messages = site.broker.lrange(QUEUE_NAME, 0, -1)
    site.broker.delete(QUEUE_NAME)
    for _ in range(2):
        site.start_worker()
    site.await_workers()
    site.broker.lpush(QUEUE_NAME, *(m for message in messages for m in (message, message)))
    assert_all_is_well(site, dict.fromkeys(jobs, 1), undisturbed)
    until(lambda: all(deliveries(site, job) > 1 for job in jobs), "all were delivered twice")


def deliveries(site: Site, job: str) -> int:
    return site.log_of_workers().count(f"[{job}] received")
