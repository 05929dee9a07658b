"""`adapter-safety evaluate` and `frontier` in this process: torch is imported only here."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.cli.bars import OnStep, progress
from app.cli.evaluate import EvaluateAsked, NamedAdapter
from app.cli.folders import new_folder, open_trained
from app.cli.frontier import TRANSCRIPTS_FILE, FrontierAsked
from app.cli.measure_options import DataFiles
from app.cli.report_files import write_forms
from app.cli.salora_here import compute, load_module, named
from app.config import Settings
from app.domain.dataset import Row
from app.domain.errors import InvalidField
from app.domain.evaluation import Judging, SetRole
from app.domain.measured import SubjectUse
from app.domain.method import Method, Selection
from app.domain.salora_errors import DatasetRefused, EmptyDataset
from app.intake.dataset_rows import read_rows
from app.intake.opened import OpenedAdapter
from app.jobs.adapters import stored_modules
from app.jobs.check_salora import check_exported
from app.jobs.submit import JobRequest, check_patch
from workers.measure.evaluate import EvaluateInput, Measurand, evaluate
from workers.measure.frontier import Found, FrontierInput, FrontierKept, find_frontier
from workers.measure.kept import Kept
from workers.measure_jobs import measurand
from workers.output import write_patched_adapter
from workers.run import NamedCheckpoint, PatchInput
from workers.same_model import check_digest

Json = dict[str, Any]
# because PEFT asks transformers for it, and who reads the table can do nothing about that
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)


def evaluate_here(asked: EvaluateAsked, transcripts: Path | None) -> Json:
    """The report. What was answered is written to `transcripts`."""
    judging, rows = asked.recipe.judging, rows_of(asked.files)
    chat = named(asked.chat)
    guard = _guard(judging)
    subjects = [_measurand(each, chat) for each in asked.adapters]
    given = EvaluateInput(chat, subjects, rows, asked.recipe.sets.by_role, judging, guard)
    total = (1 + len(subjects)) * sum(map(len, rows.values()))
    with progress("measuring") as on_step:
        found = evaluate(given, compute(), Kept(on_more=_counted(on_step, total)))
    if transcripts:
        write_lines(transcripts, found.transcripts)
    return found.report.as_json()


def rows_of(files: DataFiles) -> Mapping[SetRole, Sequence[Row]]:
    """Raises InvalidField naming the file and the line."""
    return {role: _rows(files.option(role), role, path) for role, path in files.by_role.items()}


def _rows(option: str, role: SetRole, path: Path) -> Sequence[Row]:
    """What is right can be told only where the rows of the task say it."""
    try:
        with path.open("rb") as file:
            return list(read_rows(file, responses="required" if role == "task" else "optional"))
    except (DatasetRefused, EmptyDataset) as error:
        raise InvalidField(field=option, reason=f"{path}: {error}") from error


def write_lines(path: Path, told: Iterable[Mapping[str, object]]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(one) + "\n" for one in told)


def _guard(judging: Judging) -> NamedCheckpoint | None:
    guard = judging.guard_model
    return None if guard is None else named(guard, "guard_model")


def _measurand(adapter: NamedAdapter, chat: NamedCheckpoint) -> Measurand:
    """Raises InvalidField, and what the gate and `check_fit_chat` raise."""
    with open_trained(adapter.path) as opened:
        check_exported(opened.manifest.dropped_keys)
        use = SubjectUse(adapter.name, opened.manifest.id, None)
        return measurand(use, opened.folder, opened.manifest, chat)


def _counted(on_step: OnStep, total: int) -> Any:
    def on_more(kept: Kept) -> None:
        on_step(len(kept.told), total, "rows", {})

    return on_more


def frontier_here(asked: FrontierAsked, out: Path) -> Json:
    """The report. `out` gets it in three forms, what was answered, and the patched adapter where
    one is wanted."""
    rows, held_out = rows_of(asked.files), rows_of(asked.held_out)
    with open_trained(asked.adapter) as opened, new_folder(out) as work:
        patch = _patch_input(asked, opened)
        found = _searched(FrontierInput(patch, asked.recipe, rows, held_out))
        report = found.report.as_json()
        write_forms(report, work)
        write_lines(work / TRANSCRIPTS_FILE, found.transcripts)
        wanted = asked.wanted(report)
        if wanted is not None:
            _write_patched(replace(patch, method=_method(wanted["method"])), work)
    return report


def _searched(given: FrontierInput) -> Found:
    both = FrontierKept(Kept(split="tuning"), Kept(split="held out"))
    with TemporaryDirectory(prefix="adapter-safety-") as work, progress("searching") as on_step:
        return find_frontier(given, Path(work), compute(), both, on_step)


def _patch_input(asked: FrontierAsked, opened: OpenedAdapter) -> PatchInput:
    """Raises InvalidField, KitOfAnotherModel, and what `check_patch` raises."""
    base, chat = named(asked.base_model, "base_model"), named(asked.chat_model)
    manifest = opened.manifest
    check_exported(manifest.dropped_keys)
    request = JobRequest("frontier", manifest.id, base.id, chat.id, Method())
    check_patch(stored_modules(manifest), base.checkpoint, chat.checkpoint, request)
    given = PatchInput(opened.folder, manifest, base, chat, Method())
    if asked.safety_module is None:
        return given
    module = load_module(asked.safety_module)
    check_digest("safety module", module.made_of, chat)
    return replace(given, safety=module)


def _method(body: Mapping[str, Any]) -> Method:
    """As a job's body has it."""
    return Method(**{**body, "select": Selection(**{"value": None, **body["select"]})})


def _write_patched(given: PatchInput, work: Path) -> None:
    with progress("patching") as on_step:
        write_patched_adapter(
            given,
            work,
            threads=Settings().resolved_threads,
            on_module=lambda done: on_step(done.done, done.total, done.module, {}),
        )
