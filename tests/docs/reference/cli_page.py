"""docs/reference/cli.md, from the commands themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from typer.main import get_command

from app.cli import program
from app.cli.examples import EXAMPLES
from app.cli.exits import EXITS
from tests.docs.reference.tables import code, one_line, table

HEAD = """# The command line, option by option

Made from the commands by `make reference`; do not edit. How they are used:
[the command line](../cli.md). Values in brackets are defaults.
"""
WORDS = {str: "text", Path: "path", int: "integer", float: "number"}
PARSED = "<!-- not run: a test parses each -->"
USAGE = "<!-- not run: usage -->"
UNIVERSAL = {"help", "install_completion", "show_completion"}


def page() -> str:
    root = get_command(program())
    exits = table(("exit code", "meaning"), [(code(each), said) for each, said in EXITS.items()])
    lines = [HEAD, *exits]
    for name, command in leaves(root):
        lines += _command(name, command)
    return "\n".join(lines)


def leaves(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, as it is typed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _command(name: str, command: Any) -> Iterator[str]:
    yield from (f"## {name}", "", one_line(command.help or ""), "")
    shown = [each for each in command.params if not each.hidden and each.name not in UNIVERSAL]
    arguments = " ".join(each.name.upper() for each in shown if _is_argument(each))
    yield from (
        USAGE,
        "```text",
        f"adapter-safety {name} [OPTIONS] {arguments}".rstrip(),
        "```",
        "",
    )
    rows = [_parameter(each) for each in shown]
    if rows:
        yield from table(("", "value", "meaning"), rows)
    yield from (PARSED, "```sh", *(f"adapter-safety {each}" for each in EXAMPLES[name]), "```", "")


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _parameter(parameter: Any) -> tuple[str, str, str]:
    said = one_line(parameter.help or "")
    if parameter.required:
        said = f"{said} (required)".strip()
    if _is_argument(parameter):
        return code(parameter.name.upper()), _value(parameter), said
    names = ", ".join(map(code, (*parameter.opts, *parameter.secondary_opts)))
    return names, _value(parameter), f"{said}{_default(parameter)}"


def _value(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    annotation = parameter.type_descriptor.annotation
    word = WORDS[get_args(annotation)[0] if parameter.multiple else annotation]
    return f"{word}, may be given again" if parameter.multiple else word


def _default(parameter: Any) -> str:
    """Unless the help says so itself."""
    value = parameter.default
    shown = value is None or value is False or parameter.required or parameter.help.endswith("]")
    return "" if shown or callable(value) else f" [{value}]"
