"""docs/reference/api.md, from the OpenAPI description that the service gives of itself."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.config import Settings
from app.main import create_app
from tests.docs.reference.tables import code, fields, kind, one_line, table

HEAD = """# HTTP API

Made from the service's own OpenAPI description by `make reference`; do not edit. A running service
has the same at `/docs` (a page of its own, nothing is loaded from elsewhere) and `/openapi.json`.

Requests carry `Authorization: Bearer KEY` where the service asks for keys. Errors are RFC 9457
problems (`application/problem+json`): `type` (`urn:adapter-safety:problem:CODE`, stable), `title`,
`status`, `detail`, and the error's facts as further members. Every answer has `X-Request-ID`.
How the calls go together: [by HTTP](../http.md).
"""
PROBLEMS = ("4XX", "5XX")


def page() -> str:
    api = description()
    parts = api["components"]["schemas"]
    links = {name: f"#{name.lower()}" for name in parts}
    lines = [HEAD]
    for tag, found in _by_tag(api["paths"]).items():
        lines += [f"## {tag.capitalize().replace('-', ' ')}", ""]
        for method, path, operation in found:
            lines += _operation(method, path, operation, links)
    lines += ["## Bodies", ""]
    for name, part in parts.items():
        lines += _part(name, part, links)
    return "\n".join(lines)


def description() -> dict[str, Any]:
    """Settings do not change it."""
    app = create_app(Settings(data_dir=Path("data"), auth="keys"))
    return app.openapi()


def _by_tag(paths: Mapping[str, Any]) -> dict[str, list[tuple[str, str, Any]]]:
    found: dict[str, list[tuple[str, str, Any]]] = defaultdict(list)
    for path, operations in paths.items():
        for method, operation in operations.items():
            found[operation.get("tags", ["service"])[0]].append((method.upper(), path, operation))
    return found


def _operation(
    method: str, path: str, operation: Mapping[str, Any], links: Mapping[str, str]
) -> Iterator[str]:
    yield from (f"### {method} {path}", "", one_line(operation.get("description", "")), "")
    rows = [_parameter(each, links) for each in operation.get("parameters", ())]
    if rows:
        yield from table(("parameter", "in", "type", "meaning"), rows)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield from _body(f"Body, `{media}`", content.get("schema", {}), links)
    yield from _answers(operation["responses"], links)


def _parameter(each: Mapping[str, Any], links: Mapping[str, str]) -> tuple[str, ...]:
    said = one_line(each.get("description", each["schema"].get("description", "")))
    required = " (required)" if each.get("required") else ""
    return code(each["name"]), each["in"], kind(each["schema"], links) + required, said


def _body(title: str, schema: Mapping[str, Any], links: Mapping[str, str]) -> Iterator[str]:
    if "properties" not in schema:
        yield from (f"{title}: {kind(schema, links)}", "")
        return
    parts = {**links, **dict.fromkeys(schema.get("$defs", ()), "")}
    yield from (f"{title}:", "", *fields(schema, {k: v for k, v in parts.items() if v}))
    for part in schema.get("$defs", {}).values():
        yield from (f"`{part['title']}`:", "", *fields(part, links))


def _answers(responses: Mapping[str, Any], links: Mapping[str, str]) -> Iterator[str]:
    rows = []
    for status, answer in sorted(responses.items()):
        if status in PROBLEMS:
            continue
        for media, content in answer.get("content", {"": {}}).items():
            schema = content.get("schema", {})
            said = answer["description"].replace("Successful Response", "")
            rows.append((code(status), code(media) if media else "", _named(schema, links), said))
    yield from table(("answer", "as", "of type", ""), rows)


def _named(schema: Mapping[str, Any], links: Mapping[str, str]) -> str:
    return kind(schema, links) if schema else ""


def _part(name: str, part: Mapping[str, Any], links: Mapping[str, str]) -> Iterator[str]:
    yield from (f"### {name}", "")
    if "description" in part:
        yield from (one_line(part["description"]), "")
    yield from fields(part, links)
