"""The licences of what the program needs to run, from the installed packages' own metadata.

`python -m tests.release.licences` writes docs/reference/licences.md.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.reference.tables import table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "licences.md"
HEAD = """# Licences of what it needs

Made from the metadata of the installed packages by `make licences`; do not edit. adapter-safety
itself is Apache-2.0, and holds no code of these: they are installed beside it, as `constraints.txt`
pins them. A test holds each to a list of licences that Apache-2.0 software may depend on
(`tests/release/licences.py`).

psycopg, an extra for PostgreSQL, is LGPL-3.0: used as a library and replaceable, as that licence
asks. certifi and tqdm are MPL-2.0, file by file, and unchanged. The CUDA builds of torch bring
NVIDIA's own libraries, under NVIDIA's terms; the CPU builds do not. The images in `docker/` add
Debian's packages and Python. Redis and PostgreSQL, in the compose file, are images of their own and
no part of this.
"""
ALLOWED = frozenset({
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "LGPL-3.0-only", "MIT", "MPL-2.0", "PSF-2.0",
    "Zlib",
})  # fmt: skip
BY_CLASSIFIER: Mapping[str, str] = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
BY_WORDS: Mapping[str, str] = {"Apache 2.0 License": "Apache-2.0"}


@dataclass(frozen=True)
class Licensed:
    name: str
    version: str  # as pinned
    licence: str  # an SPDX expression

    @property
    def allowed(self) -> bool:
        """Every licence that holds at once is; of those to choose from, one."""
        together = self.licence.replace("(", "").replace(")", "").split(" AND ")
        return all(any(one in ALLOWED for one in each.split(" OR ")) for each in together)


def needed() -> list[Licensed]:
    """What `pip install adapter-safety[postgres]` brings, as far as it is pinned."""
    pins = pinned()
    found = {name for name in _closure() if name in pins}
    return [Licensed(name, pins[name], _licence(distribution(name))) for name in sorted(found)]


@cache
def pinned() -> dict[str, str]:
    """Versions by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def _closure() -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    todo = [Requirement(each) for each in (*project["dependencies"], *extras["postgres"])]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        wanted = todo.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        todo += _requires(distribution(key[0]), wanted.extras)


def _requires(package: Distribution, extras: set[str]) -> Iterator[Requirement]:
    """On this machine."""
    for text in package.requires or ():
        wanted = Requirement(text)
        asked = ("", *extras)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": each}) for each in asked):
            yield wanted


def _licence(package: Distribution) -> str:
    """Its expression; of older packages the classifiers, else the words."""
    said = package.metadata
    expression = said.get("License-Expression")
    if expression:
        return expression
    names = [
        each.rsplit(" :: ", 1)[-1]
        for each in said.get_all("Classifier", [])
        if "License ::" in each
    ]
    words = (said.get("License") or "").strip()
    if words in ALLOWED:  # more exact than "BSD License"
        return words
    if names:
        return " OR ".join(BY_CLASSIFIER.get(name, name) for name in names)
    return BY_WORDS.get(words, words or "none said")


def page() -> str:
    rows = [(each.name, each.version, each.licence) for each in needed()]
    return "\n".join([HEAD, *table(("package", "version", "licence"), rows)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
