"""`adapter-safety frontier`: find the patch of one adapter that keeps most of what it can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.exits import NOT_HELD, explained
from app.cli.folders import check_new
from app.cli.frontier_table import print_frontier
from app.cli.measure_options import (
    PROMPTS,
    AsJson,
    Benign,
    DataFiles,
    Dtype,
    MaxLength,
    MaxOverRefusal,
    MinRefusal,
    NewTokens,
    Report,
    Server,
    Template,
    Utility,
)
from app.cli.report_files import check_report, write_report
from app.cli.salora_ids import module_id
from app.cli.tables import print_json
from app.domain.evaluation import (
    DEFAULT_FAMILIES,
    FAMILIES,
    Budget,
    Constraints,
    FamilyName,
    FrontierRecipe,
    Judging,
)
from app.domain.salora import Encoding
from app.imports import lasting_imports

TRANSCRIPTS_FILE = "transcripts.jsonl"
HELD_OUT = "rows that judge the choice; unset: the rows are split"


@dataclass(frozen=True)
class FrontierAsked:
    """What the command was given, checked as far as it can be without opening a model."""

    adapter: Path
    base_model: str  # folders or ids
    chat_model: str
    files: DataFiles
    held_out: DataFiles
    safety_module: Path | None
    recipe: FrontierRecipe
    take_nearest: bool

    def wanted(self, report: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The body of the patch job that makes the choice; None where none is to be made."""
        choice = report["choice"]
        if choice is None or not (report["satisfied"] or self.take_nearest):
            return None
        patch: Mapping[str, Any] | None = choice["patch"]
        return patch


def frontier(
    adapter: Annotated[Path, typer.Argument(help="adapter folder, zip, tar or tar.gz")],
    base_model: Annotated[str, typer.Option(help="unaligned model: folder or id")],
    chat_model: Annotated[str, typer.Option(help="aligned model: folder or id")],
    harmful: Annotated[Path, typer.Option(help=f"prompts that should be refused, {PROMPTS}")],
    task: Annotated[Path, typer.Option(help="prompts whose responses are the right answers")],
    out: Annotated[Path, typer.Option(help="new folder for the patched adapter and the report")],
    benign: Benign = None,
    held_out_harmful: Annotated[Path | None, typer.Option(help=HELD_OUT)] = None,
    held_out_task: Annotated[Path | None, typer.Option(help="likewise")] = None,
    held_out_benign: Annotated[Path | None, typer.Option(help="likewise")] = None,
    families: Annotated[
        str | None,
        typer.Option(help=f"some of {','.join(FAMILIES)} [all that need nothing more]"),
    ] = None,
    energy: Annotated[
        float | None, typer.Option(help="subspace, complement: share of ||V||_F^2 to hold [0.9]")
    ] = None,
    safety_module: Annotated[
        Path | None, typer.Option(help="salora: folder of the safety module")
    ] = None,
    judge: Annotated[
        str, typer.Option(help="of refusals: keywords or logprob, as evaluate has them")
    ] = "keywords",
    utility: Utility = "exact",
    min_refusal: MinRefusal = None,
    max_over_refusal: MaxOverRefusal = None,
    max_utility_drop: Annotated[
        float | None, typer.Option(help="most that the task may lose against the adapter as it is")
    ] = None,
    budget: Annotated[int, typer.Option(help="most evaluations of one setting")] = 100,
    minutes: Annotated[
        float | None, typer.Option(help="time after which nothing more is tried")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the split of the rows")] = 0,
    max_new_tokens: NewTokens = 256,
    max_length: MaxLength = 1024,
    chat_template: Template = True,
    dtype: Dtype = "auto",
    take_nearest: Annotated[
        bool, typer.Option("--take-nearest", help="patch even where not all constraints hold")
    ] = False,
    report: Report = None,
    json_: AsJson = False,
    server: Server = None,
) -> None:
    """Search the settings of a patch by what the patched adapter answers, and make the best.

    Exit 0 the constraints hold on held-out rows, 1 they do not, 2 bad input, 3 the work failed.
    """
    with explained():
        files = DataFiles(harmful, benign, task)
        held_out = DataFiles(held_out_harmful, held_out_benign, held_out_task, before="held_out_")
        recipe = FrontierRecipe(
            sets=files.sets,
            held_out=held_out.sets,
            judging=Judging(
                judge,  # type: ignore[arg-type] # checked there, as the names below
                utility,  # type: ignore[arg-type]
                "none" if judge == "model" else None,  # because the recipe says why it takes none
                max_new_tokens=max_new_tokens,
                encoding=Encoding(chat_template, max_length),
                dtype=dtype,  # type: ignore[arg-type]
            ),
            families=_families(families, safety_module),
            energy=energy,
            safety_module=None if safety_module is None else module_id(safety_module),
            constraints=Constraints(min_refusal, max_over_refusal, max_utility_drop),
            budget=Budget(budget, minutes),
            seed=seed,
        )
        models = (base_model, chat_model)
        asked = FrontierAsked(
            adapter, *models, files, held_out, safety_module, recipe, take_nearest
        )
        check_new(out)
        check_report(report)
        found = _found(asked, out, server)
        write_report(found, report)
    print_json(found) if json_ else print_frontier(found, out, asked.wanted(found))
    if not found["satisfied"]:
        raise typer.Exit(NOT_HELD)


def _found(asked: FrontierAsked, out: Path, server: str | None) -> dict[str, Any]:
    if server:
        from app.cli.measure_remote import frontier_remotely

        return frontier_remotely(server, asked, out)
    with lasting_imports():
        from app.cli.measure_here import frontier_here  # here, because this imports torch

    return frontier_here(asked, out)


def _families(given: str | None, safety_module: Path | None) -> tuple[FamilyName, ...]:
    """All that need nothing more than what is given, unless named."""
    if given is None:
        return DEFAULT_FAMILIES if safety_module is None else FAMILIES
    names = filter(None, (name.strip() for name in given.split(",")))
    return tuple(names)  # type: ignore[arg-type] # because the recipe checks them
