"""Two things that MkDocs does not do by itself.

README.md, SECURITY.md and the like lie at the top, where tools expect them, and are pages of the
site too. Formulas are written as `$...$`, as forges show them, and become MathML when the site is
built, so that no reader's browser fetches a script for them.
"""

import html
import re
from functools import partial
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
TOP = {"README.md": "index.md"}
TOP |= dict.fromkeys(("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "DECISIONS.md"), "")
LINK = re.compile(r"\[(?P<said>[^\[\]]*)\]\((?P<to>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">(?P<tex>.*?)</(?P=tag)>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The top's pages, with links as they are right inside docs/."""
    for name, page in TOP.items():
        text = (ROOT / name).read_text(encoding="utf-8").replace('src="docs/', 'src="')
        files.append(File.generated(config, page or name, content=LINK.sub(_inside, text)))
    return files


def _inside(link: re.Match[str]) -> str:
    """Of a page at the top."""
    target = link["to"].removeprefix("docs/")
    return f"[{link['said']}]({TOP.get(target) or target}{link['anchor'] or ''})"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links from docs/ to the top: `../SECURITY.md` there, a page beside it here. What is no page
    (a test, a compose file) is named, because the site knows no forge to show it on."""
    up = "../" * (page.file.src_uri.count("/") + 1)
    return LINK.sub(partial(_from_docs, up=up), markdown)


def _from_docs(link: re.Match[str], up: str) -> str:
    name = link["to"].removeprefix(up)
    if not link["to"].startswith(up):
        return link[0]
    if name in TOP:
        return f"[{link['said']}]({up[3:]}{TOP[name] or name}{link['anchor'] or ''})"
    return f"`{name}`"


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    """arithmatex leaves `\\(...\\)` in a line and `\\[...\\]` of its own."""
    tex = html.unescape(formula["tex"]).strip()
    block = tex.startswith(r"\[")
    return convert(tex[2:-2].strip(), display="block" if block else "inline")
