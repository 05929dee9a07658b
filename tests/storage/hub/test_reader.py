"""Who reads what with which token."""

from pathlib import Path

import pytest

from app.domain.hub_errors import RepositoryNotFound
from app.storage.hub.reader import ClientsHub
from tests.hub.server import LocalHub

SECRET = "org/secret"


def test_a_client_sees_by_the_services_token_only_what_the_operator_says(
    local_hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", local_hub.token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    local_hub.create(SECRET, private=True)
    sha = local_hub.commit(SECRET, {"README.md": b"secret"})
    with pytest.raises(RepositoryNotFound, match=SECRET):
        ClientsHub(()).commit(SECRET, None, field="hub.repo_id")
    with pytest.raises(RepositoryNotFound):
        ClientsHub(("other/*",)).commit(SECRET, None, field="hub.repo_id")
    trusted = ClientsHub(("org/*",))
    commit = trusted.commit(SECRET, None, field="hub.repo_id")
    assert commit.sha == sha
    (file,) = (file for file in commit.files if file.name == "README.md")
    trusted.download(commit, file, tmp_path / "README.md")
    assert (tmp_path / "README.md").read_bytes() == b"secret"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
