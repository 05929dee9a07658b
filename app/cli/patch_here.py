"""`adapter-safety patch` and `score` in this process: torch is imported only here, and late."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.bars import bar_on_stderr
from app.cli.folders import new_folder, open_checkpoint
from app.cli.hub import open_named
from app.cli.patch_options import PatchAsked
from app.config import Settings
from app.domain.checkpoint import Checkpoint
from app.domain.report import Report
from app.imports import lasting_imports, without_meta_kernels
from app.intake.opened import OpenedAdapter
from app.intake.preflight import check_fit_chat
from app.jobs.adapters import stored_modules
from app.jobs.check_salora import check_exported
from app.jobs.submit import JobRequest, check_patch

if TYPE_CHECKING:
    from workers.pipeline import OnModule, PatchInput

Json = dict[str, Any]
Work = Callable[["PatchInput"], Report]


def patch_here(asked: PatchAsked, out: Path) -> Json:
    """Into a folder beside `out` first, so that `out` is whole or not there."""

    with _importing(asked):
        from workers.output import write_patched_adapter

    def work(given: "PatchInput") -> Report:
        threads = Settings().resolved_threads
        with (
            new_folder(out) as folder,
            _progress("patching", len(given.manifest.modules)) as on_module,
        ):
            return write_patched_adapter(given, folder, threads=threads, on_module=on_module)

    return _opened(asked, work)


def score_here(asked: PatchAsked) -> Json:
    """The report that a patch would give; nothing is kept."""

    with _importing(asked):
        from workers.pipeline import score

    def work(given: "PatchInput") -> Report:
        threads = Settings().resolved_threads
        with (
            tempfile.TemporaryDirectory(prefix="adapter-safety-") as folder,
            _progress("scoring", len(given.manifest.modules)) as on_module,
        ):
            return score(given, Path(folder), threads=threads, on_module=on_module)

    return _opened(asked, work)


@contextmanager
def _importing(asked: PatchAsked) -> Iterator[None]:
    """Only a safety module brings transformers and PEFT with it."""
    runs_no_model = nullcontext() if asked.safety_module else without_meta_kernels()
    with lasting_imports(), runs_no_model:
        yield


def _opened(asked: PatchAsked, work: Work) -> Json:
    chat = open_checkpoint(asked.chat_model, "chat_model")
    base = None if asked.base_model is None else open_checkpoint(asked.base_model, "base_model")
    from workers.prefetch import have_weights

    with open_named(asked.adapter) as opened:
        check_exported(opened.manifest.dropped_keys)
        modules = stored_modules(opened.manifest)
        if base is None:
            check_fit_chat(modules, chat, asked.chat_model)
        else:
            check_patch(modules, base, chat, _request(opened, asked))
            have_weights(opened.manifest.modules, base, chat)
        return work(_input(opened, asked, base, chat)).as_json()


def _request(opened: OpenedAdapter, asked: PatchAsked) -> JobRequest:
    models = (asked.base_model, asked.chat_model)
    return JobRequest("patch", opened.manifest.id, *models, asked.method)


def _input(
    opened: OpenedAdapter, asked: PatchAsked, base: Checkpoint | None, chat: Checkpoint
) -> "PatchInput":
    from workers.pipeline import NamedCheckpoint, PatchInput  # here, because this imports torch

    named_chat = NamedCheckpoint(asked.chat_model, chat)
    named_base = NamedCheckpoint(asked.base_model or "", base) if base else None
    common = (opened.folder, opened.manifest, named_base, named_chat, asked.method)
    if asked.safety_module is None:
        return PatchInput(*common)
    from app.cli.salora_here import load_module
    from workers.same_model import check_digest

    module = load_module(asked.safety_module)
    check_digest("safety module", module.made_of, named_chat)
    return PatchInput(*common, module)


@contextmanager
def _progress(what: str, total: int) -> "Iterator[OnModule]":
    """A progress bar on stderr, so that stdout stays the report's."""
    with bar_on_stderr() as bar:
        task = bar.add_task(what, total=total)
        yield lambda progress: bar.update(task, completed=progress.done)
