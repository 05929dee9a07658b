"""`adapter-safety patch`: the main job, in this process or by a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from app.cli.exits import explained
from app.cli.folders import check_new, new_folder, open_checkpoint
from app.cli.report_files import check_report, write_report
from app.cli.salora_ids import module_id
from app.cli.tables import print_report
from app.config import Settings
from app.domain.checkpoint import Checkpoint
from app.domain.errors import InvalidField
from app.domain.method import DEFAULT_THRESHOLD, Method, Selection, one_selection
from app.intake.opened import OpenedAdapter
from app.intake.preflight import check_fit_chat
from app.jobs.adapters import stored_modules
from app.jobs.check_salora import check_exported
from app.jobs.submit import JobRequest, check_patch

if TYPE_CHECKING:
    from workers.pipeline import OnModule, PatchInput


@dataclass(frozen=True)
class Named:
    """The models as they were given: folders or ids."""

    base_model: str | None
    chat_model: str


def patch(
    adapter: Annotated[
        Path,
        typer.Argument(help="adapter: folder, zip, tar, tar.gz, or org/name[@revision] on the hub"),
    ],
    chat_model: Annotated[str, typer.Option(help="aligned model: folder, or id[@revision]")],
    out: Annotated[Path, typer.Option(help="new folder for the patched adapter")],
    base_model: Annotated[
        str | None, typer.Option(help="unaligned model: as chat-model; not needed for salora")
    ] = None,
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
        str, typer.Option("--method", help="safe_lora, salora, or a baseline: scale, prune")
    ] = "safe_lora",
    factor: Annotated[float | None, typer.Option(help="scale: B is multiplied by it")] = None,
    rescale: Annotated[
        str, typer.Option(help="safe_lora: none, or preserve_norm to restore the update's norm")
    ] = "none",
    full_weights: Annotated[
        str, typer.Option(help="modules_to_save, trained tokens, biases: keep, drop or project")
    ] = "keep",
    safety_module: Annotated[
        Path | None, typer.Option(help="salora: folder of the safety module")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="also write the report: .json, .csv, .md, .html or .sarif")
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
            safety_module=None if safety_module is None else module_id(safety_module),
        )
        check_new(out)
        check_report(report)
        names = Named(base_model, chat_model)
        if method.needs_base and base_model is None:
            raise InvalidField(field="base_model", reason="is missing")
        if server:
            from app.cli.remote import patch_remotely  # here: an HTTP client takes 0.1 s to import

            found = patch_remotely(server, adapter, asdict(names), method, out)
        else:
            found = _patch_here(adapter, names, method, safety_module, out)
        write_report(found, report)
    print_report(found)
    typer.echo(f"patched adapter: {out}")


def selection(
    threshold: float | None, count: int | None, fraction: float | None, every: bool
) -> Selection:
    """Raises InvalidField when more than one is given, or one that means nothing."""
    values = {"threshold": threshold, "count": count, "fraction": fraction, "all": every or None}
    given = {name: value for name, value in values.items() if value is not None}
    return one_selection(given) or Selection("threshold", DEFAULT_THRESHOLD)


def _patch_here(
    adapter: Path, names: "Named", method: Method, safety: Path | None, out: Path
) -> dict[str, Any]:
    chat = open_checkpoint(names.chat_model, "chat_model")
    base = None if names.base_model is None else open_checkpoint(names.base_model, "base_model")
    from app.cli.hub import open_named  # here, because a hub's client takes 0.3 s to import
    from workers.prefetch import have_weights

    with open_named(adapter) as opened:
        check_exported(opened.manifest.dropped_keys)
        modules = stored_modules(opened.manifest)
        if base is None:
            check_fit_chat(modules, chat, names.chat_model)
        else:
            check_patch(modules, base, chat, _request(opened, names, method))
            have_weights(opened.manifest.modules, base, chat)
        return _write(_input(opened, names, (base, chat), method, safety), out)


def _request(opened: OpenedAdapter, names: "Named", method: Method) -> JobRequest:
    return JobRequest("patch", opened.manifest.id, names.base_model, names.chat_model, method)


def _input(
    opened: OpenedAdapter,
    names: "Named",
    models: tuple[Checkpoint | None, Checkpoint],
    method: Method,
    safety: Path | None,
) -> "PatchInput":
    from workers.pipeline import NamedCheckpoint, PatchInput  # here, because this imports torch

    chat = NamedCheckpoint(names.chat_model, models[1])
    base = NamedCheckpoint(names.base_model or "", models[0]) if models[0] else None
    if safety is None:
        return PatchInput(opened.folder, opened.manifest, base, chat, method)
    from app.cli.salora_here import load_module
    from workers.same_model import check_digest

    module = load_module(safety)
    check_digest("safety module", module.made_of, chat)
    return PatchInput(opened.folder, opened.manifest, base, chat, method, module)


def _write(given: "PatchInput", out: Path) -> dict[str, Any]:
    """Into a folder beside `out` first, so that `out` is whole or not there."""
    from workers.output import write_patched_adapter

    threads = Settings().resolved_threads
    with new_folder(out) as work, _progress(len(given.manifest.modules)) as on_module:
        report = write_patched_adapter(given, work, threads=threads, on_module=on_module)
    return report.as_json()


@contextmanager
def _progress(total: int) -> Iterator["OnModule"]:
    """A progress bar on stderr, so that stdout stays the report's."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("patching", total=total)
        yield lambda progress: bar.update(task, completed=progress.done)
