"""Print `docs/adapter-kinds.md` from the breadth table: `python -m tests.workers.kinds_page`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.workers.breadth import LINEAR_EXPERTS, REFUSED, SUPPORTED, Row

PAGE = Path(__file__).parents[2] / "docs" / "adapter-kinds.md"
INTRODUCTION = """# Adapter kinds

Made from the rows of `tests/workers/breadth.py` by `python -m tests.workers.kinds_page`; do
not edit. Each row is a test on a tiny random model made with transformers, with an adapter
made by PEFT.
"""
SUPPORTED_TEXT = """## Supported

Each is compared with the dense float64 formulas, with PEFT's merged weights, and by the model's
forward pass. "Not screened" names whole parameters that bypass LoRA: `full_weights: keep` leaves
them, with a warning and the verdict `review`; `drop` takes them out; `project` compares and changes
them by what they change of the chat model's (not norms, nor single tokens of an output head).
"""
REFUSED_TEXT = """## Refused

Before anything is computed, with an error that names what it is.
"""


def page() -> str:
    return "\n".join([
        INTRODUCTION,
        SUPPORTED_TEXT,
        *_table(("architecture", "kind", "comment"), map(_cells, [*SUPPORTED, *LINEAR_EXPERTS])),
        "",
        REFUSED_TEXT,
        *_table(("architecture", "kind", "comment", "error"), map(_refused, REFUSED)),
        "",
    ])  # fmt: skip


def _cells(row: Row) -> list[str]:
    return [row.architecture, row.kind, row.comment]


def _refused(row: Row) -> list[str]:
    error = row.refused[0].code if row.refused else ""
    return [*_cells(row), f"`{error}`"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield _line(head)
    yield _line(["---"] * len(head))
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
