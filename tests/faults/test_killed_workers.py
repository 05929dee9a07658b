"""Workers that are killed in the middle of a job."""

from tests.factory import World
from tests.faults.checks import assert_all_is_well
from tests.faults.conftest import MakeSite
from tests.faults.processes import Site, child_of, is_alive, until
from tests.faults.undisturbed import Undisturbed


def test_a_job_whose_worker_child_is_killed_runs_again_and_ends_once(
    site: Site, world: World, undisturbed: Undisturbed
) -> None:
    job = site.submit(site.upload(world.adapter))
    site.await_module(job)
    until(lambda: child_of(site.workers[0]), "there is a child").kill()
    assert_all_is_well(site, {job: 2}, undisturbed)


def test_a_job_whose_whole_worker_is_killed_is_done_by_the_next_one(
    site: Site, world: World, undisturbed: Undisturbed
) -> None:
    job = site.submit(site.upload(world.adapter))
    site.await_module(job)
    child = until(lambda: child_of(site.workers[0]), "there is a child")
    site.workers[0].kill()
    site.workers[0].wait()
    until(lambda: not is_alive(child), "the child dies with its parent", 5)
    site.start_worker()
    assert_all_is_well(site, {job: 2}, undisturbed)


def test_a_job_that_kills_its_worker_each_time_is_given_up_and_the_others_are_done(
    make_site: MakeSite, world: World, undisturbed: Undisturbed
) -> None:
    """Though they went with it at first."""
    site = make_site(coalesce=4)
    site.start_api()
    adapter = site.upload(world.adapter)
    poison = site.submit(adapter)
    others = [site.submit(adapter) for _ in range(2)]
    site.start_worker()
    for attempt in (1, 2, 3):
        until(lambda n=attempt: site.job(poison).attempts == n, f"attempt {attempt}")
        site.await_module(poison)
        until(lambda: child_of(site.workers[0]), "there is a child").kill()
    attempts = {poison: 4, **dict.fromkeys(others, 2)}
    assert_all_is_well(site, attempts, undisturbed, {poison: "too-many-attempts"})
