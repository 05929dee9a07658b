"""What the hub tells of repositories, and how their files come."""

import hashlib
from pathlib import Path

import httpx
import pytest
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import RemoteEntryNotFoundError, RevisionNotFoundError

from tests.hub.fixtures import api_of
from tests.hub.server import LocalHub

REPO = "acme/adapter"
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
CARD = "---\nbase_model: acme/base\ntags: [lora]\n---\n# Adapter\n"


@pytest.fixture
def hub(local_hub: LocalHub) -> LocalHub:
    local_hub.create(REPO)
    files = {"config.json": b"{}", "README.md": CARD, "deep/er/weights.safetensors": WEIGHTS}
    local_hub.commit(REPO, files)
    return local_hub


def test_a_models_page_tells_its_commit_its_card_and_its_files(hub: LocalHub) -> None:
    info = api_of(hub).model_info(REPO)
    assert info.sha == hub.sha(REPO)
    assert info.card_data.base_model == "acme/base"
    assert "lora" in info.tags
    assert [file.rfilename for file in info.siblings] == hub.files(REPO)
    assert len(info.sha) == 40


def test_files_are_told_with_their_sizes_and_digests(hub: LocalHub) -> None:
    info = api_of(hub).model_info(REPO, files_metadata=True)
    found = {file.rfilename: file for file in info.siblings}
    lfs = found["deep/er/weights.safetensors"]
    assert (lfs.size, lfs.lfs.size) == (len(WEIGHTS), len(WEIGHTS))
    assert lfs.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert found["config.json"].lfs is None
    assert found["config.json"].blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_a_tree_is_listed_page_by_page(hub: LocalHub, page: int) -> None:
    hub.state.tree_page = page
    listed = list(api_of(hub).list_repo_tree(REPO, recursive=True))
    paths = {entry.path for entry in listed}
    assert paths == {*hub.files(REPO), "deep", "deep/er"}
    assert len(listed) == len(paths)
    assert {entry.path for entry in api_of(hub).list_repo_tree(REPO)} == paths - {
        "deep/er",
        "deep/er/weights.safetensors",
    }
    inside = api_of(hub).list_repo_tree(REPO, "deep/er")
    assert [entry.path for entry in inside] == ["deep/er/weights.safetensors"]


def test_paths_are_told_one_by_one(hub: LocalHub) -> None:
    found = api_of(hub).get_paths_info(REPO, ["config.json", "not-there"])
    assert [entry.path for entry in found] == ["config.json"]


def test_refs_and_history_are_told(hub: LocalHub) -> None:
    first = hub.sha(REPO)
    hub.move_ref(REPO, "refs/tags/v1", first)
    hub.commit(REPO, {"config.json": b"[]"}, ref="other")
    told = api_of(hub).list_repo_refs(REPO, include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in told.branches}["main"] == first
    assert [ref.name for ref in told.tags] == ["v1"]
    assert told.pull_requests == []
    titles = [commit.title for commit in api_of(hub).list_repo_commits(REPO)]
    assert titles == ["Commit", "initial commit"]


@pytest.mark.parametrize("of", ["main", "tag", "sha", "short sha"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: LocalHub, of: str) -> None:
    sha = hub.sha(REPO)
    hub.move_ref(REPO, "refs/tags/v1", sha)
    revision = {"main": "main", "tag": "v1", "sha": sha, "short sha": sha[:8]}[of]
    assert api_of(hub).model_info(REPO, revision=revision).sha == sha


def test_a_commit_that_no_ref_leads_to_is_still_read_by_its_name(hub: LocalHub) -> None:
    sha = hub.commit(REPO, {"config.json": b"[]"}, ref="other")
    hub.delete_ref(REPO, "other")
    assert api_of(hub).model_info(REPO, revision=sha).sha == sha
    with pytest.raises(RevisionNotFoundError):
        api_of(hub).model_info(REPO, revision="other")


def test_whole_repositories_come_byte_for_byte(hub: LocalHub, tmp_path: Path) -> None:
    folder = Path(api_of(hub).snapshot_download(REPO, cache_dir=tmp_path))
    assert folder.name == hub.sha(REPO)
    for path in hub.files(REPO):
        assert (folder / path).read_bytes() == hub.read(REPO, "main", path)
    assert hub.log.bytes_of(REPO, "deep/er/weights.safetensors") == len(WEIGHTS)


def test_a_path_on_disk_is_a_files_contents(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(WEIGHTS)
    hub.commit(REPO, {"given.safetensors": tmp_path / "here"})
    got = api_of(hub).hf_hub_download(REPO, "given.safetensors", cache_dir=tmp_path / "cache")
    assert Path(got).read_bytes() == WEIGHTS


def test_a_git_file_is_on_the_hub_and_an_lfs_file_elsewhere(hub: LocalHub) -> None:
    def metadata(path: str) -> object:
        return get_hf_file_metadata(hf_hub_url(REPO, path, endpoint=hub.endpoint))

    git, lfs = metadata("config.json"), metadata("deep/er/weights.safetensors")
    assert git.location.startswith(hub.endpoint)
    assert git.etag == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert lfs.location.startswith(hub.cdn_endpoint)
    assert lfs.etag == hashlib.sha256(WEIGHTS).hexdigest()
    assert (git.size, lfs.size) == (2, len(WEIGHTS))
    assert git.commit_hash == lfs.commit_hash == hub.sha(REPO)


def test_a_git_file_may_lie_behind_a_redirect_on_the_hub_itself(hub: LocalHub) -> None:
    hub.state.resolve_cache = True
    got = api_of(hub, hub.token).hf_hub_download(REPO, "config.json")
    assert Path(got).read_bytes() == b"{}"
    assert hub.log.requests(path="/api/resolve-cache/*")


def test_git_itself_has_a_pointer_for_an_lfs_file(hub: LocalHub) -> None:
    raw = httpx.get(f"{hub.endpoint}/{REPO}/raw/main/deep/er/weights.safetensors").text
    assert raw.startswith("version https://git-lfs.github.com/spec/v1\noid sha256:")
    assert raw.endswith(f"size {len(WEIGHTS)}\n")


@pytest.mark.parametrize("revision", ["refs/pr/1", "refs%2Fpr%2F1"])
def test_a_pull_requests_ref_may_be_quoted_in_a_url_or_not(hub: LocalHub, revision: str) -> None:
    api_of(hub, hub.token).create_pull_request(REPO, "Propose")
    answer = httpx.get(f"{hub.endpoint}/{REPO}/resolve/{revision}/config.json")
    assert answer.text == "{}"


def test_a_repositorys_old_name_leads_to_its_new_one(hub: LocalHub, tmp_path: Path) -> None:
    sha = hub.sha(REPO)
    hub.rename(REPO, "acme/renamed")
    info = api_of(hub, hub.token).model_info(REPO, files_metadata=True)
    assert (info.id, info.sha) == ("acme/renamed", sha)
    folder = Path(api_of(hub).snapshot_download(REPO, cache_dir=tmp_path))
    assert (folder / "deep/er/weights.safetensors").read_bytes() == WEIGHTS


def test_a_missing_file_is_an_entry_not_found(hub: LocalHub) -> None:
    with pytest.raises(RemoteEntryNotFoundError):
        api_of(hub).hf_hub_download(REPO, "not-there")
    assert not api_of(hub).file_exists(REPO, "not-there")
    assert api_of(hub).file_exists(REPO, "config.json")
