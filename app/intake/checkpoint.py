"""A local Hugging Face checkpoint by names and byte ranges; the operator put it there."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple, NoReturn

from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.errors import CheckpointRefused, Refused
from app.intake.limits import CHECKPOINT_LIMITS
from app.intake.names import PICKLE_SUFFIXES, shown
from app.intake.safetensors_header import read_header

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
KEPT = 8  # because a worker alternates between few pairs, and 70B headers take some MB each


class _Fault(Exception):
    """A file of a checkpoint that cannot be used, before it is known who asked for which model."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(reason)
        self.file, self.reason = file, reason


SAMPLES = 1024  # tensors of a shard; reading them all would cost seconds for large mixtures
SAMPLE_BYTES = 1024


class _FileState(NamedTuple):
    """What tells that a file has changed."""

    name: str
    mtime_ns: int
    size_bytes: int


def read_checkpoint(
    folder: Path, *, field: str, model: str, is_partial: bool = False
) -> Checkpoint:
    """The checkpoint in `folder`: `model.safetensors`, or shards with their index.

    Of a partial one only the headers need to be there, and its digest is over no weights.
    Kept in memory until a file's time or size changes.
    Raises CheckpointRefused naming the file, never its path.
    """
    with _naming(field, model):
        return _read(folder.resolve(), _state(folder), is_partial)


def weights_files(folder: Path, names: Set[str], *, field: str, model: str) -> list[str]:
    """The safetensors files of a checkpoint that has files of these names, of which `folder` holds
    the index where there is one. Raises CheckpointRefused."""
    with _naming(field, model):
        return sorted(_weight_map(folder, names))


@contextmanager
def _naming(field: str, model: str) -> Iterator[None]:
    try:
        yield
    except _Fault as fault:
        file, reason = shown(fault.file), fault.reason
    except OSError as error:
        file, reason = Path(str(error.filename)).name, "it cannot be read"
    else:
        return
    raise CheckpointRefused(field=field, model=model, file=file, reason=reason)


def _state(folder: Path) -> tuple[_FileState, ...]:
    found = [path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")]
    return tuple(
        _FileState(path.name, path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(found)
        if path.is_file()  # follows links, as hub caches have them; a dead link is no file
    )


def _pickles(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES}


@lru_cache(maxsize=KEPT)
def _read(folder: Path, state: tuple[_FileState, ...], is_partial: bool) -> Checkpoint:
    names = {file.name for file in state} | _pickles(folder)
    digest = hashlib.sha256()
    config = _config(folder, names, digest.update)
    mapped = _weight_map(folder, names)
    tensors: dict[str, ShardTensor] = {}
    for shard in sorted(mapped):
        entries = _shard(folder / shard, digest.update, 0 if is_partial else SAMPLES)
        wanted = entries.keys() if mapped[shard] is None else mapped[shard]
        for name in wanted or ():
            if name not in entries:
                raise _Fault(shard, f"{INDEX} says that it holds {shown(name)}, but it does not")
            tensors[name] = entries[name]
    return Checkpoint(
        folder=folder,
        model_type=_text(config, "model_type"),
        tensors=tensors,
        digest=digest.hexdigest(),
        quantised=_quantised(config),
        tied=_tied(config),
    )


def _config(folder: Path, names: set[str], note: Callable[[bytes], None]) -> Mapping[str, object]:
    if CONFIG not in names:
        raise _Fault(CONFIG, "it is missing")
    raw = (folder / CONFIG).read_bytes()
    note(raw)
    return _object(raw, CONFIG)


def _text(said: Mapping[str, object], field: str) -> str | None:
    value = said.get(field)
    return value if isinstance(value, str) else None


def _quantised(config: Mapping[str, object]) -> str | None:
    said = config.get("quantization_config")
    return (_text(said, "quant_method") or "quantised") if isinstance(said, dict) else None


def _tied(config: Mapping[str, object]) -> bool | None:
    """Whether the output head shares the embedding's weight, None where nothing says so.

    A model of text and images may say it in its `text_config` alone; where the two differ the
    weights are shared, because it is only asked about a head without a tensor of its own.
    """
    text = config.get("text_config")
    places = [config, text] if isinstance(text, dict) else [config]
    said = [place["tie_word_embeddings"] for place in places if "tie_word_embeddings" in place]
    return any(value is True for value in said) if said else None


def _weight_map(folder: Path, names: Set[str]) -> dict[str, list[str] | None]:
    """By shard: the tensors it should hold; None stands for all that it has.

    A single file wins over an index, as in transformers.
    """
    if SINGLE in names:
        return {SINGLE: None}
    if INDEX not in names:
        _refuse_without_weights(names)
    listed = _object((folder / INDEX).read_bytes(), INDEX).get("weight_map")
    if not isinstance(listed, dict):
        raise _Fault(INDEX, "it has no weight_map")
    shards: dict[str, list[str] | None] = {}
    for tensor, shard in listed.items():
        _check_shard_name(tensor, shard, names)
        tensors = shards.setdefault(shard, [])
        if tensors is not None:
            tensors.append(tensor)
    return shards


def _check_shard_name(tensor: str, shard: object, names: Set[str]) -> None:
    if not isinstance(shard, str) or Path(shard).name != shard:
        raise _Fault(INDEX, f"{shown(tensor)} is not mapped to a file's name")
    if not shard.endswith(".safetensors"):
        raise _Fault(shard, "it is not a safetensors file; convert the checkpoint")
    if shard not in names:
        raise _Fault(shard, f"it is missing, though {INDEX} names it")


def _refuse_without_weights(names: Set[str]) -> NoReturn:
    for name in sorted(name for name in names if Path(name).suffix in PICKLE_SUFFIXES):
        reason = "pickle runs code when read; convert the checkpoint to safetensors"
        raise _Fault(name, reason)
    raise _Fault(SINGLE, f"it is missing, and so is {INDEX}")


def _shard(path: Path, note: Callable[[bytes], None], samples: int) -> Mapping[str, ShardTensor]:
    """A shard's tensors by name; its name, size, header and samples go into the digest."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes, tensors = _shard_tensors(path, file, size_bytes)
        file.seek(0)
        note(f"\0{path.name}\0{size_bytes}\0".encode())
        note(file.read(header_bytes))
        if samples:
            _note_samples(file, list(tensors.values()), samples, note)
    return tensors


def _note_samples(
    file: BufferedReader, tensors: list[ShardTensor], samples: int, note: Callable[[bytes], None]
) -> None:
    """The first bytes of evenly chosen tensors: models of one layout differ in nothing else."""
    for tensor in tensors[:: -(-len(tensors) // samples) or 1]:
        file.seek(tensor.entry.begin)
        note(file.read(min(SAMPLE_BYTES, tensor.entry.size_bytes)))


def _shard_tensors(
    path: Path, file: BufferedReader, size_bytes: int
) -> tuple[int, dict[str, ShardTensor]]:
    try:
        header = read_header(file, size_bytes, file_name=path.name, limits=CHECKPOINT_LIMITS)
    except Refused as refusal:
        raise _Fault(path.name, str(refusal.facts.get("reason", refusal))) from None
    return header.header_bytes, {e.name: ShardTensor(path, e) for e in header.tensors}


def _object(raw: bytes, name: str) -> dict[str, object]:
    """A JSON object of the operator's; not strict, because real ones hold Infinity."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise _Fault(name, "it is not JSON") from None
    if not isinstance(value, dict):
        raise _Fault(name, "it is not a JSON object")
    return value
