"""What measuring jobs name exists, and fits: by ids, names and shapes alone."""

from collections.abc import Sequence

from app.domain.adapter import StoredModule
from app.domain.checkpoint import Checkpoint
from app.domain.errors import (
    AdapterShapesDiffer,
    InvalidField,
    ModulesNotInModel,
    ResultNotFound,
)
from app.domain.evaluation import (
    EvaluateRecipe,
    FrontierRecipe,
    GateRecipe,
    Judging,
    MeasureRecipe,
    Sets,
    Subject,
)
from app.intake.preflight import check_fit_chat
from app.jobs.check_datasets import check_answered
from app.jobs.check_salora import check_exported, check_safety_module, given
from app.jobs.ports import Models, Records
from app.jobs.retrieve import patched_archive


def check_measure(
    recipe: MeasureRecipe,
    chat_id: str,
    chat: Checkpoint,
    modules: Sequence[StoredModule] | None,
    *,
    models: Models,
    records: Records,
) -> None:
    """`modules` are the adapter's whose patch is measured; of a patch its method is not looked at.

    Raises DatasetNotFound, ResponsesMissing, what `Models.checkpoint`, `_check_subject` and
    `check_safety_module` raise.
    """
    prefix = "gate." if isinstance(recipe, GateRecipe) else ""
    _check_sets(recipe.sets, prefix, records)
    _check_judging(recipe.judging, prefix, models)
    if isinstance(recipe, EvaluateRecipe):
        for at, subject in enumerate(recipe.adapters):
            _check_subject(subject, f"adapters.{at}", chat_id, chat, records)
    elif isinstance(recipe, FrontierRecipe):
        _check_sets(recipe.held_out, "held_out.", records)
        if recipe.safety_module is not None:
            check_safety_module(recipe.safety_module, chat_id, chat, given(modules), records)


def _check_sets(sets: Sets, prefix: str, records: Records) -> None:
    """What is right can be told only where the rows of the task say it."""
    for role, dataset in sets.by_role.items():
        if role == "task":
            check_answered(dataset, f"{prefix}{role}", records)
        else:
            records.dataset(dataset)


def _check_judging(judging: Judging, prefix: str, models: Models) -> None:
    if judging.guard_model is not None:
        models.checkpoint(judging.guard_model, field=f"{prefix}guard_model")


def _check_subject(
    subject: Subject, field: str, chat_id: str, chat: Checkpoint, records: Records
) -> None:
    """Raises AdapterNotFound, JobNotFound, JobNotFinished, CheckpointRefused, InvalidField."""
    if subject.job is not None:
        _check_made(subject.job, f"{field}.job", records)
        return
    adapter = records.adapter(str(subject.adapter))
    check_exported(adapter.dropped_keys, f"{field}.adapter")
    try:
        check_fit_chat(adapter.modules, chat, chat_id)
    except (ModulesNotInModel, AdapterShapesDiffer) as error:  # which of them, they do not say
        raise InvalidField(field=f"{field}.adapter", reason=str(error)) from error


def _check_made(job_id: str, field: str, records: Records) -> None:
    try:
        patched_archive(records.job(job_id))
    except ResultNotFound as error:
        raise InvalidField(field=field, reason=str(error)) from error
