"""Data sets over real HTTP: what is accepted, counted, and that what is refused leaves nothing."""

import hashlib
import json
import shutil
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from app.client import Client, ProblemError
from app.domain.access import Scope
from app.storage.keys import SqlKeys
from tests.service import Service, running

PROBLEM = "application/problem+json"
JSONL = {"Content-Type": "application/jsonl"}


def line(prompt: str = "how are you", response: str = "well") -> bytes:
    return json.dumps({"prompt": prompt, "response": response}).encode() + b"\n"


def fresh() -> bytes:
    return line(uuid.uuid4().hex)


@pytest.fixture(scope="module")
def counting(model_root: Path) -> Iterator[str]:
    """A model with a tokenizer of one token a word, which would cut off, fill up and add."""
    folder = model_root / "counting"
    shutil.copytree(model_root / "chat", folder, dirs_exist_ok=True)
    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_truncation(2)
    words.enable_padding(length=8)
    words.save(str(folder / "tokenizer.json"))
    yield "counting"
    shutil.rmtree(folder)


def test_a_data_set_is_created_once_and_found_again(http: httpx.Client) -> None:
    raw = line("hé") + b"\n" + line("p", "rr")
    first = http.post("/v1/datasets", content=raw, headers=JSONL)
    again = http.post("/v1/datasets", content=raw, headers=JSONL)
    assert (first.status_code, again.status_code) == (201, 200)
    found = first.json()
    assert found["id"] == hashlib.sha256(raw).hexdigest()
    assert (found["rows"], found["size_bytes"], found["tokens"]) == (2, len(raw), {})
    assert (found["prompt_characters"], found["response_characters"]) == (3, 6)
    assert first.headers["location"] == found["links"]["self"] == f"/v1/datasets/{found['id']}"
    assert http.get(first.headers["location"]).json() == again.json() == found


@pytest.mark.parametrize(
    "media", ["application/jsonl", "application/x-ndjson; charset=utf-8", "application/json-lines"]
)
def test_every_way_of_sending_gives_the_same_id(http: httpx.Client, media: str) -> None:
    raw = fresh()
    bare = http.post("/v1/datasets", content=raw, headers={"Content-Type": media})
    form = http.post("/v1/datasets", files={"data": ("any name.txt", raw)})
    assert (bare.status_code, form.status_code) == (201, 200)
    assert form.json() == bare.json()


def test_tokens_are_counted_by_the_model_that_is_named(http: httpx.Client, counting: str) -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one two three"},
        {"role": "assistant", "content": "four"},
        {"role": "user", "content": "five"},
        {"role": "assistant", "content": "six seven"},
    ]
    raw = fresh() + json.dumps({"messages": messages}).encode()
    plain = http.post("/v1/datasets", content=raw, headers=JSONL).json()
    asked = {"chat_model": counting}
    counted = http.post("/v1/datasets", params=asked, content=raw, headers=JSONL)
    assert counted.status_code == 200
    assert counted.json() == {**plain, "tokens": {counting: {"prompt": 7, "response": 4}}}
    without = http.post("/v1/datasets", content=raw, headers=JSONL)
    assert without.json() == counted.json()


def test_counts_of_many_rows_add_up(http: httpx.Client, counting: str) -> None:
    raw = fresh() + line("one " * 1000, "two " * 3000) * 300  # several batches
    sent = http.post("/v1/datasets", params={"chat_model": counting}, content=raw, headers=JSONL)
    assert sent.json()["tokens"][counting] == {"prompt": 300_001, "response": 900_001}


@pytest.mark.parametrize(
    ("chat_model", "code", "culprit"),
    [
        ("chat", "tokenizer-refused", "no tokenizer.json"),
        ("broken", "tokenizer-refused", "cannot be read"),
        ("nowhere", "unknown-model", "nowhere"),
        ("../chat", "invalid-field", "not a path"),
        ("x" * 300, "invalid-field", "chat_model"),
    ],
)
def test_a_model_that_cannot_count_is_refused_and_nothing_is_kept(
    http: httpx.Client, model_root: Path, chat_model: str, code: str, culprit: str
) -> None:
    shutil.copytree(model_root / "chat", model_root / "broken", dirs_exist_ok=True)
    (model_root / "broken" / "tokenizer.json").write_text('{"model": ')
    raw, asked = fresh(), {"chat_model": chat_model}
    answer = http.post("/v1/datasets", params=asked, content=raw, headers=JSONL)
    assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (422, code)
    assert culprit in answer.json()["detail"]
    assert str(model_root) not in answer.text
    assert http.get(f"/v1/datasets/{hashlib.sha256(raw).hexdigest()}").status_code == 404
    shutil.rmtree(model_root / "broken")


def test_data_sets_are_listed_newest_first_page_by_page(http: httpx.Client) -> None:
    sent = [http.post("/v1/datasets", content=fresh(), headers=JSONL).json() for _ in range(2)]
    first = http.get("/v1/datasets", params={"limit": 1}).json()
    second = http.get("/v1/datasets", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [*first["items"], *second["items"]] == sent[::-1]


def test_an_unknown_data_set_is_a_404_problem(http: httpx.Client) -> None:
    answer = http.get("/v1/datasets/nope")
    assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
    assert answer.json()["type"].endswith(":dataset-not-found")


def staged(service: Service) -> list[Path]:
    return list((service.data / "staging").iterdir())


def kept(http: httpx.Client, service: Service) -> tuple[object, list[Path]]:
    return http.get("/v1/datasets").json(), staged(service)


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (line() + b"{", 422, "dataset-refused"),
        (b'{"prompt": "p"}', 422, "dataset-refused"),
        (b"\x1f\x8b\x08\x00", 422, "dataset-refused"),
        (b"", 422, "empty-dataset"),
        (b"\n\n", 422, "empty-dataset"),
    ],
)
def test_what_is_no_data_set_is_refused_and_nothing_is_kept(
    http: httpx.Client, service: Service, raw: bytes, status: int, code: str
) -> None:
    before = kept(http, service)
    for answer in (
        http.post("/v1/datasets", content=raw, headers=JSONL),
        http.post("/v1/datasets", files={"data": ("data", raw)}),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
        assert answer.json()["type"].endswith(code)
    assert kept(http, service) == before


def test_a_refusal_names_the_line_and_the_field(http: httpx.Client) -> None:
    raw = line() * 2 + b'{"prompt": "p", "response": " "}\n'
    problem = http.post("/v1/datasets", content=raw, headers=JSONL).json()
    assert problem["line"] == 3
    assert problem["detail"] == "line 3: response is empty"


def test_prompts_alone_are_taken_where_responses_are_optional(http: httpx.Client) -> None:
    prompt = uuid.uuid4().hex
    raw = json.dumps({"prompt": prompt}).encode() + b"\n" + line("p", "rr")
    refused = http.post("/v1/datasets", content=raw, headers=JSONL)
    assert (refused.status_code, refused.json()["line"]) == (422, 1)
    assert refused.json()["detail"] == "line 1: response is missing"
    taken = http.post("/v1/datasets?responses=optional", content=raw, headers=JSONL)
    found = taken.json()
    assert taken.status_code == 201
    assert (found["rows"], found["unanswered"]) == (2, 1)
    assert (found["prompt_characters"], found["response_characters"]) == (len(prompt) + 1, 2)
    assert http.get(f"/v1/datasets/{found['id']}").json() == found
    assert http.get("/v1/datasets", params={"limit": 1}).json()["items"] == [found]


def test_a_data_set_with_every_response_is_the_same_either_way(http: httpx.Client) -> None:
    raw = fresh()
    required = http.post("/v1/datasets?responses=required", content=raw, headers=JSONL)
    optional = http.post("/v1/datasets?responses=optional", content=raw, headers=JSONL)
    assert (required.status_code, optional.status_code) == (201, 200)
    assert optional.json() == required.json()
    assert required.json()["unanswered"] == 0


def test_whether_responses_are_needed_is_one_of_two_words(http: httpx.Client) -> None:
    answer = http.post("/v1/datasets?responses=no", content=fresh(), headers=JSONL)
    assert (answer.status_code, answer.json()["field"]) == (422, "responses")


def test_the_client_uploads_prompts_alone(service: Service, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": uuid.uuid4().hex}))
    with Client(service.url) as client:
        with pytest.raises(ProblemError, match="response is missing"):
            client.upload_dataset(tmp_path / "prompts.jsonl")
        found = client.upload_dataset(tmp_path / "prompts.jsonl", responses="optional")
    assert found["unanswered"] == 1


def test_another_media_type_is_a_415_problem(http: httpx.Client, service: Service) -> None:
    before = kept(http, service)
    for media in ("text/plain", "application/json", "application/x-www-form-urlencoded", ""):
        answer = http.post("/v1/datasets", content=line(), headers={"Content-Type": media})
        assert (answer.status_code, answer.headers["content-type"]) == (415, PROBLEM)
        assert "application/jsonl" in answer.json()["detail"]
    assert kept(http, service) == before


def test_a_form_without_the_data_or_with_more_is_refused(
    http: httpx.Client, service: Service
) -> None:
    before = kept(http, service)
    data = {"data": ("data", fresh())}
    none = http.post("/v1/datasets", files={"other": ("data", b"x")})
    assert (none.status_code, none.json()["field"]) == (422, "other")
    more = http.post("/v1/datasets", files=data, data={"name": "mine"})
    assert (more.status_code, more.json()["field"]) == (422, "name")
    lacking = http.post("/v1/datasets", files={"name": (None, b"mine")})
    assert (lacking.status_code, lacking.json()["field"]) == (422, "name")
    assert kept(http, service) == before


def wait_for(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_client_that_goes_away_leaves_nothing(service: Service) -> None:
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port)) as client:
        head = "POST /v1/datasets HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n"
        client.sendall(f"{head}Content-Type: application/jsonl\r\n\r\n".encode() + line())
        wait_for(lambda: len(staged(service)) == 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: not staged(service))


def test_a_data_set_over_the_limit_is_refused_whichever_way_it_comes(
    tmp_path: Path, model_root: Path
) -> None:
    limit = {"ADAPTER_SAFETY_MAX_DATASET_BYTES": "1000"}
    raw = fresh() * 20

    def pieces() -> Iterator[bytes]:
        yield raw

    with running(tmp_path, model_root, **limit) as service, httpx.Client(timeout=30) as http:
        url = f"{service.url}/v1/datasets"
        for answer in (
            http.post(url, content=raw, headers=JSONL),
            http.post(url, content=pieces(), headers=JSONL),
            http.post(url, files={"data": ("data", raw)}),
            http.post(url, content=raw * 2000, headers=JSONL),
        ):
            assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)
        assert http.get(url).json()["items"] == []
        assert staged(service) == []


def test_keys_keep_tenants_and_scopes_apart_and_quotas_count(
    tmp_path: Path, model_root: Path
) -> None:
    first, second = fresh(), fresh()
    limits = {"ADAPTER_SAFETY_MAX_STORED_BYTES": str(len(first) + len(second) - 1)}
    with running(tmp_path, model_root, ADAPTER_SAFETY_AUTH="keys", **limits) as service:
        keys = SqlKeys(f"sqlite:///{tmp_path / 'records.sqlite3'}")
        both: tuple[Scope, ...] = ("read", "submit")
        made = {
            name: {"Authorization": f"Bearer {keys.create(name, name[0], scopes)[1]}"}
            for name, scopes in {"a": both, "b": both, "ar": ("read",)}.items()
        }
        url = f"{service.url}/v1/datasets"
        assert httpx.post(url, content=first, headers=JSONL).status_code == 401
        assert httpx.post(url, content=first, headers=JSONL | made["ar"]).status_code == 403
        sent = httpx.post(url, content=first, headers=JSONL | made["a"])
        assert sent.status_code == 201
        path = f"{service.url}{sent.headers['location']}"
        assert httpx.get(path, headers=made["ar"]).status_code == 200
        assert httpx.get(path, headers=made["b"]).status_code == 404
        over = httpx.post(url, content=second, headers=JSONL | made["a"])
        assert (over.status_code, over.json()["type"].split(":")[-1]) == (429, "quota-exceeded")
        assert httpx.post(url, content=second, headers=JSONL | made["b"]).status_code == 201
        keys.close()
