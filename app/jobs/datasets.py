"""Accept a data set: validate each row, count, store the file by content, keep a record."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from app.domain.access import NO_QUOTAS, Quotas
from app.domain.adapter import FileEntry
from app.domain.dataset import Responses, Row, StoredDataset, TokenCount
from app.intake.dataset_rows import read_rows
from app.intake.tokenizer import TokenCounter
from app.jobs.ports import Artifacts, Models, Records

BATCH_CHARACTERS = 1 << 18  # of texts that are tokenized at once, at about 100 bytes each


@dataclass
class _Texts:
    """Texts of one side, prompts or responses, counted in batches of bounded size."""

    counter: TokenCounter | None
    characters: int = 0
    tokens: int = 0
    _waiting: list[str] = field(default_factory=list)
    _waiting_characters: int = 0

    def add(self, text: str) -> None:
        self.characters += len(text)
        if self.counter is None:
            return
        self._waiting.append(text)
        self._waiting_characters += len(text)
        if self._waiting_characters >= BATCH_CHARACTERS:
            self.close()

    def close(self) -> None:
        if self.counter is not None and self._waiting:
            self.tokens += self.counter.count(self._waiting)
            self._waiting, self._waiting_characters = [], 0


@dataclass(frozen=True)
class Measured:
    """What one pass over the rows has found."""

    rows: int
    prompt_characters: int
    response_characters: int
    tokens: TokenCount | None
    unanswered: int  # rows without a response


def accept_dataset(
    path: Path,
    file: FileEntry,
    chat_model: str | None,
    *,
    responses: Responses = "required",
    records: Records,
    artifacts: Artifacts,
    models: Models,
    quotas: Quotas = NO_QUOTAS,
) -> tuple[StoredDataset, bool]:
    """Keep the data set in `path`; False when it was there already. With `chat_model` its tokens
    are counted by that model's tokenizer; with `responses="optional"` prompts alone are taken too.

    The file goes first: a record never names a file that is not there. Raises what `read_rows` and
    `Models.checkpoint` raise, TokenizerRefused, QuotaExceeded.
    """
    counter = None if chat_model is None else _counter(chat_model, models)
    with path.open("rb") as lines:
        measured = measure(read_rows(lines, responses=responses), counter)
    artifacts.put(path, file)
    dataset = _stored(file, measured, chat_model)
    created = records.add_dataset(dataset, most_bytes=quotas.stored_bytes)
    if not artifacts.has(file):  # taken away as nobody's, a moment before the record named it
        artifacts.put(path, file)
    return records.dataset(dataset.id), created


def measure(rows: Iterable[Row], counter: TokenCounter | None = None) -> Measured:
    """One pass: what the assistant says is the response, all else the prompt."""
    prompt, response, count, unanswered = _Texts(counter), _Texts(counter), 0, 0
    for row in rows:
        count += 1
        unanswered += not row.is_answered
        for message in row.messages:
            (response if message.role == "assistant" else prompt).add(message.content)
    for texts in (prompt, response):
        texts.close()
    tokens = None if counter is None else TokenCount(prompt.tokens, response.tokens)
    return Measured(count, prompt.characters, response.characters, tokens, unanswered)


def _counter(chat_model: str, models: Models) -> TokenCounter:
    checkpoint = models.checkpoint(chat_model, field="chat_model")
    return TokenCounter(checkpoint.folder, field="chat_model", model=chat_model)


def _stored(file: FileEntry, measured: Measured, chat_model: str | None) -> StoredDataset:
    return StoredDataset(
        id=file.sha256,
        created_at=datetime.now(UTC),
        file=file,
        rows=measured.rows,
        prompt_characters=measured.prompt_characters,
        response_characters=measured.response_characters,
        tokens={chat_model: measured.tokens} if chat_model and measured.tokens else {},
        unanswered=measured.unanswered,
    )
