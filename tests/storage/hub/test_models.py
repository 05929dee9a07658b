"""Models by id on a hub that speaks the Hub's API: which commit, which bytes, which errors."""

import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download
from safetensors import safe_open

from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.errors import (
    CheckpointRefused,
    InvalidField,
    JobCancelled,
    ModelNotAllowed,
    Unavailable,
    UnknownModel,
)
from app.domain.hub_errors import (
    HubCacheFull,
    HubFileCorrupt,
    NotInCache,
    RepositoryGated,
    RepositoryNotFound,
    RevisionNotFound,
)
from app.storage.hub.remote import Download
from app.storage.models import FolderModels
from tests.hub.server import LocalHub
from tests.hub_models import BASE, CHAT, LAYERS, HubWorld, put
from tests.storage.hub.conftest import Reader, a_reader

FIELD = "chat_model"
SAID = r"config\.json.*git blob id"
Commits = dict[str, str]


def projections(checkpoint: Checkpoint) -> list[ShardTensor]:
    names = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(LAYERS) for p in "qv"]
    return [weight for weight in map(checkpoint.weight, names) if weight]


def last_shard(world: HubWorld) -> str:
    """The file of the last layer's projections."""
    index = json.loads((world.chat / "model.safetensors.index.json").read_text())
    name: str = index["weight_map"][f"model.layers.{LAYERS - 1}.self_attn.v_proj.weight"]
    return name


def read(tensor: ShardTensor) -> bytes:
    with tensor.file.open("rb") as file:
        file.seek(tensor.entry.begin)
        return file.read(tensor.entry.size_bytes)


def truth(folder: Path, tensor: ShardTensor) -> bytes:
    with safe_open(folder / tensor.file.name, "pt") as file:
        return bytes(file.get_tensor(tensor.entry.name).numpy().tobytes())


def assert_as_in(folder: Path, tensors: list[ShardTensor]) -> None:
    for tensor in tensors:
        assert read(tensor) == truth(folder, tensor), tensor.entry.name


# ------------------------------------------------------------------------------------- the commit
def test_a_model_is_resolved_once_to_its_commit(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        local_hub.commit(CHAT, {"config.json": b"{}"})
        assert models.checkpoint(CHAT, field=FIELD) is checkpoint
    assert checkpoint.revision == commits[CHAT]
    assert reader.notes == {CHAT: commits[CHAT]}


def test_a_pinned_commit_is_taken_again_though_the_branch_has_moved(
    reader: Reader, local_hub: LocalHub, commits: Commits
) -> None:
    local_hub.commit(CHAT, {"config.json": b"{}"})
    with reader.opened({CHAT: commits[CHAT]}) as models:
        assert models.checkpoint(CHAT, field=FIELD).revision == commits[CHAT]
    assert reader.notes == {}


@pytest.mark.parametrize("revision", ["a-branch", "refs/pr/1", "v1.0", "sha"])
def test_a_branch_a_tag_and_a_commit_may_be_named(
    reader: Reader, local_hub: LocalHub, commits: Commits, revision: str
) -> None:
    first = commits[CHAT]
    ref = {"sha": "other", "v1.0": "refs/tags/v1.0"}.get(revision, revision)
    local_hub.move_ref(CHAT, ref, first)
    local_hub.commit(CHAT, {"config.json": b"{}"})
    name = f"{CHAT}@{first if revision == 'sha' else revision}"
    with reader.opened() as models:
        assert models.checkpoint(name, field=FIELD).revision == first
    assert reader.notes == {name: first}


def test_a_folder_comes_before_the_hub_unless_a_revision_is_named(
    tmp_path: Path, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    reader = a_reader(tmp_path, models=hub_world.root)
    put(local_hub, "local/chat", hub_world.chat)
    with reader.opened() as models:
        assert models.checkpoint("local/chat", field=FIELD).revision is None
        assert models.checkpoint("local/chat@main", field=FIELD).revision is not None


# ------------------------------------------------------------------------------------- the errors
def test_missing_private_and_gated_repositories_are_told_apart(
    reader: Reader, tmp_path: Path, local_hub: LocalHub, hub_world: HubWorld
) -> None:
    trusted = local_hub.user("trusted")
    local_hub.create("org/private", private=True)
    local_hub.create("org/gated", gated_to=[trusted])
    local_hub.commit("org/gated", {p.name: p for p in hub_world.chat.iterdir()})
    local_hub.create("org/open")
    expected = {
        "org/missing": RepositoryNotFound,
        "org/private": RepositoryNotFound,
        "org/gated": RepositoryGated,
        "org/open@nowhere": RevisionNotFound,
        "org/open": CheckpointRefused,  # it has no config.json
    }
    with reader.opened() as models:
        for name, error in expected.items():
            with pytest.raises(error) as caught:
                models.checkpoint(name, field=FIELD)
            assert caught.value.facts["field"] == FIELD
            assert name.partition("@")[0] in str(caught.value)


def test_who_has_access_reads_a_gated_model(
    tmp_path: Path, local_hub: LocalHub, hub_world: HubWorld
) -> None:
    trusted = local_hub.user("trusted")
    local_hub.create("org/gated", gated_to=[trusted])
    local_hub.commit("org/gated", {p.name: p for p in hub_world.chat.iterdir()})
    with a_reader(tmp_path, token=trusted).opened() as models:
        checkpoint = models.checkpoint("org/gated", field=FIELD)
        checkpoint.have(projections(checkpoint))
    assert_as_in(hub_world.chat, projections(checkpoint))
    assert local_hub.log.with_authorization("hub")
    assert local_hub.log.with_authorization("cdn") == []


@pytest.mark.parametrize(
    "name", ["org/../x", "/etc", "chat@main", "org/chat@", "org/chat@a..b", "a/b/c"]
)
def test_what_is_no_name_is_refused_and_nothing_is_asked(
    reader: Reader, local_hub: LocalHub, name: str
) -> None:
    with reader.opened() as models, pytest.raises(InvalidField):
        models.checkpoint(name, field=FIELD)
    assert local_hub.log.requests() == []


def test_a_name_without_an_organisation_is_only_a_folders(
    reader: Reader, local_hub: LocalHub
) -> None:
    with reader.opened() as models, pytest.raises(UnknownModel):
        models.checkpoint("gpt2", field=FIELD)
    assert local_hub.log.requests() == []


def test_a_model_that_is_not_allowed_is_not_asked_for_whatever_its_revision(
    tmp_path: Path, local_hub: LocalHub
) -> None:
    folders = FolderModels(tmp_path, ["org/base"], with_hub=True)
    assert folders.is_remote(f"{BASE}@main", field=FIELD)
    with pytest.raises(ModelNotAllowed):
        folders.is_remote("org/chat@main", field=FIELD)


def test_pickled_weights_are_refused_by_name(reader: Reader, local_hub: LocalHub) -> None:
    local_hub.create("org/pickled")
    local_hub.commit("org/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with reader.opened() as models, pytest.raises(CheckpointRefused, match=r"pytorch_model\.bin"):
        models.checkpoint("org/pickled", field=FIELD)


def test_a_header_that_is_too_long_for_its_file_is_refused(
    reader: Reader, local_hub: LocalHub
) -> None:
    local_hub.create("org/broken")
    weights = (10**12).to_bytes(8, "little") + b"{}"
    local_hub.commit("org/broken", {"config.json": b"{}", "model.safetensors": weights})
    with reader.opened() as models, pytest.raises(CheckpointRefused, match="header"):
        models.checkpoint("org/broken", field=FIELD)


# -------------------------------------------------------------------------------------- the bytes
def test_only_what_is_asked_for_is_read(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        weights = hub_world.weights_bytes(hub_world.chat)
        shards = {path.name for path in hub_world.chat.glob("*.safetensors")}
        headers = sum(local_hub.log.bytes_of(CHAT, shard) for shard in shards)
        assert len(shards) > 2
        assert headers < 0.01 * weights
        wanted = projections(checkpoint)
        checkpoint.have(wanted)
    came = sum(local_hub.log.bytes_of(CHAT, shard) for shard in shards)
    asked = sum(tensor.entry.size_bytes for tensor in wanted)
    assert asked + headers <= came <= 1.02 * asked + headers < 0.2 * weights
    assert_as_in(hub_world.chat, wanted)
    done = reader.downloads[-1]
    assert (done.model, done.done_bytes, done.total_bytes) == (CHAT, asked, asked)


def test_what_is_here_is_not_asked_for_again_by_anyone(
    tmp_path: Path, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    for attempt in range(2):
        with a_reader(tmp_path).opened({CHAT: commits[CHAT]}) as models:
            checkpoint = models.checkpoint(CHAT, field=FIELD)
            checkpoint.have(projections(checkpoint))
        if attempt:
            assert local_hub.log.requests() == []
        local_hub.log.clear()


def test_cut_connections_go_on_where_they_were_cut(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        local_hub.log.clear()
        local_hub.faults.cut(20_000, times=6, repo=CHAT, file="*.safetensors")
        wanted = projections(checkpoint)
        checkpoint.have(wanted)
    assert_as_in(hub_world.chat, wanted)
    begins = {tensor.entry.begin for tensor in wanted}
    answered = [r for r in local_hub.log.of(CHAT) if r.status == 206 and r.range]
    later = [r for r in answered if r.range and r.range[0] not in begins]
    assert later
    asked = sum(tensor.entry.size_bytes for tensor in wanted)
    assert local_hub.log.bytes_of(CHAT) <= 1.05 * asked


def test_a_server_that_serves_no_ranges_gives_the_whole_file(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    local_hub.faults.ignore_range(repo=CHAT, file="*.safetensors")
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        checkpoint.have(projections(checkpoint))
    assert_as_in(hub_world.chat, projections(checkpoint))
    weights = hub_world.weights_bytes(hub_world.chat)
    assert local_hub.log.bytes_of(CHAT) < 2.5 * weights  # one answer to a range was cut off


def test_whole_files_are_read_where_most_of_them_is_needed_and_their_digest_is_checked(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        checkpoint.have_all()
    for path in hub_world.chat.iterdir():
        if path.suffix in (".json", ".safetensors") and "index" not in path.name:
            assert (checkpoint.folder / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("fault", ["corrupt", "wrong_sha"])
def test_a_whole_file_with_another_digest_is_refused_and_not_kept(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld, fault: str
) -> None:
    getattr(local_hub.faults, fault)(repo=CHAT, file="*.safetensors")
    with reader.opened() as models:
        if fault == "corrupt":
            local_hub.faults.clear()
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        if fault == "corrupt":
            local_hub.faults.corrupt(repo=CHAT, file="*.safetensors")
        with pytest.raises(HubFileCorrupt, match="SHA-256"):
            checkpoint.have_all()
    local_hub.faults.clear()
    with a_reader(reader.models.cache.root.parent / "again").opened() as models:
        models.checkpoint(CHAT, field=FIELD).have_all()


def test_a_small_file_with_another_digest_is_refused(
    reader: Reader, local_hub: LocalHub, commits: Commits
) -> None:
    local_hub.faults.corrupt(repo=CHAT, file="config.json")
    with (
        reader.opened() as models,
        pytest.raises(HubFileCorrupt, match=r"config\.json.*git blob id"),
    ):
        models.checkpoint(CHAT, field=FIELD)
    local_hub.faults.clear()
    with reader.opened() as models:
        models.checkpoint(CHAT, field=FIELD)


def test_another_range_than_was_asked_for_is_refused(
    reader: Reader, local_hub: LocalHub, commits: Commits
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        local_hub.faults.wrong_range(1, repo=CHAT, file="*.safetensors")
        with pytest.raises(HubFileCorrupt, match="asked for bytes"):
            checkpoint.have(projections(checkpoint))


@pytest.mark.parametrize("by", [-5, 5])
def test_bytes_are_counted_and_not_believed(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld, by: int
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        local_hub.faults.wrong_length(by, times=4, repo=CHAT, file="*.safetensors")
        checkpoint.have(projections(checkpoint))
    assert_as_in(hub_world.chat, projections(checkpoint))


def test_a_hub_that_asks_for_patience_gets_it(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        local_hub.faults.refuse(429, times=2, retry_after=1, path="*resolve*")
        local_hub.faults.refuse(503, times=2, host="cdn")
        checkpoint.have(projections(checkpoint))
    assert_as_in(hub_world.chat, projections(checkpoint))


def test_links_that_have_run_out_are_asked_for_again(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        local_hub.faults.expired(times=3, repo=CHAT)
        checkpoint.have(projections(checkpoint))
    assert_as_in(hub_world.chat, projections(checkpoint))


def test_a_hub_or_a_cdn_that_is_down_is_no_fault_of_the_job(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    local_hub.faults.down.set()
    with reader.opened() as models, pytest.raises(Unavailable):
        models.checkpoint(CHAT, field=FIELD)
    local_hub.faults.down.clear()
    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        local_hub.faults.cdn_down.set()
        with pytest.raises(Unavailable):
            checkpoint.have(projections(checkpoint))
        local_hub.faults.cdn_down.clear()
        checkpoint.have(projections(checkpoint))
    assert_as_in(hub_world.chat, projections(checkpoint))


def test_who_no_longer_wants_the_bytes_stops_and_what_came_stays(
    reader: Reader, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    held = threading.Event()

    def stop(download: Download) -> None:
        if download.done_bytes:
            held.set()
            raise JobCancelled

    with reader.opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        reader.on_download = stop
        wanted = projections(checkpoint)
        local_hub.faults.hold(held, repo=CHAT, file=last_shard(hub_world))
        with pytest.raises(JobCancelled):
            checkpoint.have(wanted)
        reader.on_download = lambda _: None
        local_hub.faults.clear()
        local_hub.log.clear()
        checkpoint.have(wanted)
    assert_as_in(hub_world.chat, wanted)
    asked = sum(tensor.entry.size_bytes for tensor in wanted)
    assert local_hub.log.bytes_of(CHAT) < asked


def lines_of(folder: Path, pattern: str) -> int:
    """Of each shard the first two are of its header."""
    return sum(len(path.read_text().splitlines()) for path in folder.glob(pattern))


def _fetch_in_a_process(root: str, sha: str) -> None:
    with a_reader(Path(root)).opened({CHAT: sha}) as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        checkpoint.have(projections(checkpoint))


def test_a_process_that_is_killed_leaves_what_it_had_to_the_next(
    tmp_path: Path, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    never = threading.Event()
    local_hub.faults.hold(
        never, after=20_000, repo=CHAT, file=last_shard(hub_world)
    )  # not of the header
    fork = multiprocessing.get_context("fork")
    given = (str(tmp_path), commits[CHAT])
    process = fork.Process(target=_fetch_in_a_process, args=given)
    process.start()
    journals = tmp_path / "hub" / "models--org--chat" / commits[CHAT] / ".state"
    pause = threading.Event()
    while lines_of(journals, "*-of-*.parts") <= 2 * len(list(hub_world.chat.glob("*-of-*"))):
        assert process.is_alive()
        pause.wait(0.02)
    process.kill()
    process.join()
    never.set()
    local_hub.faults.clear()
    local_hub.log.clear()
    with a_reader(tmp_path).opened({CHAT: commits[CHAT]}) as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        checkpoint.have(projections(checkpoint))
    assert_as_in(hub_world.chat, projections(checkpoint))
    asked = sum(tensor.entry.size_bytes for tensor in projections(checkpoint))
    assert local_hub.log.bytes_of(CHAT) < asked


def test_two_at_once_fetch_a_file_once(
    tmp_path: Path, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    failed = []

    def fetch() -> None:
        try:
            with a_reader(tmp_path).opened({CHAT: commits[CHAT]}) as models:
                checkpoint = models.checkpoint(CHAT, field=FIELD)
                checkpoint.have(projections(checkpoint))
                assert_as_in(hub_world.chat, projections(checkpoint))
        except Exception as error:  # noqa: BLE001 # told below
            failed.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with a_reader(tmp_path).opened({CHAT: commits[CHAT]}) as models:
        wanted = projections(models.checkpoint(CHAT, field=FIELD))
    asked = sum(tensor.entry.size_bytes for tensor in wanted)
    assert local_hub.log.bytes_of(CHAT) < 1.2 * asked


# -------------------------------------------------------------------------------------- the caches
def test_offline_what_was_here_is_and_what_was_not_is_named(
    tmp_path: Path,
    local_hub: LocalHub,
    commits: Commits,
    hub_world: HubWorld,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with a_reader(tmp_path).opened() as models:
        checkpoint = models.checkpoint(CHAT, field=FIELD)
        checkpoint.have(projections(checkpoint))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with a_reader(tmp_path).opened() as models:
        again = models.checkpoint(CHAT, field=FIELD)
        again.have(projections(again))
        assert (again.revision, again.digest) == (checkpoint.revision, checkpoint.digest)
        with pytest.raises(NotInCache, match=BASE):
            models.checkpoint(BASE, field="base_model")
        with pytest.raises(NotInCache, match=CHAT):
            again.have_all()


def test_what_the_library_has_downloaded_is_read_where_it_is(
    reader: Reader,
    local_hub: LocalHub,
    commits: Commits,
    hub_world: HubWorld,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshot_download(CHAT, token=False, cache_dir=constants.HF_HUB_CACHE)
    for is_offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
        local_hub.log.clear()
        with reader.opened() as models:
            checkpoint = models.checkpoint(CHAT, field=FIELD)
            checkpoint.have(projections(checkpoint))
        assert_as_in(hub_world.chat, projections(checkpoint))
        assert checkpoint.revision == commits[CHAT]
        assert local_hub.log.bytes_of(CHAT) == 0


def test_the_least_recently_used_models_go_first_and_never_one_that_is_open(
    tmp_path: Path, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    weights = hub_world.weights_bytes(hub_world.chat)
    names = ["org/one", "org/two", "org/three"]
    for name in names:
        put(local_hub, name, hub_world.chat)
    folders = {}
    reader = a_reader(tmp_path, limit_bytes=int(2.5 * weights))
    for at, name in enumerate(names[:2]):
        with reader.opened() as models:
            checkpoint = models.checkpoint(name, field=FIELD)
            checkpoint.have_all()
            folders[name] = checkpoint.folder
            os.utime(checkpoint.folder / ".used", (at, at))
    with reader.opened() as models, a_reader(tmp_path).opened() as others:
        others.checkpoint("org/one", field=FIELD)
        models.checkpoint("org/three", field=FIELD).have_all()
        assert folders["org/one"].is_dir()
        assert not folders["org/two"].exists()


def test_models_that_are_larger_than_the_cache_are_a_fault_that_names_the_setting(
    tmp_path: Path, local_hub: LocalHub, commits: Commits, hub_world: HubWorld
) -> None:
    weights = hub_world.weights_bytes(hub_world.chat)
    reader = a_reader(tmp_path, limit_bytes=int(1.5 * weights))
    with reader.opened() as models:
        models.checkpoint(CHAT, field=FIELD).have_all()
        base = models.checkpoint(BASE, field="base_model")
        with pytest.raises(HubCacheFull, match="ADAPTER_SAFETY_HUB_CACHE_BYTES"):
            base.have_all()
