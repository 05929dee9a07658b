"""Data sets on SQLite and PostgreSQL."""

import threading
from dataclasses import replace

import pytest

from app.domain.access_errors import QuotaExceeded
from app.domain.dataset import TokenCount
from app.domain.errors import InvalidField
from app.domain.job import Job
from app.domain.method import Method
from app.domain.salora import ExportRecipe, InitRecipe, SafetyModuleRecipe, TrainRecipe
from app.domain.salora_errors import DatasetNotFound, PartNotFound
from app.jobs.ports import IdempotencyKey
from app.storage.pages import encode_cursor
from app.storage.records import SqlRecords
from tests.samples import a_dataset, a_job, a_part, a_salora_job, an_adapter


def test_a_data_set_comes_back_as_it_was_kept(records: SqlRecords) -> None:
    dataset = a_dataset(tokens={"org/chat": TokenCount(3, 4)})
    assert records.add_dataset(dataset)
    assert records.dataset(dataset.id) == dataset


def test_a_data_set_that_comes_again_keeps_every_models_counts(records: SqlRecords) -> None:
    dataset = a_dataset(tokens={"one": TokenCount(1, 2)})
    records.add_dataset(dataset)
    assert not records.add_dataset(replace(dataset, tokens={"other": TokenCount(3, 4)}))
    assert not records.add_dataset(replace(dataset, tokens={}))
    found = records.dataset(dataset.id)
    assert found == replace(dataset, tokens={"one": TokenCount(1, 2), "other": TokenCount(3, 4)})


def test_of_racing_uploads_one_is_new_and_no_count_is_lost(records: SqlRecords) -> None:
    dataset, start, new = a_dataset(), threading.Barrier(6), []

    def add(number: int) -> None:
        tokens = {f"model-{number}": TokenCount(number, number)}
        start.wait()
        new.append(records.add_dataset(replace(dataset, tokens=tokens), most_bytes=10**9))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new) == [False] * 5 + [True]
    assert len(records.dataset(dataset.id).tokens) == 6


@pytest.mark.parametrize("dataset_id", ["", "no-such", "\x00", "\ud800", "a" * 5000])
def test_an_unknown_data_set_is_not_found(records: SqlRecords, dataset_id: str) -> None:
    with pytest.raises(DatasetNotFound):
        records.dataset(dataset_id)


def test_a_data_set_is_its_tenants_own(records: SqlRecords) -> None:
    dataset, ours, theirs = a_dataset(), records.of("a"), records.of("b")
    ours.add_dataset(dataset)
    with pytest.raises(DatasetNotFound):
        theirs.dataset(dataset.id)
    assert theirs.datasets(limit=10, cursor=None).items == []
    with pytest.raises(DatasetNotFound):
        theirs.add_job(a_salora_job("safety_module", SafetyModuleRecipe(dataset.id)), None)
    assert theirs.add_dataset(dataset)


def test_data_sets_are_listed_newest_first_page_by_page(records: SqlRecords) -> None:
    kept = [a_dataset() for _ in range(3)]
    for dataset in kept:
        records.add_dataset(dataset)
    first = records.datasets(limit=2, cursor=None)
    second = records.datasets(limit=2, cursor=first.cursor)
    assert [*first.items, *second.items] == kept[::-1]
    assert second.cursor is None
    with pytest.raises(InvalidField):
        records.datasets(limit=2, cursor=encode_cursor("adapters", 1))


def test_data_sets_count_toward_the_bytes_of_uploads(records: SqlRecords) -> None:
    adapter, dataset = an_adapter(), a_dataset()
    most = adapter.size_bytes + dataset.file.size_bytes
    records.add_adapter(adapter, most_bytes=most)
    with pytest.raises(QuotaExceeded, match="bytes of adapters and data sets"):
        records.add_dataset(dataset, most_bytes=most - 1)
    assert records.add_dataset(dataset, most_bytes=most)
    assert not records.add_dataset(dataset, most_bytes=1)  # nothing new
    with pytest.raises(QuotaExceeded):
        records.add_adapter(an_adapter(), most_bytes=most)


def salora_jobs(records: SqlRecords) -> list[Job]:
    dataset, safety_module, kit, adapter = a_dataset(), a_part(), a_part("kit"), an_adapter()
    records.add_dataset(dataset)
    records.add_part(safety_module)
    records.add_part(kit)
    records.add_adapter(adapter)
    export = a_salora_job("salora_export", ExportRecipe(kit.id, rank=4), adapter=adapter.id)
    return [
        a_salora_job("safety_module", SafetyModuleRecipe(dataset.id, ("q_proj", "up_proj"), 8)),
        a_salora_job("salora_init", InitRecipe(safety_module.id, alpha=2.5)),
        a_salora_job("salora_init", InitRecipe(safety_module.id, dataset.id)),
        a_salora_job("salora_train", TrainRecipe(kit.id, dataset.id, learning_rate=3e-5)),
        export,
    ]


def test_a_job_comes_back_with_its_recipe(records: SqlRecords) -> None:
    for job in salora_jobs(records):
        kept = records.add_job(job, None)
        assert records.job(job.id) == kept == job
        assert records.claim(job.id, lease_s=60) is not None


def test_a_job_of_what_is_not_there_is_not_kept_and_leaves_its_key_free(
    records: SqlRecords,
) -> None:
    dataset, part = a_dataset(), a_part()
    records.add_dataset(dataset)
    key = IdempotencyKey("key", "digest")
    for recipe, missing in (
        (InitRecipe(part.id, dataset.id), PartNotFound),
        (InitRecipe(records.add_part(a_part()).id, "0" * 64), DatasetNotFound),
    ):
        with pytest.raises(missing):
            records.add_job(a_salora_job("salora_init", recipe), key)
        assert records.job_for_key(key) is None
    assert records.jobs(status=None, kind=None, limit=10, cursor=None).items == []


def test_a_kit_is_no_safety_module(records: SqlRecords) -> None:
    kit = records.add_part(a_part("kit"))
    with pytest.raises(PartNotFound, match="no safety module"):
        records.add_job(a_salora_job("salora_init", InitRecipe(kit.id)), None)


def test_a_job_without_a_base_model_goes_alone(records: SqlRecords) -> None:
    adapter, part = an_adapter(), records.add_part(a_part())
    records.add_adapter(adapter)
    salora = Method(name="salora", safety_module=part.id)
    alone = [
        records.add_job(a_job(adapter, method=salora, base_model=None), None),
        records.add_job(a_job(adapter, method=salora), None),
        records.add_job(a_job(adapter), None),
    ]
    for job in alone[:2]:
        first = records.claim(job.id, lease_s=60)
        assert first is not None
        assert records.claim_companions(first, lease_s=60, most=8, most_bytes=10**9) == []
        records.finish(job.id, fence=first.fence, status="failed")
    waiting = records.add_job(a_job(adapter, method=salora), None)
    plain = records.claim(alone[2].id, lease_s=60)
    assert plain is not None
    assert records.claim_companions(plain, lease_s=60, most=8, most_bytes=10**9) == []
    assert records.job(waiting.id).status == "queued"
