"""A guard model's verdicts on what subjects have answered."""

from collections.abc import Sequence
from typing import Any

from app.domain.dataset import Message
from app.domain.errors import CheckpointRefused
from app.domain.evaluation import SetRole
from workers.compute import Compute
from workers.language_models import load_model, load_tokenizer
from workers.measure.generation import Generator
from workers.measure.prompts import Prompt, PromptSet, check_room
from workers.measure.session import Session, Sets, context_of
from workers.run import NamedCheckpoint

VERDICT_TOKENS = 16  # "safe", or "unsafe" and a category


def judge_by_model(
    session: Session, sets: Sets, subjects: Sequence[str], guard: NamedCheckpoint, compute: Compute
) -> None:
    """Ask the guard of every answer to a harmful prompt, by its own chat template.

    The measured model leaves the device first, because two large ones seldom fit. Raises
    CheckpointRefused for a guard without a template, PromptsTooLong for what it cannot read whole.
    """
    session.switch.wear(None)
    session.model.to("cpu")  # type: ignore[arg-type, unused-ignore] # transformers' own
    tokenizer = load_tokenizer(guard)
    if not tokenizer.chat_template:
        reason = "it has no chat template to put a conversation to it"
        raise CheckpointRefused(
            field="guard_model", model=guard.id, file="tokenizer_config.json", reason=reason
        )
    model = load_model(guard, "auto", compute.device)
    asked = Generator(model, tokenizer, VERDICT_TOKENS, context_of(model))
    for subject in subjects:
        for prompts in (sets[role] for role in sets if role == "harmful"):
            _judge(session, asked, subject, prompts)


def _judge(session: Session, guard: Generator, subject: str, prompts: PromptSet) -> None:
    lacking = session.kept.lacking(subject, prompts, "guard")
    role: SetRole = prompts.role
    asked = [_conversation(session, guard, subject, role, prompt) for prompt in lacking]
    check_room(role, asked, guard.context)
    for batch in guard.answers(asked):
        session.kept.note(subject, role, [(one.line, {"guard": one.text}) for one in batch])


def _conversation(
    session: Session, guard: Generator, subject: str, role: SetRole, prompt: Prompt
) -> Prompt:
    """Question and answer, as the guard reads them."""
    answer = session.kept.told[subject, role, prompt.line].answer or ""
    messages = [Message("user", prompt.text), Message("assistant", answer)]
    found: Any = guard.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        tokenize=True,
        return_dict=True,
    )
    return Prompt(prompt.line, list(found["input_ids"]), prompt.text, None, None)
