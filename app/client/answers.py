"""What the service answers, typed. The objects are plain dicts, with every member that was sent."""

from typing import Any, Generic, Literal, TypedDict, TypeVar

T = TypeVar("T")

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class File(TypedDict):
    sha256: str
    size_bytes: int


class Module(TypedDict):
    module: str
    rank: int
    alpha: float
    d_out: int
    d_in: int
    dtype: str
    layer_type: str
    dora: bool


class Adapter(TypedDict):
    id: str
    created_at: str
    size_bytes: int
    files: dict[str, File]
    base_model_name_or_path: str | None
    dropped_config_keys: list[str]
    modules: list[Module]


class Hub(TypedDict):
    repo_id: str
    revision: str  # the commit


class ImportedAdapter(Adapter):
    hub: Hub | None


class AdapterSummary(TypedDict):
    id: str
    created_at: str
    size_bytes: int
    base_model_name_or_path: str | None
    modules: int


class TokenCount(TypedDict):
    prompt: int
    response: int


class Dataset(TypedDict):
    id: str
    created_at: str
    size_bytes: int
    rows: int
    unanswered: int
    prompt_characters: int
    response_characters: int
    tokens: dict[str, TokenCount]
    links: dict[str, str]


class Progress(TypedDict):
    done: int
    total: int


class Job(TypedDict):
    id: str
    kind: str
    status: JobStatus
    adapter: str | None
    base_model: str | None
    chat_model: str
    revisions: dict[str, str]
    method: dict[str, Any] | None
    recipe: dict[str, Any] | None
    modules: list[str] | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    attempts: int
    cancel_requested: bool
    progress: Progress
    checkpoint: dict[str, int] | None
    problem: dict[str, Any] | None
    links: dict[str, str]


class PairModel(TypedDict):
    id: str
    digest: str


class Alignment(TypedDict):
    cache: str
    base_model: PairModel
    chat_model: PairModel
    modules: int
    size_bytes: int
    hits: int
    misses: int
    last_used: str


class Page(TypedDict, Generic[T]):
    items: list[T]
    next_cursor: str | None
