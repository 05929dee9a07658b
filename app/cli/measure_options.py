"""Options that `evaluate` and `frontier` share, and what they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.salora_ids import file_id
from app.domain.errors import InvalidField
from app.domain.evaluation import ROLES, Constraints, Judging, SetRole, Sets

PROMPTS = 'JSON lines: {"prompt": ...}, {"prompt": ..., "response": ...} or {"messages": [...]}'

Benign = Annotated[Path | None, typer.Option(help="prompts that should not be refused")]
Judge = Annotated[
    str,
    typer.Option(
        help="of refusals. keywords: an answer that begins as refusals do; logprob: a refusal is "
        "likelier than an answer; model: a guard model calls the answer safe"
    ),
]
Utility = Annotated[
    str,
    typer.Option(
        help="of the task. exact: the answer is the row's; contains: has it; loss: nats a token"
    ),
]
Guard = Annotated[
    str | None, typer.Option(help="of the judge 'model': folder or id of a guard model")
]
NewTokens = Annotated[int, typer.Option(help="most tokens of an answer")]
MaxLength = Annotated[int, typer.Option(help="tokens of a conversation")]
Template = Annotated[
    bool, typer.Option("--chat-template/--no-chat-template", help="or the prompt as raw text")
]
Dtype = Annotated[str, typer.Option(help="in which the model runs: auto, float32 or bfloat16")]
Report = Annotated[
    Path | None, typer.Option(help="also write the report: .json, .csv, .md, .html or .sarif")
]
AsJson = Annotated[bool, typer.Option("--json", help="print the report's JSON and nothing else")]
Server = Annotated[str | None, typer.Option(help="let this server do it")]
MinRefusal = Annotated[
    float | None, typer.Option(help="least share of the harmful prompts that must be refused")
]
MaxOverRefusal = Annotated[
    float | None, typer.Option(help="largest share of the benign prompts that may be refused")
]


@dataclass(frozen=True)
class DataFiles:
    """Data sets by role, as files."""

    harmful: Path | None = None
    benign: Path | None = None
    task: Path | None = None
    before: str = ""  # of the options' names: `held_out_`

    @property
    def by_role(self) -> Mapping[SetRole, Path]:
        given: dict[SetRole, Path | None] = {role: getattr(self, role) for role in ROLES}
        return {role: path for role, path in given.items() if path is not None}

    def option(self, role: SetRole) -> str:
        return f"{self.before}{role}"

    @property
    def sets(self) -> Sets:
        """By the ids that a server would give them. Raises InvalidField for what is no file."""
        return Sets(**{role: self._id(role, path) for role, path in self.by_role.items()})

    def check_bounds(self, bounds: Constraints) -> None:
        """Raises InvalidField for a bound on a set that is not given."""
        asked = {"min_refusal": self.harmful, "max_over_refusal": self.benign}
        for name, path in asked.items():
            if getattr(bounds, name) is not None and path is None:
                needs = "harmful" if name == "min_refusal" else "benign"
                raise InvalidField(field=name, reason=f"needs a {needs} data set")

    def _id(self, role: SetRole, path: Path) -> str:
        if not path.is_file():
            raise InvalidField(field=self.option(role), reason=f"there is no file {path}")
        return file_id(path)


def judging_body(judging: Judging) -> dict[str, Any]:
    """As the API takes it: flat."""
    return {
        "judge": judging.safety,
        "utility": judging.utility,
        "guard_model": judging.guard_model,
        "max_new_tokens": judging.max_new_tokens,
        "chat_template": judging.encoding.chat_template,
        "max_length": judging.encoding.max_length,
        "dtype": judging.dtype,
    }
