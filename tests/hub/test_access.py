"""Who may read what, and how the hub says no."""

from pathlib import Path

import pytest
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
)

from tests.hub.fixtures import api_of
from tests.hub.server import LocalHub

REPO = "acme/adapter"
FILES = {"config.json": b"{}", "weights.safetensors": b"\0" * 1000}


def test_a_missing_repository_is_not_found_with_a_token_and_without(local_hub: LocalHub) -> None:
    for token, status in ((None, 401), (local_hub.token, 404)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            api_of(local_hub, token).model_info(REPO)
        assert not isinstance(caught.value, GatedRepoError)
        assert caught.value.response.status_code == status


def test_a_private_repository_is_there_for_its_members_only(local_hub: LocalHub) -> None:
    member, other = local_hub.user("member"), local_hub.user("other")
    local_hub.create(REPO, private=True, members=[member])
    assert api_of(local_hub, member).model_info(REPO).private
    for token, status in ((None, 401), (other, 404)):
        with pytest.raises(RepositoryNotFoundError) as caught:
            api_of(local_hub, token).hf_hub_download(REPO, "config.json")
        assert caught.value.response.status_code == status


def test_a_gated_repository_tells_of_itself_but_gives_its_files_to_few(
    local_hub: LocalHub,
) -> None:
    admitted, other = local_hub.user("admitted"), local_hub.user("other")
    local_hub.create(REPO, gated_to=[admitted])
    local_hub.commit(REPO, FILES)
    assert api_of(local_hub).model_info(REPO).gated == "manual"
    for token, status in ((None, 401), (other, 403)):
        with pytest.raises(GatedRepoError) as caught:
            api_of(local_hub, token).hf_hub_download(REPO, "weights.safetensors")
        assert caught.value.response.status_code == status
    got = api_of(local_hub, admitted).hf_hub_download(REPO, "weights.safetensors")
    assert Path(got).read_bytes() == FILES["weights.safetensors"]


def test_a_disabled_repository_says_so(local_hub: LocalHub) -> None:
    local_hub.create(REPO)
    local_hub.repository(REPO).disabled = True
    with pytest.raises(DisabledRepoError):
        api_of(local_hub).model_info(REPO)


def test_an_unknown_token_is_refused_even_where_none_is_needed(local_hub: LocalHub) -> None:
    local_hub.create(REPO)
    with pytest.raises(HfHubHTTPError) as caught:
        api_of(local_hub, "hf_nobody").model_info(REPO)
    assert caught.value.response.status_code == 401
    assert not isinstance(caught.value, RepositoryNotFoundError)


def test_a_token_tells_whose_it_is(local_hub: LocalHub) -> None:
    reader = local_hub.user("reader", role="read")
    told = api_of(local_hub, reader).whoami()
    assert (told["name"], told["auth"]["accessToken"]["role"]) == ("reader", "read")
    with pytest.raises(HfHubHTTPError):
        api_of(local_hub, "hf_nobody").whoami()


def test_the_cdn_never_sees_a_token(local_hub: LocalHub, tmp_path: Path) -> None:
    local_hub.create(REPO, private=True)
    local_hub.commit(REPO, FILES)
    api = api_of(local_hub, local_hub.token)
    api.snapshot_download(REPO, cache_dir=tmp_path)
    assert local_hub.log.requests(host="cdn", method="GET")
    assert local_hub.log.with_authorization("hub")
    assert not local_hub.log.with_authorization("cdn")
