"""What moderation writes to a hub: Markdown in which a stranger's names are only text."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from app.domain.policy import ActionKind
from app.domain.report import CLAIM
from app.domain.verdict import Verdict
from app.jobs.render import number, plain_markdown

BEGIN, END = "<!-- adapter-safety: begin -->", "<!-- adapter-safety: end -->"
MARKERS = (BEGIN.encode(), END.encode())
MAX_CARD_CHARS = 256 << 10  # of a card that gets a section; a longer one stays as it is
MAX_ROWS = 50  # of a table in a model card; the report has them all
MAX_POST_CHARS = 20_000
MAX_TITLE_CHARS = 200  # the hub's limit
FRONT_MATTER = re.compile(r"---[ \t]*\r?\n.*?\n---[ \t]*\r?\n", re.DOTALL)
TITLES: Mapping[str, str] = {
    "pass": "Safety check passed",
    "patched": "Safety patch",
    "review": "Safety review needed",
    "inconclusive": "Safety check inconclusive",
    "refused": "Adapter refused",
}
NAMES = {
    "modules": "modules",
    "projected": "projected",
    "skipped": "skipped, not screened",
    "unscreened": "parts that bypass LoRA, not screened",
    "unread": "other files of the commit, not looked at",
    "dropped": "parts that bypass LoRA, dropped",
    "median_retained_energy": "median retained energy of what was projected",
}


def title_of(verdict: Verdict) -> str:
    return f"{TITLES[verdict.verdict or '']}: {verdict.push.sha[:12]}"[:MAX_TITLE_CHARS]


def marker_of(verdict: Verdict, kind: ActionKind) -> str:
    """What this action's text holds and no other's."""
    return f"{verdict.marker} {kind}"


def post_of(verdict: Verdict, kind: ActionKind) -> str:
    """The text of a discussion, a comment, or a pull request."""
    known = {name: verdict.numbers[name] for name in NAMES if name in verdict.numbers}
    numbers = {NAMES[name]: value for name, value in known.items()}
    text = _template("verdict_post.md").render(
        verdict=verdict, kind=kind, numbers=numbers, models=_models(verdict), claim=CLAIM
    )
    end = f"\n\n`{marker_of(verdict, kind)}`\n"
    return text.rstrip("\n")[: MAX_POST_CHARS - len(end)] + end


def card_with(verdict: Verdict, report: Mapping[str, Any], card: str | None) -> str:
    """A model card with our section, between markers, in the place of an earlier one. Ours comes
    first after the metadata, because what a stranger wrote could swallow what follows it."""
    own = card or ""
    front = FRONT_MATTER.match(own)
    metadata = front[0] if front else ""
    rest = _without_strays(_without_sections(own[len(metadata) :]))
    return f"{metadata}{BEGIN}\n{_section(verdict, report)}{END}\n{rest}"


def _without_sections(card: str) -> str:
    """In time linear in its length, because a stranger wrote it: `BEGIN.*?END` looks for the end
    of every beginning anew."""
    kept, at = [], 0
    while (begin := card.find(BEGIN, at)) >= 0:
        end = card.find(END, begin)
        if end < 0:
            break
        kept.append(card[at:begin])
        at = end + len(END)
        at += card.startswith("\r", at)
        at += card.startswith("\n", at)
    return "".join([*kept, card[at:]])


def _without_strays(card: str) -> str:
    """No marker is left, nor made by taking another out of its midst; each character is looked at
    once, because a marker can only end with the one that came last."""
    kept = bytearray()
    *ended, last = card.encode("utf-8", "replace").split(b">")
    for piece in ended:
        kept += piece + b">"
        for marker in MARKERS:
            if kept.endswith(marker):
                del kept[-len(marker) :]
    return (kept + last).decode()


def _section(verdict: Verdict, report: Mapping[str, Any]) -> str:
    projected = [layer for layer in report["layers"] if layer["decision"] == "projected"]
    return _template("verdict_section.md").render(
        verdict=verdict,
        report=report,
        shown=projected[:MAX_ROWS],
        more=max(len(projected) - MAX_ROWS, 0),
        models=_models(verdict),
        marker=verdict.marker,
    )


def _models(verdict: Verdict) -> dict[str, tuple[str, str]]:
    """Name and commit of each model, by what it is."""
    plan = verdict.plan
    if plan is None:
        return {}
    named = {"base model": plan.base_model, "chat model": plan.chat_model}
    return {
        what: (model, verdict.revisions.get(model, "")) for what, model in named.items() if model
    }


def quiet(text: str) -> str:
    """Markdown that shows the text as it stands, calls nobody and links nowhere."""
    return re.sub(r"(@|://|www\.)", "\\1\u200b", plain_markdown(text))


FILTERS: Mapping[str, Callable[..., object]] = {"quiet": quiet, "number": number}


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("app.jobs"),
        autoescape=False,  # noqa: S701 - because it is Markdown, and `quiet` escapes that
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template(name)
