"""Alignments made ahead of time, and that a job which comes later finds them right."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.alignment.blocks import Scratch
from app.alignment.device import DeviceCache
from app.domain.alignment import AlignedModule, Warmed
from app.domain.errors import NonFiniteTensor
from app.domain.method import Method, Projection
from app.intake.checkpoint import read_checkpoint
from app.storage.alignment_cache import AlignmentCache, Pair
from tests.alignment import reference
from tests.workers.test_alignments import (
    METHODS,
    SHAPES,
    applied,
    cache,
    columns,
    module,
    opened,
    write_model,
    write_weights,
)
from tests.workers.test_alignments import (
    either_multiplies as either_multiplies,
)
from workers.alignments import Alignments
from workers.checkpoints import open_pair
from workers.shelf import Shelf
from workers.warming import NO_CACHE, NO_ROOM, warm

APPROXIMATE = Method().projection
TOLERANCE = 1e-6


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_model(tmp_path / "base", 0)
    write_model(tmp_path / "chat", 1)
    return tmp_path


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may be remembered at once: how long a change takes to show is tested elsewhere."""
    monkeypatch.setattr("app.storage.alignment_cache.RECENT_S", 0.0)


@contextmanager
def shelf_of(folder: Path, kept: AlignmentCache) -> Iterator[tuple[Alignments, Shelf]]:
    base, chat = (
        read_checkpoint(folder / role, field=role, model=role) for role in ("base", "chat")
    )
    pair = Pair(base.digest, chat.digest, "base", "chat")
    with open_pair(chat, base) as opened, closing(Shelf(kept.pair(pair))) as shelf:
        yield Alignments(opened, Scratch(), shelf), shelf


def warmed(
    folder: Path,
    name: str,
    projection: Projection = APPROXIMATE,
    kept: AlignmentCache | None = None,
) -> Warmed:
    d_out, d_in = SHAPES[name]
    with shelf_of(folder, kept or cache(folder)) as (alignments, _):
        return warm(alignments, AlignedModule(name, d_out, d_in), projection)


@pytest.mark.usefixtures("either_multiplies")
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{m.projector} {m.energy} {m.rank}")
def test_a_job_finds_what_was_made_ahead_and_it_is_right(
    models: Path, method: Method, name: str
) -> None:
    found = warmed(models, name, method.projection)
    assert (found.source, found.shape, found.note) == ("computed", SHAPES[name], "")
    product, norm, _, source = applied(models, cache(models), name, method.projection)
    assert source == "cache"
    chat, base = (load_file(models / role / "model.safetensors") for role in ("chat", "base"))
    weights = [tensors[f"{name}.weight"] for tensors in (chat, base)]
    expected = reference.projector(*weights, method) @ columns(name).double()
    least = 1e-9 * torch.linalg.norm(columns(name))  # below it there is but rounding
    size = max(torch.linalg.norm(expected), least)
    assert torch.linalg.norm(product - expected) <= 1e-3 * size  # V is kept in bfloat16
    exact, exact_norm, _, _ = applied(models, None, name, method.projection)
    assert torch.linalg.norm(product.double() - exact.double()) <= TOLERANCE * size
    assert norm == pytest.approx(exact_norm, rel=TOLERANCE)


def test_what_is_fastest_to_use_is_kept(models: Path) -> None:
    forms = {name: warmed(models, name) for name in SHAPES}
    assert {name: found.form for name, found in forms.items()} == {
        "square": "panels",
        "tall": "panels",
        "wide": "gram",
    }
    assert forms["wide"].size_bytes == 4 * 48 * 48  # d_out is 40
    assert forms["wide"].dtype == "F32"
    assert all(found.rounding is not None for found in forms.values())


def test_what_a_job_kept_in_passing_is_made_faster_to_use(models: Path) -> None:
    kept = cache(models)
    assert applied(models, kept, "wide")[3] == "computed"
    (panels,) = (models / "cache").rglob("*.safetensors")
    found = warmed(models, "wide", kept=kept)
    assert (found.source, found.form) == ("computed", "gram")
    panels.unlink()
    assert applied(models, kept, "wide")[3] == "cache"


def test_what_was_made_ahead_goes_to_the_devices_memory_too(models: Path) -> None:
    warmed(models, "wide")
    plain = applied(models, None, "wide")[0]
    memory = DeviceCache(torch.device("cpu"), 1 << 30)
    with opened(models, cache(models)) as alignments:
        remembering = replace(alignments, memory=memory)
        found = [remembering.apply(module("wide"), columns("wide"), APPROXIMATE) for _ in range(2)]
    assert [applied.source for applied in found] == ["cache", "memory"]
    for one in found:
        assert torch.linalg.norm(one.product - plain) < 2e-6 * torch.linalg.norm(plain)


def test_what_is_there_already_is_not_made_again(models: Path) -> None:
    first = warmed(models, "wide")
    again = warmed(models, "wide")
    assert (first.source, again.source) == ("computed", "cache")
    assert (again.form, again.dtype, again.size_bytes, again.rounding) == (
        first.form,
        first.dtype,
        first.size_bytes,
        first.rounding,
    )


def test_a_float64_pair_is_never_kept_in_float32(tmp_path: Path) -> None:
    write_model(tmp_path / "base", 0, torch.float64)
    write_model(tmp_path / "chat", 1, torch.float64)
    found = warmed(tmp_path, "wide")
    assert (found.form, found.dtype) == ("panels", "F64")


def test_equal_weights_leave_nothing_to_keep(models: Path) -> None:
    write_model(models / "chat", 0)
    found = warmed(models, "square")
    assert (found.source, found.size_bytes) == (None, 0)
    assert "equal" in found.note


def test_a_tensor_with_nan_is_named(models: Path) -> None:
    weights = load_file(models / "chat" / "model.safetensors")
    weights["tall.weight"][3, 3] = torch.nan
    write_weights(models / "chat", weights)
    for method in (Method(), Method("exact")):
        with pytest.raises(NonFiniteTensor, match=r"tall\.weight of the chat model"):
            warmed(models, "tall", method.projection)


def test_a_cache_without_room_is_told(models: Path) -> None:
    found = warmed(models, "square", kept=cache(models, limit_bytes=100))
    assert (found.source, found.note) == (None, NO_ROOM)


def test_a_worker_without_a_cache_says_so_and_computes_nothing(models: Path) -> None:
    base, chat = (
        read_checkpoint(models / role, field=role, model=role) for role in ("base", "chat")
    )
    with open_pair(chat, base) as opened:
        found = warm(Alignments(opened, Scratch()), AlignedModule("wide", 40, 200), APPROXIMATE)
    assert (found.source, found.note) == (None, NO_CACHE)


def test_usage_tells_what_is_kept_and_what_was_found(models: Path) -> None:
    with shelf_of(models, cache(models)) as (alignments, shelf):
        for name in ("square", "wide", "square"):
            warm(alignments, AlignedModule(name, *SHAPES[name]), APPROXIMATE)
        (usage,) = shelf.usage()
    assert (usage.modules, usage.hits, usage.misses) == (2, 1, 2)
    assert (usage.base_model, usage.chat_model) == ("base", "chat")
    assert usage.size_bytes >= 2 * 64 * 64 + 4 * 40 * 40
