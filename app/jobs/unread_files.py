"""The files of a commit that nobody looks at, save plain text, pictures and settings."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from app.domain.adapter import WEIGHTS_FILE
from app.intake.names import shown

INERT_SUFFIXES = frozenset(
    {
        ".md", ".txt", ".rst", ".json", ".jsonl", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".log",
        ".jinja", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".pdf", ".bib", ".cff",
    }
)  # fmt: skip
INERT_NAMES = frozenset(
    {".gitattributes", ".gitignore", "license", "licence", "notice", "readme", "tokenizer.model"}
)
TRAINING_LOG = "events.out.tfevents."  # what a trainer's push leaves in `runs/`


UNREAD = "unread"  # the name of their number
MAX_NAMED, MAX_NAME_CHARS = 5, 120  # because a stranger chose them


@dataclass(frozen=True)
class Unread:
    count: int = 0
    names: tuple[str, ...] = ()  # the first, as they may stand in a message


NOTHING_UNREAD = Unread()


def unread_of(names: Iterable[str]) -> Unread:
    """Other weights, pickles (an optimizer's state, `training_args.bin`), code, archives, and all
    of which nobody knows what it is: told by what is harmless, because that list is the short
    one."""
    found = sorted(name for name in names if name != WEIGHTS_FILE and not _is_inert(name))
    return Unread(len(found), tuple(shown(name)[:MAX_NAME_CHARS] for name in found[:MAX_NAMED]))


def unread_doubt(unread: Unread) -> Iterator[str]:
    if unread.count:
        more = ", ..." if unread.count > len(unread.names) else ""
        named = ", ".join(unread.names) + more
        yield f"{unread.count} other files of the commit were not looked at ({named})"


def _is_inert(name: str) -> bool:
    path = PurePosixPath(name.lower())
    return (
        path.suffix in INERT_SUFFIXES
        or path.name in INERT_NAMES
        or path.name.startswith(TRAINING_LOG)
    )
