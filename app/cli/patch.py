"""`adapter-safety patch`: the main job, in this process or by a server."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from app.cli.exits import explained
from app.cli.tables import print_report
from app.config import Settings
from app.domain.checkpoint import Checkpoint
from app.domain.errors import InvalidField
from app.domain.method import DEFAULT_THRESHOLD, Method, Selection, one_selection
from app.intake.checkpoint import read_checkpoint
from app.intake.opened import OpenedAdapter, open_adapter
from app.jobs.adapters import stored_modules
from app.jobs.render import FORMATS
from app.jobs.submit import JobRequest, check_patch
from app.storage.models import FolderModels

if TYPE_CHECKING:
    from workers.pipeline import OnModule, PatchInput

REPORT_SUFFIXES = {".json": "json", ".csv": "csv", ".md": "markdown", ".html": "html"}


def patch(
    adapter: Annotated[Path, typer.Argument(help="adapter folder, zip, tar or tar.gz")],
    base_model: Annotated[str, typer.Option(help="unaligned model: folder or id")],
    chat_model: Annotated[str, typer.Option(help="aligned model: folder or id")],
    out: Annotated[Path, typer.Option(help="new folder for the patched adapter")],
    projector: Annotated[
        str, typer.Option(help="approximate, exact, subspace or complement")
    ] = "approximate",
    energy: Annotated[
        float | None, typer.Option(help="subspace, complement: share of ||V||_F^2 to hold [0.9]")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="subspace, complement: number of directions instead")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="project where the cosine is at or below this [0.5]")
    ] = None,
    count: Annotated[int | None, typer.Option(help="project exactly this many")] = None,
    fraction: Annotated[float | None, typer.Option(help="project at least this share")] = None,
    all_: Annotated[bool, typer.Option("--all", help="project every module")] = False,
    name: Annotated[
        str, typer.Option("--method", help="safe_lora, or a baseline: scale, prune")
    ] = "safe_lora",
    factor: Annotated[float | None, typer.Option(help="scale: B is multiplied by it")] = None,
    rescale: Annotated[
        str, typer.Option(help="safe_lora: none, or preserve_norm to restore the update's norm")
    ] = "none",
    full_weights: Annotated[
        str, typer.Option(help="modules_to_save, trained tokens, biases: keep, drop or project")
    ] = "keep",
    report: Annotated[
        Path | None, typer.Option(help="also write the report: .json, .csv, .md or .html")
    ] = None,
    server: Annotated[str | None, typer.Option(help="let this server do it")] = None,
) -> None:
    """Patch an adapter and print the report. Exit 0 done, 2 bad input, 3 the job failed."""
    with explained():
        select = selection(threshold, count, fraction, all_)
        method = Method(
            projector,  # type: ignore[arg-type] # checked there, as the names below
            energy,
            rank,
            select,
            name,  # type: ignore[arg-type]
            factor,
            rescale,  # type: ignore[arg-type]
            full_weights,  # type: ignore[arg-type]
        )
        _check_out(out, report)
        names = {"base_model": base_model, "chat_model": chat_model}
        if server:
            from app.cli.remote import patch_remotely  # here: an HTTP client takes 0.1 s to import

            found = patch_remotely(server, adapter, names, method, out)
        else:
            found = _patch_here(adapter, names, method, out)
        _write_report(found, report)
    print_report(found)
    typer.echo(f"patched adapter: {out}")


def selection(
    threshold: float | None, count: int | None, fraction: float | None, every: bool
) -> Selection:
    """Raises InvalidField when more than one is given, or one that means nothing."""
    values = {"threshold": threshold, "count": count, "fraction": fraction, "all": every or None}
    given = {name: value for name, value in values.items() if value is not None}
    return one_selection(given) or Selection("threshold", DEFAULT_THRESHOLD)


def _check_out(out: Path, report: Path | None) -> None:
    """Before any work: nothing of the caller's is written over."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidField(field="out", reason=f"{out} is there already and is not an empty folder")
    if report and not report.absolute().parent.is_dir():
        reason = f"there is no folder {report.absolute().parent}"
        raise InvalidField(field="report", reason=reason)
    if report and report.suffix not in REPORT_SUFFIXES:
        reason = f"must end with one of {', '.join(REPORT_SUFFIXES)}"
        raise InvalidField(field="report", reason=reason)


def _patch_here(adapter: Path, names: dict[str, str], method: Method, out: Path) -> dict[str, Any]:
    models = {field: _checkpoint(name, field) for field, name in names.items()}
    with open_adapter(adapter) as opened:
        modules = stored_modules(opened.manifest)
        request = JobRequest(
            "patch", opened.manifest.id, names["base_model"], names["chat_model"], method
        )
        check_patch(modules, models["base_model"], models["chat_model"], request)
        return _patch_opened(opened, names, models, method, out)


def _patch_opened(
    opened: OpenedAdapter,
    names: dict[str, str],
    models: dict[str, Checkpoint],
    method: Method,
    out: Path,
) -> dict[str, Any]:
    from workers.pipeline import NamedCheckpoint, PatchInput  # here, because this imports torch

    base, chat = (NamedCheckpoint(names[f], models[f]) for f in ("base_model", "chat_model"))
    given = PatchInput(opened.folder, opened.manifest, base, chat, method)
    return _write(given, out)


def _write(given: "PatchInput", out: Path) -> dict[str, Any]:
    """Into a folder beside `out` first, so that `out` is whole or not there."""
    from workers.output import write_patched_adapter

    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    threads = Settings().resolved_threads
    try:
        with _progress(len(given.manifest.modules)) as on_module:
            report = write_patched_adapter(given, work, threads=threads, on_module=on_module)
        work.chmod(0o755)
        work.replace(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return report.as_json()


@contextmanager
def _progress(total: int) -> Iterator["OnModule"]:
    """A progress bar on stderr, so that stdout stays the report's."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("patching", total=total)
        yield lambda progress: bar.update(task, completed=progress.done)


def _checkpoint(name: str, field: str) -> Checkpoint:
    """A folder as given, else a model id under the model root."""
    if Path(name).is_dir():
        return read_checkpoint(Path(name), field=field, model=name)
    if name.startswith((".", "/", "~")):
        raise InvalidField(field=field, reason=f"there is no folder {name}")
    return FolderModels(Settings().resolved_model_root).checkpoint(name, field=field)


def _write_report(found: dict[str, Any], report: Path | None) -> None:
    if report:
        _, render = FORMATS[REPORT_SUFFIXES[report.suffix]]
        report.write_bytes(render(found).encode())
