"""Markdown tables, and what a JSON Schema says in one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]
LONG = 60  # characters; what is longer is a sentence, not a value
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "minLength": "{} characters or more",
    "maxLength": "{} characters at most",
    "minItems": "{} or more",
    "maxItems": "{} at most",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows), ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def one_line(text: str) -> str:
    return " ".join(text.split())


def code(text: object) -> str:
    return f"`{text}`"


def fields(schema: Schema, links: Mapping[str, str]) -> list[str]:
    """A table of an object's members; `links` leads from a definition's name to its heading."""
    required = set(schema.get("required", ()))
    rows = [
        (code(name), kind(each, links), "" if name in required else "no", _said(each))
        for name, each in schema.get("properties", {}).items()
    ]
    return table(("member", "type", "required", "meaning"), rows) if rows else []


def kind(schema: Schema, links: Mapping[str, str]) -> str:
    """What a member may be, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}]({links[name]})" if name in links else name
    for joined in ("anyOf", "oneOf"):
        if joined in schema:
            return " or ".join(dict.fromkeys(kind(each, links) for each in schema[joined]))
    if "const" in schema or "enum" in schema:
        return ", ".join(code(each) for each in schema.get("enum", [schema.get("const")]))
    return _plain(schema, links)


def _plain(schema: Schema, links: Mapping[str, str]) -> str:
    name = schema.get("format") or schema.get("type", "any")
    if name == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        name = f"array of {kind(items, links)}"
    elif name == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        name = f"object of {kind(schema['additionalProperties'], links)}"
    bounds = [text.format(schema[key]) for key, text in BOUNDS.items() if key in schema]
    return ", ".join([name, *bounds])


def _said(schema: Schema) -> str:
    said = one_line(schema.get("description", ""))
    default = schema.get("default")
    if default is None or default in ("", {}, []) or len(str(default)) > LONG:
        return said
    if isinstance(default, bool):
        default = str(default).lower()
    return f"{said} (default {code(default)})".strip()
