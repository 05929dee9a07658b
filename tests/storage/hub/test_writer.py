"""Answers on a hub, by the real client; and each of its refusals as one of ours."""

from pathlib import Path

import pytest

from app.domain.errors import AdapterSafetyError, Unavailable
from app.domain.hub_errors import RepositoryNotFound
from app.domain.verdict_errors import HubWriteRefused, PushedMeanwhile
from app.storage.hub.writer import HfWriter
from tests.hub.server import LocalHub
from tests.servers import free_port

REPO = "acme/adapter"
CARD = "---\nlicense: mit\n---\n# Card\n"


@pytest.fixture
def writer(local_hub: LocalHub) -> HfWriter:
    local_hub.create(REPO)
    return HfWriter(local_hub.endpoint, local_hub.token)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    content = {"adapter_model.safetensors": "weights", "README.md": CARD}
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    return {name: tmp_path / name for name in content}


def test_a_discussion_is_opened_found_and_commented(local_hub: LocalHub, writer: HfWriter) -> None:
    made = writer.discussion(REPO, "Safety review", "text with marker-1")
    assert made.url == f"{local_hub.endpoint}/{REPO}/discussions/{made.number}"
    assert writer.find(REPO, "Safety review", "marker-1") == made
    assert writer.find(REPO, "Safety review", "marker-2") is None
    assert writer.find(REPO, "Another title", "marker-1") is None
    assert not writer.has_comment(REPO, made.number, "marker-2")
    assert writer.comment(REPO, made.number, "more, marker-2") == made
    assert writer.has_comment(REPO, made.number, "marker-2")


def test_what_was_opened_long_ago_is_found_beyond_the_first_page(writer: HfWriter) -> None:
    made = writer.discussion(REPO, "The one", "marker")
    for number in range(12):
        writer.discussion(REPO, f"Another {number}", "marker")
    assert writer.find(REPO, "The one", "marker") == made


def test_a_pull_request_is_on_top_of_the_commit_and_found_by_its_description(
    local_hub: LocalHub, writer: HfWriter, files: dict[str, Path]
) -> None:
    parent = local_hub.sha(REPO)
    made = writer.pull_request(REPO, parent, files, "Safety patch", "marker")
    assert made is not None
    assert writer.find(REPO, "Safety patch", "marker") == made
    assert local_hub.read(REPO, f"refs/pr/{made.number}", "README.md") == CARD.encode()
    assert local_hub.sha(REPO) == parent


def test_a_pull_request_that_changes_nothing_is_not_opened(
    local_hub: LocalHub, writer: HfWriter, files: dict[str, Path]
) -> None:
    parent = local_hub.commit(REPO, {name: path.read_bytes() for name, path in files.items()})
    assert writer.pull_request(REPO, parent, files, "Safety patch", "marker") is None
    assert local_hub.discussions(REPO) == []


def test_a_branch_that_has_moved_is_told(
    local_hub: LocalHub, writer: HfWriter, files: dict[str, Path]
) -> None:
    parent = local_hub.sha(REPO)
    local_hub.faults.refuse(412, times=None, method="POST", path="*/commit/*")
    with pytest.raises(PushedMeanwhile, match=parent):
        writer.pull_request(REPO, parent, files, "Safety patch", "marker")


def test_a_card_that_the_hub_cannot_read_is_refused_with_its_reason(
    local_hub: LocalHub, writer: HfWriter, files: dict[str, Path]
) -> None:
    files["README.md"].write_text("---\n: [\n---\n")
    with pytest.raises(HubWriteRefused, match=r"opening a pull request in .*hub answers 400"):
        writer.pull_request(REPO, local_hub.sha(REPO), files, "Safety patch", "marker")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, HubWriteRefused), (400, HubWriteRefused), (429, Unavailable), (502, Unavailable)],
)
def test_a_status_is_told_as_what_may_be_tried_again_and_what_not(
    local_hub: LocalHub, writer: HfWriter, status: int, kind: type[AdapterSafetyError]
) -> None:
    local_hub.faults.refuse(status, times=None, method="POST")
    with pytest.raises(kind):
        writer.discussion(REPO, "Title", "text")


def test_a_connection_that_breaks_and_a_hub_that_is_not_there_are_unavailable(
    local_hub: LocalHub, writer: HfWriter
) -> None:
    local_hub.faults.refuse(None, times=None)
    with pytest.raises(Unavailable, match="hub"):
        writer.discussion(REPO, "Title", "text")
    with pytest.raises(Unavailable, match="hub"):
        HfWriter(f"http://127.0.0.1:{free_port()}", "x").discussion(REPO, "Title", "text")


def test_a_repository_that_may_not_be_seen_is_told(local_hub: LocalHub, writer: HfWriter) -> None:
    with pytest.raises(RepositoryNotFound, match="acme/nothing"):
        writer.discussion("acme/nothing", "Title", "text")


def test_an_upload_that_fails_is_told_as_its_cause(
    local_hub: LocalHub, writer: HfWriter, files: dict[str, Path]
) -> None:
    local_hub.faults.refuse(403, times=None, host="cdn")
    with pytest.raises(HubWriteRefused, match="hub answers 403"):
        writer.pull_request(REPO, local_hub.sha(REPO), files, "Safety patch", "marker")
    assert local_hub.discussions(REPO) == []
