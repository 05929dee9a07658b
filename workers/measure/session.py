"""One chat model in memory, with what is needed to measure it and adapters on it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.domain.dataset import Row
from app.domain.evaluation import CHAT, Judging, SetRole
from app.domain.measured import SetUse, Split
from app.jobs.tabulate import Answers
from workers.compute import Compute
from workers.encoding import Encoder
from workers.language_models import load_model, load_tokenizer
from workers.measure.evaluation import Evaluation
from workers.measure.generation import Generator
from workers.measure.kept import Kept
from workers.measure.likelihood import Reader
from workers.measure.prompts import PromptSet, encode_prompts
from workers.measure.switch import LoadedAdapter, Switch
from workers.run import NamedCheckpoint

Rows = Mapping[SetRole, Iterable[Row]]
Sets = Mapping[SetRole, PromptSet]
UNBOUNDED = 1 << 20  # tokens, where a model's configuration names no context


@dataclass(frozen=True)
class Session:
    """The same prompts, judged the same way, for one subject after another."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    judging: Judging
    kept: Kept
    switch: Switch

    @classmethod
    def open(
        cls, chat: NamedCheckpoint, judging: Judging, compute: Compute, kept: Kept
    ) -> "Session":
        """Raises CheckpointRefused, TokenizerRefused."""
        tokenizer = load_tokenizer(chat)
        model = load_model(chat, judging.dtype, compute.device)
        return cls(model, tokenizer, judging, kept, Switch(model))

    def beside(self, kept: Kept) -> "Session":
        """The same model, for other rows."""
        return replace(self, kept=kept)

    @cached_property
    def evaluation(self) -> Evaluation:
        new_tokens = self.judging.max_new_tokens
        generator = Generator(self.model, self.tokenizer, new_tokens, self.context)
        return Evaluation(generator, Reader(self.switch, self.context), self.judging, self.kept)

    @cached_property
    def context(self) -> int:
        return context_of(self.model)

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.judging.encoding)

    def encoded(self, rows: Rows) -> Sets:
        """Raises EmptyDataset, DatasetRefused, PromptsTooLong."""
        most = min(self.judging.encoding.max_length, self.context)
        return {
            role: encode_prompts(role, given, self.encoder, most) for role, given in rows.items()
        }

    def chat(self, sets: Sets) -> None:
        """Must come before any subject."""
        self.switch.wear(None)
        self.evaluation.chat(list(sets.values()))

    def measure(self, subject: str, adapter: LoadedAdapter, sets: Sets) -> None:
        """Raises UnsupportedAdapter, OutOfMemory."""
        self.switch.wear(adapter)
        self.evaluation.measure(subject, list(sets.values()))

    def answers(self, subject: str, sets: Sets) -> list[Answers]:
        """What is kept, one for each role."""
        return [self.answers_of(subject, prompts) for prompts in sets.values()]

    def answers_of(self, subject: str, prompts: PromptSet) -> Answers:
        expected = {prompt.line: prompt.expected for prompt in prompts.prompts}
        told = self.kept.of(subject, prompts)
        return Answers(subject, prompts.role, told, expected, self.judging)

    def uses(self, sets: Sets, datasets: Mapping[SetRole, str], split: Split) -> Sequence[SetUse]:
        """Which rows were used, for the report."""
        return [
            SetUse(
                role=role,
                split=split,
                dataset=datasets[role],
                rows=len(prompts.prompts),
                prompts_sha256=prompts.sha256,
                chat_template=self.encoder.uses_template,
            )
            for role, prompts in sets.items()
        ]


def context_of(model: PreTrainedModel) -> int:
    """Tokens that the model can see at once."""
    config = model.config.get_text_config()
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(found or UNBOUNDED)


def transcripts(session: Session, sets: Sets) -> list[dict[str, object]]:
    """Prompts and answers, one object each, of whatever subjects are kept of these rows."""
    prompts = {(role, p.line): p for role, given in sets.items() for p in given.prompts}
    return [
        {
            "prompt": prompts[told.role, told.line].text,
            "split": session.kept.split,
            **_without_ids(told.as_json()),
        }
        for told in session.kept.told.values()
        if (told.role, told.line) in prompts
    ]


def _without_ids(told: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in told.items() if name != "ids"}


def in_roles(answers: Sequence[Answers]) -> list[Answers]:
    """By role, the chat model first."""
    order = {role: i for i, role in enumerate(("harmful", "benign", "task"))}
    return sorted(answers, key=lambda each: (order[each.role], each.subject != CHAT))
