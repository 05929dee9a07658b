import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from app.alignment.blocks import Scratch
from app.alignment.device import DeviceCache
from app.alignment.panels import PanelLayout
from app.domain.adapter import LoraModule, TensorEntry
from app.domain.errors import NonFiniteTensor
from app.domain.method import Method, Projection
from app.intake.checkpoint import read_checkpoint
from app.storage.alignment_cache import AlignmentCache, Pair
from app.storage.alignment_entry import Entry, open_entry
from tests.alignment import units
from workers.alignments import Alignments
from workers.checkpoints import open_pair
from workers.kept import Kept, kept_in
from workers.shelf import Shelf
from workers.warming import warm

METHODS = [
    Method("approximate"),
    Method("exact"),
    Method("subspace"),
    Method("subspace", rank=3),
    Method("complement"),
    Method("complement", energy=1.0),
]
SHAPES = {"square": (64, 64), "tall": (96, 40), "wide": (40, 200)}
APPROXIMATE = Method().projection
LONG_AGO = time.time() - 3600


def write_model(folder: Path, seed: int, dtype: torch.dtype = torch.bfloat16) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in SHAPES.items():
        weight = torch.randn(shape, generator=generator)
        change = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        weights[f"{name}.weight"] = (weight + 0.05 * seed * change).to(dtype)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    write_weights(folder, weights)


def write_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, folder / "model.safetensors")
    os.utime(folder / "model.safetensors", (LONG_AGO, LONG_AGO))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_model(tmp_path / "base", 0)
    write_model(tmp_path / "chat", 1)
    return tmp_path


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may be remembered at once: how long a change takes to show is a test of its own."""
    monkeypatch.setattr("app.storage.alignment_cache.RECENT_S", 0.0)


@pytest.fixture(params=["torch", "numpy"])
def either_multiplies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    units.use(request.param, monkeypatch)


def module(name: str) -> LoraModule:
    d_out, d_in = SHAPES[name]
    a, b = (TensorEntry("", "F32", shape, 0, 0) for shape in ((4, d_in), (d_out, 4)))
    return LoraModule(name, 4, 8.0, 2.0, a, b)


def columns(name: str, n: int = 4) -> Tensor:
    return torch.randn(SHAPES[name][0], n, generator=torch.Generator().manual_seed(7))


def cache(folder: Path, limit_bytes: int = 1 << 30) -> AlignmentCache:
    return AlignmentCache(folder / "cache", limit_bytes)


@contextmanager
def opened(folder: Path, kept: AlignmentCache | None) -> Iterator[Alignments]:
    """As a job opens a pair."""
    base, chat = (
        read_checkpoint(folder / role, field=role, model=role) for role in ("base", "chat")
    )
    pair = Pair(base.digest, chat.digest, "base", "chat")
    with open_pair(chat, base) as models:
        shelf = Shelf(kept.pair(pair)) if kept else None
        with closing(Alignments(models, Scratch(), shelf)) as alignments:
            yield alignments


def applied(
    folder: Path, kept: AlignmentCache | None, name: str, projection: Projection = APPROXIMATE
) -> tuple[Tensor, float, str, str]:
    with opened(folder, kept) as alignments:
        found = alignments.apply(module(name), columns(name), projection)
    return found.product, found.alignment_norm, found.note, found.source


@pytest.mark.usefixtures("either_multiplies")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.projector} {m.energy} {m.rank}")
def test_what_comes_from_the_cache_is_what_was_computed_bit_for_bit(
    models: Path, method: Method, name: str
) -> None:
    plain = applied(models, None, name, method.projection)
    first = applied(models, cache(models), name, method.projection)
    second = applied(models, cache(models), name, method.projection)
    assert [found[3] for found in (plain, first, second)] == ["computed", "computed", "cache"]
    for product, norm, note, _ in (first, second):
        assert torch.equal(product, plain[0])
        assert (norm, note) == (plain[1], plain[2])


def test_projectors_that_need_the_same_directions_share_them(models: Path) -> None:
    kept = cache(models)
    applied(models, kept, "tall", Method("subspace").projection)
    assert applied(models, kept, "tall", Method("complement").projection)[3] == "cache"
    assert applied(models, kept, "tall", Method("complement", rank=2).projection)[3] == "computed"


def test_the_hits_and_misses_are_counted(models: Path) -> None:
    with opened(models, cache(models)) as alignments:
        for name in ("tall", "wide", "tall", "tall"):
            alignments.apply(module(name), columns(name), APPROXIMATE)
        assert alignments.shelf is not None
        assert (alignments.shelf.hits, alignments.shelf.misses) == (2, 2)


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "cache").glob("v1/*/*.safetensors"))


@pytest.mark.usefixtures("either_multiplies")
@pytest.mark.parametrize("method", [Method(), Method("subspace", rank=3)], ids=str)
@pytest.mark.parametrize("at", ["header", "data", "half", "gone"])
def test_a_damaged_entry_is_computed_again_and_never_used(
    models: Path, at: str, method: Method
) -> None:
    right = applied(models, cache(models), "tall", method.projection)
    (entry,) = entries(models)
    raw = bytearray(entry.read_bytes())
    if at == "header":
        raw[raw.index(b"norm") + 9] ^= 1
    elif at == "data":
        raw[-3] ^= 128
    elif at == "half":
        raw = raw[: len(raw) // 2]
    entry.write_bytes(raw)
    if at == "gone":
        entry.unlink()
    again = applied(models, cache(models), "tall", method.projection)
    assert again[3] == "computed"
    assert torch.equal(again[0], right[0])
    assert applied(models, cache(models), "tall", method.projection)[3] == "cache"


@pytest.mark.usefixtures("either_multiplies")
def test_an_entry_cut_short_while_it_is_read_is_computed_again(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = applied(models, cache(models), "tall")
    (entry,) = entries(models)

    def cut_short(found: Entry, projection: Projection) -> Kept:
        os.truncate(entry, entry.stat().st_size - 100)  # with its descriptor already open
        return kept_in(found, projection)

    monkeypatch.setattr("workers.alignments.kept_in", cut_short)
    again = applied(models, cache(models), "tall")
    assert again[3] == "computed"
    assert torch.equal(again[0], right[0])


@pytest.mark.usefixtures("either_multiplies")
def test_an_entry_that_cannot_be_read_is_computed_again(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = applied(models, cache(models), "tall")

    def stale(*_: object) -> Tensor:
        raise OSError(errno.ESTALE, "Stale file handle")

    for reading in ("read_exactly", "map_tensor"):
        monkeypatch.setattr(f"workers.kept.{reading}", stale)
    again = applied(models, cache(models), "tall")
    assert again[3] == "computed"
    assert torch.equal(again[0], right[0])


@pytest.mark.usefixtures("either_multiplies")
@pytest.mark.parametrize(("form", "name"), [("panels", "tall"), ("gram", "wide")])
def test_what_is_kept_is_never_applied_to_columns_of_another_length(
    models: Path, form: str, name: str
) -> None:
    with opened(models, cache(models)) as alignments:
        assert warm(alignments, module(name), APPROXIMATE).form == form
    (entry,) = entries(models)
    found = open_entry(entry, cache(models).seed)
    assert found is not None
    with closing(found):
        kept = kept_in(found, APPROXIMATE)
        with pytest.raises((ValueError, RuntimeError), match=r"shape|size|dimension"):
            kept.apply(torch.randn(SHAPES[name][0] + 700, 3), Scratch())


@pytest.mark.parametrize("shape", [(3, 96, 40), (1, 96, 39), (1, 40, 96)], ids=str)
def test_panels_that_are_not_of_their_layout_are_refused(shape: tuple[int, int, int]) -> None:
    layout = PanelLayout(96, 40, 40, by_columns=False)
    layout.check((1, 96, 40))
    with pytest.raises(ValueError, match="panels of shape"):
        layout.check(shape)


def test_the_threads_that_multiplied_end_with_the_alignments(models: Path) -> None:
    with opened(models, None) as alignments:
        thread = alignments.scratch.pool(1).submit(threading.current_thread).result()
        assert thread.is_alive()
    assert not thread.is_alive()


def test_weights_that_changed_in_place_are_computed_anew(models: Path) -> None:
    applied(models, cache(models), "tall")
    weights = load_file(models / "chat" / "model.safetensors")
    changed = {name: weight.clone() for name, weight in weights.items()}
    changed["tall.weight"][5, 3] += 1.0
    save_file(changed, models / "chat" / "model.safetensors")
    found = applied(models, cache(models), "tall")
    assert found[3] == "computed"
    assert torch.equal(found[0], applied(models, None, "tall")[0])


def test_a_copy_of_the_models_finds_the_same_entries(models: Path, tmp_path: Path) -> None:
    applied(models, cache(models), "tall")
    for role in ("base", "chat"):
        shutil.move(models / role, models / f"{role} before")
        shutil.copytree(models / f"{role} before", models / role)  # other inodes
    assert applied(models, cache(models), "tall")[3] == "cache"
    assert len(entries(models)) == 1


def test_a_file_that_has_just_changed_is_not_known_by_its_place(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one tick of its clock a file could change again, and nothing would show it."""
    monkeypatch.setattr("app.storage.alignment_cache.RECENT_S", 3600.0)
    applied(models, cache(models), "tall")
    assert not list((models / "cache").glob("v1/*/*.name"))
    assert applied(models, cache(models), "tall")[3] == "cache"  # found by its bytes


@pytest.mark.usefixtures("either_multiplies")
def test_infinity_in_a_model_is_named_and_keeps_nothing(models: Path) -> None:
    weights = {
        name: weight.clone()
        for name, weight in load_file(models / "chat/model.safetensors").items()
    }
    weights["tall.weight"][0, 0] = torch.inf
    write_weights(models / "chat", weights)
    for method in (Method(), Method("subspace")):
        with pytest.raises(NonFiniteTensor, match=r"tall\.weight of the chat model"):
            applied(models, cache(models), "tall", method.projection)
    assert entries(models) == []


def test_equal_weights_keep_nothing(models: Path) -> None:
    shutil.rmtree(models / "chat")
    shutil.copytree(models / "base", models / "chat")
    product, norm, _, _ = applied(models, cache(models), "tall")
    assert norm == 0
    assert not product.any()
    assert entries(models) == []


def test_a_cache_that_cannot_be_written_fails_nothing(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = cache(models)
    right = applied(models, None, "tall")
    with caplog.at_level(logging.WARNING), opened(models, kept) as alignments:
        assert alignments.shelf is not None
        alignments.shelf.pair.folder.write_text("a file where the folder should be")
        found = alignments.apply(module("tall"), columns("tall"), APPROXIMATE)
    assert torch.equal(found.product, right[0])
    assert "the alignment cache cannot be" in caplog.text


def test_a_full_cache_evicts_and_goes_on(models: Path) -> None:
    applied(models, cache(models), "tall")
    (entry,) = entries(models)
    size = entry.stat().st_size
    small = cache(models, limit_bytes=int(size * 2.5))
    for name in ("square", "wide", "tall", "square"):
        plain = applied(models, None, name)
        assert torch.equal(applied(models, small, name)[0], plain[0])
    assert sum(path.stat().st_size for path in entries(models)) <= size * 2.5


# ------------------------------------------------------------------------------- several processes
WORKER = """
import sys
from dataclasses import replace
from pathlib import Path
import app.storage.alignment_cache as alignment_cache
from app.alignment.blocks import Scratch
from app.alignment.device import DeviceCache
from app.storage.turns import RedisTurns
from tests.workers import test_alignments as t

folder, redis_url, prefix, limit, rounds = Path(sys.argv[1]), *sys.argv[2:]
alignment_cache.RECENT_S = 0.0
print("ready", flush=True)
sys.stdin.readline()
sources, product = [], None
for _ in range(int(rounds)):
    with t.opened(folder, t.cache(folder, int(limit))) as alignments:
        alignments.shelf.turns = RedisTurns(redis_url, prefix).turn
        for name in t.SHAPES:
            found = alignments.apply(t.module(name), t.columns(name), t.APPROXIMATE)
            sources.append(found.source)
            assert t.torch.equal(found.product, t.applied(folder, None, name)[0]), name
print(sources.count("computed"), sources.count("cache"))
"""


def together(
    count: int, folder: Path, redis_url: str, limit_bytes: int, rounds: int
) -> list[tuple[int, int]]:
    """Workers in processes of their own, begun at once; what each computed and took."""
    prefix = f"test-{uuid.uuid4().hex}:"
    command = [sys.executable, "-c", WORKER, folder, redis_url, prefix, limit_bytes, rounds]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(count)
        ]
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * count
        answers = [worker.communicate("go\n", timeout=120)[0].split() for worker in workers]
    return [(int(computed), int(taken)) for computed, taken in answers]


def test_workers_that_begin_together_compute_each_module_once(models: Path, redis_url: str) -> None:
    found = together(4, models, redis_url, limit_bytes=1 << 30, rounds=1)
    assert sum(computed for computed, _ in found) == len(SHAPES)
    assert sum(taken for _, taken in found) == 3 * len(SHAPES)


def test_workers_on_one_folder_that_evict_each_others_entries_still_agree(
    models: Path, redis_url: str
) -> None:
    applied(models, cache(models), "tall")
    size = entries(models)[0].stat().st_size
    found = together(3, models, redis_url, limit_bytes=size * 2, rounds=15)
    assert sum(computed + taken for computed, taken in found) == 3 * 15 * len(SHAPES)
    assert sum(computed for computed, _ in found) > len(SHAPES)  # some had been evicted


# --------------------------------------------------------------------------------- device's memory
def test_the_next_job_finds_the_alignment_in_the_devices_memory(models: Path) -> None:
    memory = DeviceCache(torch.device("cpu"), 1 << 30)
    plain = applied(models, None, "tall")
    sources = []
    for kept in (cache(models), None, cache(models)):
        with opened(models, kept) as alignments:
            found = replace(alignments, memory=memory).apply(
                module("tall"), columns("tall"), APPROXIMATE
            )
        sources.append(found.source)
        error = torch.linalg.norm(found.product - plain[0])
        assert error < 2e-6 * torch.linalg.norm(plain[0])
        assert found.alignment_norm == plain[1]
    assert sources == ["computed", "memory", "memory"]


@pytest.mark.usefixtures("either_multiplies")
def test_what_comes_from_the_cache_goes_to_the_devices_memory_too(models: Path) -> None:
    applied(models, cache(models), "tall")
    memory = DeviceCache(torch.device("cpu"), 1 << 30)
    with opened(models, cache(models)) as alignments:
        remembering = replace(alignments, memory=memory)
        taken = [
            remembering.apply(module("tall"), columns("tall"), APPROXIMATE).source for _ in range(2)
        ]
    assert taken == ["cache", "memory"]


def test_changed_weights_are_not_taken_from_memory(models: Path) -> None:
    memory = DeviceCache(torch.device("cpu"), 1 << 30)
    with opened(models, None) as alignments:
        replace(alignments, memory=memory).apply(module("tall"), columns("tall"), APPROXIMATE)
    write_model(models / "chat", 2)
    with opened(models, None) as alignments:
        found = replace(alignments, memory=memory).apply(
            module("tall"), columns("tall"), APPROXIMATE
        )
    assert found.source == "computed"
    assert torch.equal(found.product, applied(models, None, "tall")[0])
