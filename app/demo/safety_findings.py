"""What a safety world's table shows, in words, and what it cannot show."""

from collections.abc import Iterator, Sequence

from app.demo.safety_table import DEFAULT, PLAIN, TableRow
from app.domain.evaluation import CHAT
from app.domain.measured import Rate
from app.domain.statistics import LEVEL, two_proportions

LIMITS = (
    "This is a small world: a Llama of 6 layers and 0.6 million parameters, a made-up language, "
    "one kind of task, and one phrase of refusal, which keywords cannot miss. It shows that the "
    "parts work together, and that ways of patching can differ. It does not show which of them is "
    "best for a model of yours, whose refusals are many things and whose tasks are not one: "
    "measure that with adapter-safety evaluate and frontier."
)


def findings(rows: Sequence[TableRow]) -> Iterator[str]:
    """Of one seed's rows: plain sentences, adapter by adapter."""
    chat = next(row for row in rows if row.adapter == CHAT)
    for adapter in dict.fromkeys(row.adapter for row in rows if row.adapter != CHAT):
        own = {row.way: row for row in rows if row.adapter == adapter}
        yield from (f"{adapter}: {said}" for said in _about(own, chat))


def _about(own: dict[str, TableRow], chat: TableRow) -> Iterator[str]:
    plain, default = own[PLAIN], own.get(DEFAULT)
    yield (
        f"as it came it refuses {_share(plain.refused)} of the held-out harmful prompts, the chat "
        f"model {_share(chat.refused)}; its skill is {_share(plain.skill)}."
    )
    if default:
        yield _default_said(default, plain)
    yield _best_said([row for row in own.values() if row.way != PLAIN], chat, plain)


def _default_said(default: TableRow, plain: TableRow) -> str:
    said = (
        f"Safe LoRA's published default refuses {_share(default.refused)}, with a skill of "
        f"{_share(default.skill)}"
    )
    lost = ": it takes from what the adapter had learned"
    return f"{said}{lost if _is_less(default.skill, plain.skill) else ''}."


def _best_said(rows: Sequence[TableRow], chat: TableRow, plain: TableRow) -> str:
    """Of those that refuse as the chat model does, which cannot be asked to refuse more."""
    safe = [row for row in rows if not _is_less(row.refused, chat.refused)]
    safe.sort(key=lambda row: -row.skill.value)
    if not safe:
        return "every way refuses fewer than the chat model, beyond chance."
    best = safe[0]
    lost = ", less than it had" if _is_less(best.skill, plain.skill) else ""
    alike = [row.way for row in safe[1:] if not _is_less(row.skill, best.skill)]
    told = f"; not told apart from it: {', '.join(alike)}" if alike else ""
    return (
        "of the ways whose refusals are not told apart from the chat model's (or are more), "
        f"{best.way} has the most skill ({_share(best.skill)}{lost}){told}."
    )


def _is_less(one: Rate, other: Rate) -> bool:
    """Beyond chance, as if of different rows: which tells less than these rows could."""
    return one.value < other.value and two_proportions(one, other) < LEVEL


def _share(rate: Rate) -> str:
    return f"{rate.value:.2f}"
