"""A hub that is wrong, and processes that get into each other's way: never other bytes than the
model's, and never a hole read as one."""

import fcntl
import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, hf_hub_download, snapshot_download

from app.domain.checkpoint import Checkpoint
from app.domain.errors import CheckpointRefused, ModelNotAllowed, Unavailable
from app.domain.hub_errors import HubCacheFull, HubFileCorrupt, NotInCache
from app.intake.checkpoint import read_checkpoint
from app.storage.hub import cache, reader
from app.storage.models import FolderModels
from tests.hub.server import LocalHub
from tests.hub_models import BASE, CHAT, HubWorld, put
from tests.storage.hub.conftest import Reader, a_reader
from tests.storage.hub.test_models import FIELD, Commits, assert_as_in, projections
from workers.language_models import tokenizer_digest
from workers.run import NamedCheckpoint


class KilledHere(BaseException):
    """As a kill would, nothing in the product catches it."""


def spoil_a_weight(hub: LocalHub, world: HubWorld) -> None:
    """One byte of a projection, wherever it is sent from."""
    found = read_checkpoint(world.chat, field=FIELD, model=CHAT)
    entry = projections(found)[0]
    hub.faults.corrupt(entry.entry.begin + 1, repo=CHAT, file=entry.file.name)


def test_a_hub_without_ranges_has_its_files_checked_too(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    local_hub.faults.ignore_range(repo=CHAT, file="*.safetensors")
    spoil_a_weight(local_hub, hub_world)
    with reader.opened() as models, pytest.raises(HubFileCorrupt, match="SHA-256"):
        models.checkpoint(CHAT, field=FIELD)


def test_a_file_that_was_whole_but_not_checked_when_its_reader_was_killed_is_checked_by_the_next(
    tmp_path: Path,
    local_hub: LocalHub,
    commits: Commits,
    hub_world: HubWorld,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spoil_a_weight(local_hub, hub_world)

    def killed(file: Any, _: Any) -> None:
        if file.name.endswith(".safetensors"):
            raise KilledHere

    with monkeypatch.context() as here:
        here.setattr(reader, "digest_fault", killed)
        with a_reader(tmp_path).opened() as models, pytest.raises(KilledHere):
            models.checkpoint(CHAT, field=FIELD).have_all()
    local_hub.faults.clear()
    with a_reader(tmp_path).opened() as models, pytest.raises(HubFileCorrupt, match="SHA-256"):
        models.checkpoint(CHAT, field=FIELD).have_all()


def test_pieces_that_make_a_file_whole_are_checked_as_one(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    spoil_a_weight(local_hub, hub_world)
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        name = projections(checkpoint)[0].file.name
        own = [each for each in checkpoint.tensors.values() if each.file.name == name]
        with pytest.raises(HubFileCorrupt, match="SHA-256"):  # noqa: PT012 # whichever is the last
            for each in own:
                checkpoint.have([each])


# ------------------------------------------------------------------------------------- eviction
def test_who_comes_late_to_clear_a_folder_leaves_the_new_one_alone(
    tmp_path: Path,
    local_hub: LocalHub,
    commits: Commits,
    hub_world: HubWorld,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with a_reader(tmp_path).opened() as models:
        folder = models.checkpoint(CHAT, field=FIELD).folder
    at_the_lock, go_on = threading.Event(), threading.Event()
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        if threading.current_thread().name == "late":
            at_the_lock.set()
            assert go_on.wait(10)
        flock(descriptor, operation)

    monkeypatch.setattr(cache.fcntl, "flock", late)
    shelf, cleared = a_reader(tmp_path).models.cache, []
    thread = threading.Thread(target=lambda: cleared.append(shelf._cleared(folder)), name="late")
    thread.start()
    assert at_the_lock.wait(10)
    assert shelf._cleared(folder)
    with a_reader(tmp_path).opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        checkpoint.have(projections(checkpoint)[:1])
        go_on.set()
        thread.join()
        assert cleared == [False]
        checkpoint.have(projections(checkpoint))
        assert_as_in(hub_world.chat, projections(checkpoint))


def test_a_folder_that_is_being_cleared_is_out_of_the_way_as_a_whole(
    tmp_path: Path,
    local_hub: LocalHub,
    commits: Commits,
    hub_world: HubWorld,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with a_reader(tmp_path).opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        checkpoint.have(projections(checkpoint))
    remove = shutil.rmtree

    def while_removing(path: Path, **how: Any) -> None:
        monkeypatch.setattr(cache.shutil, "rmtree", remove)
        with a_reader(tmp_path).opened() as models:
            again = models.checkpoint(CHAT, field=FIELD)
            again.have(projections(again))
            remove(path, **how)
            again.have(projections(again))
            assert_as_in(hub_world.chat, projections(again))

    monkeypatch.setattr(cache.shutil, "rmtree", while_removing)
    assert a_reader(tmp_path).models.cache._cleared(checkpoint.folder)


def test_whose_folder_was_taken_away_waits_instead_of_reading_holes(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        checkpoint.have(projections(checkpoint))
        shutil.rmtree(checkpoint.folder)
        with pytest.raises(Unavailable, match="hub cache"):
            checkpoint.have(projections(checkpoint))


def test_what_a_killed_evictor_has_left_goes_with_the_next(
    tmp_path: Path, local_hub: LocalHub, commits: Commits
) -> None:
    left = tmp_path / "hub" / ".gone-1"
    left.mkdir(parents=True)
    with a_reader(tmp_path).opened() as models:
        models.checkpoint(CHAT, field=FIELD)
    assert not left.exists()


def test_the_limit_holds_for_a_hub_without_ranges(
    tmp_path: Path, local_hub: LocalHub, commits: Commits
) -> None:
    local_hub.faults.ignore_range(repo=CHAT, file="*.safetensors")
    with (
        a_reader(tmp_path, limit_bytes=300_000).opened() as models,
        pytest.raises((HubCacheFull, Unavailable)),
    ):
        models.checkpoint(CHAT, field=FIELD)


# ------------------------------------------------------------------------------ what is too much
def test_a_configuration_that_is_none_by_its_size_is_not_read(
    reader: Reader, local_hub: LocalHub
) -> None:
    local_hub.create("org/fat")
    files = {"config.json": b" " * (2 << 20), "model.safetensors": b"x" * 100}
    local_hub.commit("org/fat", files)
    with reader.opened() as models, pytest.raises(CheckpointRefused, match="too large"):
        models.checkpoint("org/fat", field=FIELD)
    assert local_hub.log.bytes_of("org/fat") == 0


def test_a_hub_that_drips_does_not_answer(
    reader: Reader, local_hub: LocalHub, commits: Commits
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        local_hub.faults.cut(1, times=None, repo=CHAT, file="*.safetensors")
        with pytest.raises(Unavailable):
            checkpoint.have(projections(checkpoint))


# --------------------------------------------------------------------------------- which model
def test_a_repository_that_was_renamed_is_one_that_is_not_allowed(
    tmp_path: Path, local_hub: LocalHub, commits: Commits
) -> None:
    local_hub.rename(CHAT, "other/secret")
    found = a_reader(tmp_path)
    folders = FolderModels(tmp_path, ["org/*"], with_hub=True)
    found.models = replace(found.models, folders=folders)
    with found.opened() as models, pytest.raises(ModelNotAllowed, match="other/secret"):
        models.checkpoint(CHAT, field=FIELD)


def test_one_revision_is_one_commit_however_it_is_named(
    reader: Reader, local_hub: LocalHub, commits: Commits
) -> None:
    with reader.opened() as models:
        one = models.checkpoint(CHAT, field=FIELD)
        local_hub.commit(CHAT, {"config.json": b"{}"})
        assert models.checkpoint(f"{CHAT}@main", field=FIELD).revision == one.revision


def test_a_model_that_was_read_from_the_hub_stays_there_though_a_folder_came(
    tmp_path: Path, local_hub: LocalHub, hub_world: HubWorld
) -> None:
    sha = put(local_hub, "local/chat", hub_world.chat)
    found = a_reader(tmp_path, models=hub_world.root)
    with found.opened({"local/chat": sha}) as models:
        assert models.checkpoint("local/chat", field=FIELD).revision == sha


def test_a_hub_that_tells_no_digests_has_no_two_models_with_one(
    reader: Reader, local_hub: LocalHub, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.storage.hub import reader as own

    told = own._file
    bare = {"blob_id": None, "sha256": None}
    monkeypatch.setattr(own, "_file", lambda sibling: replace(told(sibling), **bare))
    with reader.opened() as models:
        digests = {models.checkpoint(name, field=FIELD).digest for name in (BASE, CHAT)}
    assert len(digests) == 2


def test_a_commit_has_one_digest_whichever_way_it_came(
    tmp_path: Path, local_hub: LocalHub, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    with a_reader(tmp_path / "by the tensor").opened() as models:
        digests.add(models.checkpoint(CHAT, field=FIELD).digest)
    snapshot_download(CHAT, token=False, cache_dir=constants.HF_HUB_CACHE)
    for is_offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
        with a_reader(tmp_path / f"of the library {is_offline}").opened() as models:
            digests.add(models.checkpoint(CHAT, field=FIELD).digest)
    assert len(digests) == 1


def test_a_tokenizer_has_one_digest_however_often_its_download_was_cut(
    tmp_path: Path, local_hub: LocalHub, commits: Commits
) -> None:
    local_hub.commit(CHAT, {"tokenizer.json": json.dumps({"x": "y" * 40_000})})
    digests = set()
    for cuts in (0, 1):
        local_hub.faults.cut(9_000, times=cuts, repo=CHAT, file="tokenizer.json")
        with a_reader(tmp_path / str(cuts)).opened() as models:
            checkpoint = models.checkpoint(CHAT, field=FIELD)
            digests.add(tokenizer_digest(NamedCheckpoint(CHAT, checkpoint)))
    assert len(digests) == 1


def test_what_is_not_known_offline_is_not_remembered_as_a_commit_without_files(
    tmp_path: Path, local_hub: LocalHub, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf_hub_download(CHAT, "config.json", cache_dir=constants.HF_HUB_CACHE)  # a part of it
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with a_reader(tmp_path).opened() as models, pytest.raises((NotInCache, CheckpointRefused)):
        models.checkpoint(CHAT, field=FIELD)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with a_reader(tmp_path).opened({CHAT: commits[CHAT]}) as models:
        found: Checkpoint = models.checkpoint(CHAT, field=FIELD)
        assert found.revision == commits[CHAT]
