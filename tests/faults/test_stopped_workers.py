"""Workers that are told to stop, and jobs that take too long."""

import signal

from tests.factory import World
from tests.faults.checks import assert_all_is_well
from tests.faults.conftest import MakeSite
from tests.faults.processes import Site, child_of, frozen, until
from tests.faults.undisturbed import Undisturbed

GRACE_S = 20
FOR_EVER_S = 600
LIMIT_S = 12  # a job without faults takes a second or two, and more where others are at work


def a_running_job(site: Site, world: World) -> str:
    job = site.submit(site.upload(world.adapter))
    site.await_module(job)
    return job


def test_a_worker_that_is_told_to_stop_gives_its_job_back_at_once(
    make_site: MakeSite, world: World, undisturbed: Undisturbed
) -> None:
    """Long before its lease lapses, and the reconciler has nothing to do with it."""
    site = make_site(lease_s=FOR_EVER_S, reconcile_every_s=FOR_EVER_S, drain_s=0)
    worker = site.start_worker()
    site.start_api()
    job = a_running_job(site, world)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(GRACE_S) == 0
    assert (site.job(job).status, site.job(job).attempts) == ("queued", 0)
    site.start_worker()
    assert_all_is_well(site, {job: 1}, undisturbed)


def test_a_worker_that_is_told_to_stop_finishes_what_it_can(
    make_site: MakeSite, world: World, undisturbed: Undisturbed
) -> None:
    site = make_site(drain_s=GRACE_S)
    worker = site.start_worker()
    site.start_api()
    job = a_running_job(site, world)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(GRACE_S) == 0
    assert site.job(job).status == "succeeded"
    assert_all_is_well(site, {job: 1}, undisturbed)


def test_a_job_over_its_time_limit_fails_and_the_worker_goes_on(
    make_site: MakeSite, world: World, undisturbed: Undisturbed
) -> None:
    site = make_site(lease_s=FOR_EVER_S, job_time_limit_s=LIMIT_S)
    site.start_worker()
    site.start_api()
    job = a_running_job(site, world)
    with frozen(site.workers[0]) as child:
        until(lambda: "Soft time limit" in site.log_of_workers(), "the limit is reached")
    assert_failed_at_its_limit(site, job, undisturbed)
    assert_all_is_well(site, {a_running_job(site, world): 1}, undisturbed)
    assert child.is_running()


def test_a_job_that_cannot_be_told_of_its_limit_is_killed_and_fails_and_the_worker_goes_on(
    make_site: MakeSite, world: World, undisturbed: Undisturbed
) -> None:
    site = make_site(lease_s=FOR_EVER_S, job_time_limit_s=LIMIT_S)
    site.start_worker(app="hasty")
    site.start_api()
    job = a_running_job(site, world)
    until(lambda: child_of(site.workers[0]), "there is a child").suspend()
    assert_failed_at_its_limit(site, job, undisturbed)
    assert_all_is_well(site, {a_running_job(site, world): 1}, undisturbed)


def assert_failed_at_its_limit(site: Site, job: str, undisturbed: Undisturbed) -> None:
    assert_all_is_well(site, {job: 1}, undisturbed, {job: "time-limit-reached"})
    fault = site.job(job).fault
    assert fault
    assert fault.facts == {"limit_s": LIMIT_S}
