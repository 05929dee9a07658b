"""Data sets that a job names are there, and have what it needs."""

from app.domain.salora_errors import ResponsesMissing
from app.jobs.ports import Records


def check_answered(dataset_id: str, field: str, records: Records) -> None:
    """Each row has a response. Raises DatasetNotFound, ResponsesMissing."""
    dataset = records.dataset(dataset_id)
    if dataset.unanswered:
        raise ResponsesMissing(
            field=field, dataset=dataset.id, rows=dataset.unanswered, of=dataset.rows
        )
