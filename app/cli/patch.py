"""`adapter-safety patch`: the main job, in this process or by a server."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import patch_options as given
from app.cli.exits import explained
from app.cli.folders import check_new
from app.cli.patch_options import PatchAsked
from app.cli.report_files import check_report, write_report
from app.cli.tables import print_json, print_report


def patch(
    adapter: given.Adapter,
    chat_model: given.Chat,
    out: Annotated[Path, typer.Option(help="new folder for the patched adapter")],
    base_model: given.Base = None,
    projector: given.Projector = "approximate",
    energy: given.Energy = None,
    rank: given.Rank = None,
    threshold: given.Threshold = None,
    count: given.Count = None,
    fraction: given.Fraction = None,
    all_: given.Every = False,
    name: given.Name = "safe_lora",
    factor: given.Factor = None,
    rescale: given.Rescale = "none",
    full_weights: given.FullWeights = "keep",
    safety_module: given.SafetyModule = None,
    report: given.Report = None,
    fail_on: given.FailOn = None,
    json_: given.AsJson = False,
    server: given.Server = None,
) -> None:
    """Patch an adapter and print the report.

    Exit 0 done, 1 --fail-on found something, 2 bad input, 3 the job failed.
    """
    with explained():
        select = given.selection(threshold, count, fraction, all_)
        names = {"projector": projector, "energy": energy, "rank": rank, "name": name}
        more = {"factor": factor, "rescale": rescale, "full_weights": full_weights}
        method = given.method({**names, **more}, select, safety_module)
        check_new(out)
        check_report(report)
        given.check_fail_on(fail_on)
        asked = given.asked_for(adapter, (base_model, chat_model), method, safety_module)
        found = _found(asked, out, server)
        write_report(found, report)
    if json_:
        print_json(found)
    else:
        print_report(found)
        typer.echo(f"patched adapter: {out}")
    given.fail_where_asked(found, fail_on)


def _found(asked: PatchAsked, out: Path, server: str | None) -> dict[str, Any]:
    if server:
        from app.cli.remote import patch_remotely  # here: an HTTP client takes 0.1 s to import

        return patch_remotely(server, asked, out)
    from app.cli.patch_here import patch_here

    return patch_here(asked, out)
