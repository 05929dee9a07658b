"""docs/reference/report.md, from the JSON Schemas that the service publishes."""

from collections.abc import Iterator, Mapping
from typing import Any

from app.api import schema_pages
from tests.docs.reference.tables import fields, one_line

HEAD = """# The report, field by field

Made from the JSON Schemas (draft 2020-12) of `GET /v1/schemas/...` by `make reference`; do
not edit. What the numbers mean: [reports](../reports.md) and [the methods](../methods.md).
`schema_version` goes up when a member changes its meaning or goes away; members may be added under
the same one, so a reader skips what it does not know.
"""
SCHEMAS = {
    "Patch and score": ("report", schema_pages.report_schema),
    "Alignment": ("alignment", schema_pages.alignment_schema),
    "SaLoRA": ("salora", schema_pages.salora_schema),
    "Evaluation": ("evaluation", schema_pages.evaluation_schema),
    "Frontier": ("frontier", schema_pages.frontier_schema),
}


def page() -> str:
    lines = [HEAD]
    for title, (name, make) in SCHEMAS.items():
        lines += [f"## {title}", "", f"`GET /v1/schemas/{name}`.", *_schema(name, make())]
    return "\n".join(lines)


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    parts = schema.get("$defs", {})
    links = {each: f"#{name}-{each.lower()}" for each in parts}
    yield from (one_line(schema.get("description", "")), "", *fields(schema, links))
    for each, part in parts.items():
        yield from (f"### {name} {each}", "")  # the name first, because two schemas share parts
        if "description" in part:
            yield from (one_line(part["description"]), "")
        yield from fields(part, links)
