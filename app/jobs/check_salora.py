"""What SaLoRA's jobs name exists, and fits: by ids, digests, names and shapes alone."""

from collections.abc import Sequence

from app.domain.adapter import StoredModule
from app.domain.checkpoint import Checkpoint
from app.domain.errors import InvalidField
from app.domain.method import Method
from app.domain.salora import (
    PART_NAMES,
    ExportRecipe,
    InitRecipe,
    Part,
    PartKind,
    PartModule,
    Recipe,
    SafetyModuleRecipe,
    TrainRecipe,
)
from app.domain.salora_errors import (
    AdapterDoesNotFitKit,
    AdapterOutsideSafetyModule,
    KitOfAnotherModel,
)
from app.intake.model_modules import targeted_modules
from app.intake.preflight import check_fit_chat
from app.jobs.check_datasets import check_answered
from app.jobs.ports import Records

SALORA_MARK = "salora_kit"  # `attach` puts it into what is saved beside its kit


def check_exported(dropped_keys: Sequence[str], field: str = "adapter") -> None:
    """Raises InvalidField for an adapter that is an ordinary LoRA only once it is exported."""
    if SALORA_MARK in dropped_keys:
        reason = (
            "it was trained with SaLoRA attached, and without its kit it is another model: export "
            "it first (a job of kind salora_export, or adapter-safety salora export)"
        )
        raise InvalidField(field=field, reason=reason)


def check_recipe(
    recipe: Recipe,
    chat_id: str,
    chat: Checkpoint,
    modules: Sequence[StoredModule] | None,
    records: Records,
) -> None:
    """`modules` are the uploaded adapter's, where one was named.

    Raises DatasetNotFound, ResponsesMissing, PartNotFound, KitOfAnotherModel, TargetsRefused,
    AdapterDoesNotFitKit, InvalidField.
    """
    if isinstance(recipe, SafetyModuleRecipe):
        check_answered(recipe.dataset, "dataset", records)
        targeted_modules(recipe.target_modules, chat)
    elif isinstance(recipe, InitRecipe):
        checked_part("safety_module", recipe.safety_module, chat_id, chat, records)
        if recipe.dataset is not None:
            check_answered(recipe.dataset, "dataset", records)
    elif isinstance(recipe, TrainRecipe):
        checked_part("kit", recipe.kit, chat_id, chat, records)
        check_answered(recipe.dataset, "dataset", records)
    else:
        _check_export(recipe, chat_id, chat, given(modules), records)


def check_salora(
    method: Method,
    chat_id: str,
    chat: Checkpoint,
    modules: Sequence[StoredModule] | None,
    records: Records,
) -> None:
    """A patch or score by a safety module.

    Raises PartNotFound, KitOfAnotherModel, AdapterOutsideSafetyModule, InvalidField, and what
    `check_fit_chat` raises.
    """
    modules = given(modules)
    check_safety_module(str(method.safety_module), chat_id, chat, modules, records)
    check_count(method, modules)


def check_safety_module(
    part_id: str,
    chat_id: str,
    chat: Checkpoint,
    modules: Sequence[StoredModule],
    records: Records,
) -> None:
    """It is of this chat model, the adapter fits that, and it has some of the adapter's modules.

    Raises PartNotFound, KitOfAnotherModel, AdapterOutsideSafetyModule, and what `check_fit_chat`
    raises.
    """
    part = checked_part("safety_module", part_id, chat_id, chat, records)
    check_fit_chat(modules, chat, chat_id)
    safe = {module.name: module.d_out for module in part.modules}
    if not any(safe.get(module.name) == module.d_out for module in modules):
        names = [module.name for module in modules]
        raise AdapterOutsideSafetyModule(safety_module=part.id, modules=names)


def check_count(method: Method, modules: Sequence[StoredModule]) -> None:
    """Raises InvalidField where more modules are to be selected than there are."""
    select = method.select
    if select.by == "count" and select.value is not None and select.value > len(modules):
        reason = f"the adapter has {len(modules)} modules, {select.value:g} cannot be projected"
        raise InvalidField(field="method.select.value", reason=reason)


def checked_part(
    kind: PartKind, part_id: str, chat_id: str, chat: Checkpoint, records: Records
) -> Part:
    """The part, made for this very chat model. Raises PartNotFound, KitOfAnotherModel."""
    part = records.part(kind, part_id)
    if part.chat_digest != chat.digest:
        raise KitOfAnotherModel(
            what=PART_NAMES[kind],
            made_for=part.chat_model,
            expected=part.chat_digest,
            model=chat_id,
            found=chat.digest,
        )
    return part


def given(modules: Sequence[StoredModule] | None) -> Sequence[StoredModule]:
    """Raises InvalidField where no adapter was named."""
    if modules is None:
        raise InvalidField(field="adapter", reason="is missing")
    return modules


def _check_export(
    recipe: ExportRecipe,
    chat_id: str,
    chat: Checkpoint,
    modules: Sequence[StoredModule],
    records: Records,
) -> None:
    kit = checked_part("kit", recipe.kit, chat_id, chat, records)
    check_fits_kit(modules, kit.modules)


def check_fits_kit(modules: Sequence[StoredModule], kit: Sequence[PartModule]) -> None:
    """The adapter's modules are the kit's, with their ranks and shapes. Raises
    AdapterDoesNotFitKit."""
    sent, kept = {m.name: m for m in modules}, {m.name: m for m in kit}
    if lacking := [name for name in kept if name not in sent]:
        raise AdapterDoesNotFitKit(modules=lacking, reason="the adapter lacks them")
    if others := [name for name in sent if name not in kept]:
        raise AdapterDoesNotFitKit(modules=others, reason="the kit has no such modules")
    if differing := [name for name in kept if not _alike(sent[name], kept[name])]:
        reason = "rank or shape differ, or the adapter is no plain LoRA there"
        raise AdapterDoesNotFitKit(modules=differing, reason=reason)


def _alike(sent: StoredModule, kept: PartModule) -> bool:
    same = (sent.rank, sent.d_out, sent.d_in) == (kept.rank, kept.d_out, kept.d_in)
    return same and sent.layer_type == "linear" and not sent.dora
