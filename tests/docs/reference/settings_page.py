"""docs/reference/settings.md, from the class of the settings."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.config import Settings
from tests.docs.reference.tables import code, one_line, table

HEAD = """# Settings

Made from `app/config.py` and `app/config_outside.py` by `make reference`; do not edit.

Environment variables, all with the prefix `ADAPTER_SAFETY_`. Each has a default that works on one
machine. They are read once, when a process starts; a value that is out of bounds ends it with a
sentence that names the setting. Names and patterns in a list are separated by commas.

Read beside them, by the libraries that they belong to: `AWS_*` (credentials, region, endpoint and
time-outs of `s3://` stores), `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` (the hub),
`SSL_CERT_FILE` (a certificate authority of your own), `NO_COLOR` and `COLUMNS` (the command line).
The command line's `--server` takes its key from `ADAPTER_SAFETY_API_KEY`, and `jobs` its server
from `ADAPTER_SAFETY_SERVER`.
"""
WORDS = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    SecretStr: "secret",
}
SIGNS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"))


def page() -> str:
    rows = [_row(name, field) for name, field in sorted(Settings.model_fields.items())]
    return "\n".join([HEAD, *table(("variable", "type", "default", "meaning"), rows)])


def _row(name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    assert field.description, f"{name} has no description"
    variable = f"`ADAPTER_SAFETY_{name.upper()}`"
    return variable, _type(field), _default(name, field), one_line(field.description)


def _type(field: FieldInfo) -> str:
    return ", ".join([_word(field.annotation), *_bounds(field)])


def _word(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [each for each in get_args(annotation) if each is not NoneType]
    if get_origin(annotation) is Literal:
        return " or ".join(code(each) for each in get_args(annotation))
    return "list" if get_origin(annotation) is tuple else WORDS[annotation]


def _bounds(field: FieldInfo) -> list[str]:
    found = []
    for each in field.metadata:
        if type(each) in SIGNS:
            attribute, sign = SIGNS[type(each)]
            found.append(f"{sign} {getattr(each, attribute)}")
    return found


def _default(name: str, field: FieldInfo) -> str:
    """A path of whoever makes the page is no default."""
    if field.default_factory is not None:
        made = str(Settings.model_fields[name].get_default(call_default_factory=True))
        return code(made.replace(str(Path.home()), "~"))
    value = field.default
    if value is None or value == ():
        return "unset"
    if isinstance(value, tuple):
        return code(",".join(value))
    if name.endswith("_bytes"):
        return f"{code(value)}{_unit(value)}"
    return code(str(value).lower() if isinstance(value, bool) else value)


def _unit(size_bytes: int) -> str:
    for unit, word in UNITS:
        if size_bytes and size_bytes % unit == 0:
            return f" ({size_bytes // unit} {word})"
    return ""
