"""What is over its time goes; nothing that is referred to does."""

import asyncio
import os
import time
from datetime import timedelta

import pytest

from app.domain.adapter import FileEntry
from app.domain.errors import AdapterNotFound, JobNotFound
from app.domain.job import Checkpointed, Job
from app.domain.retry import Step
from app.domain.room import Room
from app.domain.salora import InitRecipe, SafetyModuleRecipe
from app.domain.salora_errors import DatasetNotFound, PartNotFound
from app.jobs.ports import IdempotencyKey
from app.jobs.retain import Collected, Retention
from app.storage.tables import jobs, webhook_deliveries
from tests.jobs.retained import LONG_AGO, World
from tests.kept_webhooks import REFUSED, an_endpoint
from tests.samples import a_job, a_salora_job


def report_of(job: Job) -> FileEntry:
    assert job.result is not None
    return job.result.report


def test_an_old_job_goes_with_its_report_and_its_key(world: World) -> None:
    adapter = world.adapter(aged=False)
    job = world.ended_job(adapter)
    assert world.collect().jobs == 1
    with pytest.raises(JobNotFound):
        world.records.of("a").job(job.id)
    assert not world.path(report_of(job)).exists()
    key = IdempotencyKey(f"key of {adapter.id}", "1" * 64)
    assert world.records.of("a").job_for_key(key) is None
    assert asyncio.run(world.events.read(job.id, after="0", block_s=0)) == []


def test_an_adapter_stays_as_long_as_a_job_names_it(world: World) -> None:
    adapter = world.adapter()
    world.ended_job(adapter, aged=False)
    assert world.collect() == Collected(0, 0, 0, 0, 0)
    assert world.records.of("a").adapter(adapter.id)
    assert all(world.path(file).exists() for file in adapter.files.values())


def test_an_old_adapter_goes_with_its_last_job(world: World) -> None:
    adapter = world.adapter()
    world.ended_job(adapter)
    found = world.collect()
    assert (found.jobs, found.adapters, found.files) == (1, 1, 3)
    with pytest.raises(AdapterNotFound):
        world.records.of("a").adapter(adapter.id)
    assert not any(world.path(file).exists() for file in adapter.files.values())


def test_a_file_that_another_tenants_adapter_names_stays(world: World) -> None:
    adapter = world.adapter()
    world.records.of("b").add_adapter(adapter)
    assert world.collect().adapters == 1
    assert world.records.of("b").adapter(adapter.id)
    assert all(world.path(file).exists() for file in adapter.files.values())


def test_a_queued_or_running_job_is_never_over_its_time(world: World) -> None:
    adapter = world.adapter()
    records = world.records.of("a")
    queued, running = (records.add_job(a_job(adapter), None) for _ in range(2))
    records.claim(running.id, lease_s=60)
    world._set(jobs, jobs.c.id.in_([queued.id, running.id]), created_at=LONG_AGO)
    assert world.collect() == Collected(0, 0, 0, 0, 0)


def test_without_a_time_everything_is_kept(world: World) -> None:
    world.ended_job(world.adapter())
    assert world.collect(Retention()) == Collected(0, 0, 0, 0, 0)


def test_a_file_without_a_record_goes_after_a_day(world: World) -> None:
    old, young = world.file(b"old"), world.file(b"young", aged=False)
    found = world.collect()
    assert (found.files, found.bytes) == (1, 3)
    assert not world.path(old).exists()
    assert world.path(young).exists()


def test_a_file_that_was_put_again_meanwhile_stays(world: World) -> None:
    """An upload of the same content comes between the listing and the taking away."""
    file = world.file(b"wanted again")
    (listed,) = world.artifacts.stored(older_than=timedelta(days=1))
    world.file(b"wanted again", aged=False)
    assert not world.artifacts.remove(listed)
    assert world.path(file).exists()


def test_an_adapter_that_came_again_is_young(world: World) -> None:
    adapter = world.adapter()
    world.records.of("a").add_adapter(adapter)
    assert world.collect().adapters == 0


def test_an_old_data_set_and_part_go_with_their_files(world: World) -> None:
    dataset, part = world.dataset(), world.part("kit")
    found = world.collect()
    assert (found.datasets, found.parts, found.files) == (1, 1, 3)
    records = world.records.of("a")
    with pytest.raises(DatasetNotFound):
        records.dataset(dataset.id)
    with pytest.raises(PartNotFound, match="no kit"):
        records.part("kit", part.id)
    assert not any(world.path(f).exists() for f in (dataset.file, part.file, part.report))


def test_what_a_job_names_stays_as_long_as_the_job(world: World) -> None:
    records, dataset, part = world.records.of("a"), world.dataset(), world.part()
    job = records.add_job(a_salora_job("salora_init", InitRecipe(part.id, dataset.id)), None)
    world.age_part(part)
    assert world.collect() == Collected(0, 0, 0, 0, 0)
    assert records.dataset(dataset.id) == dataset
    assert records.part("safety_module", part.id) == part
    world.end(job)
    found = world.collect()
    assert (found.jobs, found.datasets, found.parts) == (1, 1, 1)


def test_what_a_job_has_made_stays_as_long_as_the_job(world: World) -> None:
    records, dataset = world.records.of("a"), world.dataset()
    job = records.add_job(a_salora_job("safety_module", SafetyModuleRecipe(dataset.id)), None)
    part = world.part()
    world.end(job, part.id, aged=False)
    assert world.collect() == Collected(0, 0, 0, 0, 0)
    world.age_job(job)
    assert world.collect().parts == 1


def test_a_part_that_was_found_again_is_young(world: World) -> None:
    part = world.part()
    assert world.records.of("a").find_part("safety_module", part.id) == part
    assert world.collect().parts == 0


def test_what_is_anothers_is_kept_by_nobody_elses_job(world: World) -> None:
    part = world.part(tenant="a")
    theirs = world.records.of("b")
    theirs.add_part(part)
    theirs.add_job(a_salora_job("salora_init", InitRecipe(part.id)), None)
    world.age_part(part)
    assert world.collect().parts == 1
    assert theirs.part("safety_module", part.id) == part
    assert world.path(part.file).exists()


def test_the_checkpoint_of_a_job_that_has_not_ended_stays(world: World) -> None:
    records, adapter = world.records.of("a"), world.adapter(aged=False)
    job = records.claim(records.add_job(a_job(adapter), None).id, lease_s=60)
    assert job is not None
    old, new = (Checkpointed(step, world.file(b"%d" % step)) for step in (1, 2))
    for checkpoint in (old, new):
        records.note_checkpoint(job.id, fence=job.fence, checkpoint=checkpoint)
    assert world.collect().files == 1
    assert world.path(new.file).exists()
    assert not world.path(old.file).exists()


def test_a_dry_run_takes_nothing(world: World) -> None:
    adapter = world.adapter()
    other = world.adapter()
    job = world.ended_job(adapter)
    old = world.file(b"nobody's")
    found = world.collect(dry_run=True)
    assert (found.jobs, found.adapters, found.files) == (1, 1, 1)
    assert world.records.of("a").job(job.id)
    assert world.records.of("a").adapter(other.id)
    assert world.path(old).exists()


def test_folders_of_killed_processes_go(world: World) -> None:
    for name, age_days in (("upload-old", 3), ("job-old-1", 3), ("upload-new", 0), ("other", 9)):
        folder = world.folder / name
        folder.mkdir()
        (folder / "file").touch()
        os.utime(folder, (time.time() - age_days * 86400,) * 2)
    assert world.collect().folders == 2
    left = {path.name for path in world.folder.iterdir() if path.is_dir()}
    assert {"upload-new", "other"} <= left
    assert not {"upload-old", "job-old-1"} & left


def test_an_ended_delivery_goes_and_one_that_is_due_stays(world: World) -> None:
    endpoint = world.webhooks.of("a").add(an_endpoint(), most=1)
    world.ended_job(world.adapter(), aged=False)
    world.ended_job(world.adapter(), aged=False)
    (due, other) = world.webhooks.claim_due(lease_s=60, room=Room())
    world.webhooks.note_attempt(due, REFUSED, Step("delivered"))
    world._set(webhook_deliveries, webhook_deliveries.c.ended_at.is_not(None), ended_at=LONG_AGO)
    assert world.collect(dry_run=True).deliveries == world.collect().deliveries == 1
    left = world.webhooks.of("a").deliveries(endpoint.id, state=None, limit=9, cursor=None)
    assert [each.id for each in left.items] == [other.id]
