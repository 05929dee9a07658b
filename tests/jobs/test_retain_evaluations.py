"""What an evaluation names stays as long as the evaluation, and goes with it."""

import pytest

from app.domain.dataset import StoredDataset
from app.domain.errors import JobNotFound
from app.domain.evaluation import (
    EvaluateRecipe,
    FrontierRecipe,
    GateRecipe,
    MeasureRecipe,
    Sets,
    Subject,
)
from app.domain.job import Checkpointed, Job
from app.jobs.retain import Collected
from tests.jobs.retained import World
from tests.samples import a_job, a_measure_job

NOTHING = Collected(0, 0, 0, 0, 0)


def a_patch_that_made_an_archive(world: World) -> Job:
    job = world.records.of("a").add_job(a_job(world.adapter(aged=False)), None)
    return world.end(job, archive=world.file(b"archive of " + job.id.encode()))


def an_evaluation(world: World, *subjects: Subject, **sets: str) -> Job:
    recipe = EvaluateRecipe(Sets(**sets or {"harmful": world.dataset().id}), subjects)
    return world.records.of("a").add_job(a_measure_job("evaluate", recipe), None)


def three(world: World) -> tuple[list[StoredDataset], Sets]:
    sets = [world.dataset() for _ in range(3)]
    return sets, Sets(*(dataset.id for dataset in sets))


@pytest.mark.parametrize("kind", ["evaluate", "frontier", "patch"])
def test_the_data_sets_of_every_role_stay_as_long_as_the_job(world: World, kind: str) -> None:
    tuned, sets = three(world)
    judged, held_out = three(world) if kind == "frontier" else ([], Sets())
    adapter = world.adapter()
    recipes: dict[str, MeasureRecipe] = {
        "evaluate": EvaluateRecipe(sets),
        "frontier": FrontierRecipe(sets, held_out),
        "patch": GateRecipe(sets),
    }
    job = world.records.of("a").add_job(a_job(adapter, kind=kind, recipe=recipes[kind]), None)
    assert world.collect() == NOTHING
    assert all(world.path(dataset.file).exists() for dataset in (*tuned, *judged))
    world.end(job)
    found = world.collect()
    assert (found.jobs, found.adapters, found.datasets) == (1, 1, len(tuned) + len(judged))


def test_the_adapters_that_are_measured_stay(world: World) -> None:
    adapter = world.adapter()
    job = an_evaluation(world, Subject("one", adapter.id), Subject("again", adapter.id))
    assert world.collect() == NOTHING
    assert world.records.of("a").adapter(adapter.id)
    world.end(job)
    assert world.collect().adapters == 1


def test_a_job_stays_whose_archive_is_measured(world: World) -> None:
    patch = a_patch_that_made_an_archive(world)
    job = an_evaluation(world, Subject("patched", job=patch.id))
    assert world.collect() == NOTHING
    assert world.records.of("a").job(patch.id).result == patch.result
    assert patch.result is not None
    assert patch.result.archive is not None
    assert world.path(patch.result.archive).exists()
    world.end(job)
    assert [world.collect().jobs for _ in range(3)] == [1, 1, 0]  # what names it goes first
    assert not world.path(patch.result.archive).exists()


def test_a_job_that_expires_at_this_moment_is_left_to_whom_it_is_named_by(world: World) -> None:
    """The naming transaction is still open, so no other can see what it says."""
    if "sqlite" in world.url:
        pytest.skip("one writer at a time")
    patch = a_patch_that_made_an_archive(world)
    other = an_evaluation(world)
    with world.records._database.write() as connection:
        statement = "INSERT INTO job_uses (job, tenant, made_by) VALUES (%s, 'a', %s)"
        connection.exec_driver_sql(statement, (other.id, patch.id))
        assert world.collect() == NOTHING
    assert world.collect() == NOTHING


def test_a_job_that_is_gone_cannot_be_named(world: World) -> None:
    patch = a_patch_that_made_an_archive(world)
    world.collect()
    with pytest.raises(JobNotFound, match=patch.id):
        an_evaluation(world, Subject("patched", job=patch.id))


def test_transcripts_stay_as_long_as_their_job(world: World) -> None:
    transcripts = world.file(b"transcripts")
    job = world.end(an_evaluation(world), aged=False, transcripts=transcripts)
    assert world.collect() == NOTHING
    assert world.path(transcripts).exists()
    world.age_job(job)
    assert world.collect().jobs == 1
    assert not world.path(transcripts).exists()


def test_results_until_then_stay_while_the_evaluation_runs(world: World) -> None:
    records = world.records.of("a")
    job = records.claim(an_evaluation(world).id, lease_s=60)
    assert job is not None
    old, new = (Checkpointed(rows, world.file(b"rows %d" % rows)) for rows in (8, 16))
    for checkpoint in (old, new):
        records.note_checkpoint(job.id, fence=job.fence, checkpoint=checkpoint)
    assert world.collect().files == 1
    assert (world.path(old.file).exists(), world.path(new.file).exists()) == (False, True)
