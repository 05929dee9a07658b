"""Evaluations, frontiers and gates on SQLite and PostgreSQL."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.errors import AdapterNotFound, JobNotFound, NotFound
from app.domain.evaluation import (
    Budget,
    Constraints,
    EvaluateRecipe,
    FrontierRecipe,
    GateRecipe,
    Judging,
    Sets,
    Subject,
)
from app.domain.job import Checkpointed, Job, JobResult
from app.domain.salora import Encoding
from app.domain.salora_errors import DatasetNotFound, PartNotFound
from app.jobs.ports import IdempotencyKey
from app.storage.records import SqlRecords
from tests.samples import a_dataset, a_job, a_measure_job, a_part, an_adapter, entry_of

GONE = "0" * 64
JUDGING = Judging("model", "contains", "org/guard", 32, Encoding(False, 128), "bfloat16")


def kept_dataset(records: SqlRecords) -> str:
    dataset = a_dataset(unanswered=1)
    records.add_dataset(dataset)
    return dataset.id


def kept_adapter(records: SqlRecords) -> str:
    adapter = an_adapter()
    records.add_adapter(adapter)
    return adapter.id


def a_patch(records: SqlRecords, **changes: Any) -> Job:
    return a_job(replace(an_adapter(), id=kept_adapter(records)), **changes)


def measuring_jobs(records: SqlRecords) -> list[Job]:
    one, two, three, four, five = (kept_dataset(records) for _ in range(5))
    patch = records.add_job(a_patch(records), None)
    subjects = (Subject("tünéd", kept_adapter(records)), Subject("patched", job=patch.id))
    frontier = FrontierRecipe(
        Sets(one, two, three),
        Sets(four, five, one),
        replace(JUDGING, safety="logprob", guard_model=None),
        ("subspace", "salora"),
        0.8,
        records.add_part(a_part()).id,
        Constraints(0.9, 0.2, 0.05),
        Budget(50, 12.5),
        7,
    )
    of_adapter = {"adapter": kept_adapter(records), "base_model": "org/base"}
    return [
        a_measure_job("evaluate", EvaluateRecipe(Sets(harmful=one))),
        a_measure_job("evaluate", EvaluateRecipe(Sets(one, one, one), subjects, JUDGING)),
        a_measure_job("frontier", FrontierRecipe(Sets(one, task=two)), **of_adapter),
        a_measure_job("frontier", frontier, **of_adapter),
        a_patch(records, recipe=GateRecipe(Sets(one, two, three), JUDGING)),
    ]


def test_a_job_comes_back_with_its_recipe(records: SqlRecords) -> None:
    for job in measuring_jobs(records):
        kept = records.add_job(job, None)
        assert records.job(job.id) == kept == job
        claimed = records.claim(job.id, lease_s=60)
        assert claimed is not None
        assert claimed.recipe == job.recipe


def test_a_data_set_comes_back_with_how_many_rows_have_no_response(records: SqlRecords) -> None:
    dataset = a_dataset(unanswered=2)
    records.add_dataset(dataset)
    assert records.dataset(dataset.id) == dataset
    assert records.datasets(limit=1, cursor=None).items == [dataset]


def missing_things(records: SqlRecords) -> list[tuple[Job, type[NotFound]]]:
    there, adapter = kept_dataset(records), {"adapter": kept_adapter(records)}
    sets, foreign = Sets(harmful=there, task=there), records.of("other")
    theirs = foreign.add_job(a_patch(foreign), None)
    salora = FrontierRecipe(sets, families=("salora",), safety_module=GONE)
    return [
        (a_measure_job("evaluate", EvaluateRecipe(Sets(there, GONE))), DatasetNotFound),
        (a_measure_job("evaluate", EvaluateRecipe(sets, (Subject("s", GONE),))), AdapterNotFound),
        *(
            (a_measure_job("evaluate", EvaluateRecipe(sets, (Subject("s", job=job),))), JobNotFound)
            for job in (GONE, theirs.id)
        ),
        (
            a_measure_job("frontier", FrontierRecipe(sets, Sets(GONE, task=GONE)), **adapter),
            DatasetNotFound,
        ),
        (a_measure_job("frontier", salora, **adapter), PartNotFound),
        (a_patch(records, recipe=GateRecipe(Sets(GONE))), DatasetNotFound),
    ]


def test_a_job_of_what_is_not_there_is_not_kept_and_leaves_its_key_free(
    records: SqlRecords,
) -> None:
    key = IdempotencyKey("key", "digest")
    for job, missing in missing_things(records):
        with pytest.raises(missing):
            records.add_job(job, key)
        assert records.job_for_key(key) is None
    assert records.jobs(status=None, kind=None, limit=10, cursor=None).items == []


def test_a_patch_with_a_gate_goes_alone(records: SqlRecords) -> None:
    gate = GateRecipe(Sets(kept_dataset(records)))
    gated, plain, waiting = (
        records.add_job(a_patch(records, recipe=recipe), None) for recipe in (gate, None, gate)
    )
    for job in (gated, plain):
        first = records.claim(job.id, lease_s=60)
        assert first is not None
        assert first.is_coalesced == (job is plain)
        assert records.claim_companions(first, lease_s=60, most=8, most_bytes=10**9) == []
    assert records.job(waiting.id).status == "queued"


@pytest.mark.parametrize("kind", ["evaluate", "frontier"])
def test_an_evaluation_that_gets_further_is_tried_again(records: SqlRecords, kind: str) -> None:
    (job,) = (job for job in measuring_jobs(records)[1:4:2] if job.kind == kind)
    records.add_job(job, None)
    for rows in (8, 16, 24, 32):  # more often than a job without a checkpoint is tried
        claimed = records.claim(job.id, lease_s=-1)
        assert claimed is not None
        checkpoint = Checkpointed(rows, entry_of(b"%d rows" % rows))
        records.note_checkpoint(job.id, fence=claimed.fence, checkpoint=checkpoint)
        kept = records.job(job.id)
        assert (kept.attempts, kept.checkpoint) == (1, checkpoint)


def test_transcripts_are_a_part_of_the_result(records: SqlRecords) -> None:
    job = records.add_job(measuring_jobs(records)[0], None)
    claimed = records.claim(job.id, lease_s=60)
    assert claimed is not None
    result = JobResult(entry_of(b"report"), None, transcripts=entry_of(b"transcripts"))
    done = records.finish(job.id, fence=claimed.fence, status="succeeded", result=result)
    assert done.result == records.job(job.id).result == result
    assert records.named_files() >= {result.report.sha256, entry_of(b"transcripts").sha256}
