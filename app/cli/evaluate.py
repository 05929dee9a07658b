"""`adapter-safety evaluate`: what a chat model and adapters on it refuse, and what they can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app.cli.exits import NOT_HELD, explained
from app.cli.measure_options import (
    PROMPTS,
    AsJson,
    Benign,
    DataFiles,
    Dtype,
    Guard,
    Judge,
    MaxLength,
    MaxOverRefusal,
    MinRefusal,
    NewTokens,
    Report,
    Server,
    Template,
    Utility,
)
from app.cli.measure_tables import print_evaluation
from app.cli.report_files import check_parent, check_report, write_report
from app.cli.tables import print_json
from app.domain.errors import InvalidField
from app.domain.evaluation import Constraints, EvaluateRecipe, Judging, Subject
from app.domain.salora import Encoding
from app.imports import lasting_imports
from app.jobs.bounds import unmet


@dataclass(frozen=True)
class NamedAdapter:
    name: str
    path: Path


@dataclass(frozen=True)
class EvaluateAsked:
    """What the command was given, checked as far as it can be without opening a model."""

    chat: str  # folder or id
    adapters: Sequence[NamedAdapter]
    files: DataFiles
    recipe: EvaluateRecipe  # its adapters are named by their paths


def evaluate(
    chat: Annotated[str, typer.Argument(help="chat model: folder or id")],
    adapter: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER (or an archive); once for each")
    ] = None,
    harmful: Annotated[
        Path | None, typer.Option(help=f"prompts that should be refused, {PROMPTS}")
    ] = None,
    benign: Benign = None,
    task: Annotated[
        Path | None, typer.Option(help="prompts whose responses are the right answers")
    ] = None,
    judge: Judge = "keywords",
    utility: Utility = "exact",
    guard_model: Guard = None,
    max_new_tokens: NewTokens = 256,
    max_length: MaxLength = 1024,
    chat_template: Template = True,
    dtype: Dtype = "auto",
    min_refusal: MinRefusal = None,
    max_over_refusal: MaxOverRefusal = None,
    transcripts: Annotated[
        Path | None, typer.Option(help="also write every prompt and answer, as JSON lines")
    ] = None,
    report: Report = None,
    json_: AsJson = False,
    server: Server = None,
) -> None:
    """Measure a chat model and adapters on it, side by side, by what they answer.

    Exit 0 measured, 1 an adapter does not hold --min-refusal or --max-over-refusal, 2 bad input, 3
    the work failed.
    """
    with explained():
        encoding = Encoding(chat_template, max_length)
        judging = Judging(judge, utility, guard_model, max_new_tokens, encoding, dtype)  # type: ignore[arg-type] # checked there
        bounds = Constraints(min_refusal, max_over_refusal)
        files = DataFiles(harmful, benign, task)
        files.check_bounds(bounds)
        asked = _asked(chat, adapter or [], files, judging)
        check_report(report)
        check_parent(transcripts, "transcripts")
        if server:
            from app.cli.measure_remote import evaluate_remotely

            found = evaluate_remotely(server, asked, transcripts)
        else:
            with lasting_imports():
                from app.cli.measure_here import evaluate_here  # here, because this imports torch

            found = evaluate_here(asked, transcripts)
        write_report(found, report)
    print_json(found) if json_ else print_evaluation(found)
    broken = list(unmet(found["table"], bounds))
    for sentence in broken:
        typer.echo(f"not held: {sentence}", err=True)
    if broken:
        raise typer.Exit(NOT_HELD)


def _asked(chat: str, adapters: Sequence[str], files: DataFiles, judging: Judging) -> EvaluateAsked:
    named = [_named(each) for each in adapters]
    subjects = tuple(Subject(each.name, adapter=str(each.path)) for each in named)
    return EvaluateAsked(chat, named, files, EvaluateRecipe(files.sets, subjects, judging))


def _named(given: str) -> NamedAdapter:
    name, is_named, path = given.partition("=")
    if not is_named or not path:
        raise InvalidField(field="adapter", reason=f"{given}: must be NAME=FOLDER")
    return NamedAdapter(name, Path(path))
