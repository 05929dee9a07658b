"""docs/reference/blocks.md: which blocks of the pages no test runs, and why."""

from tests.docs.blocks import DATA, blocks
from tests.docs.reference.tables import code, table
from tests.docs.site import DOCS, pages

HEAD = """# What no test runs

Made from the marks in the pages by `make reference`; do not edit.

Every fenced block of these pages is run by a test (`tests/docs`) against a real service, in a
folder of its own, and what is shown beside it is compared with what it prints; blocks of data are
parsed, and held against their schemas. These are not run, for the reason that stands beside them.
They are looked at all the same: their grammar, and that every command, option, make target,
module and service of `docker-compose.yml` that they name is there.
"""


def page() -> str:
    rows = [
        (path.name, code(block.text.strip().splitlines()[0].strip()), block.reason or "")
        for path in pages()
        if path.parent != DOCS / "reference"
        for block in blocks(path)
        if not block.is_run and block.language not in DATA
    ]
    return "\n".join([HEAD, *table(("page", "begins with", "why it is not run"), rows)])
