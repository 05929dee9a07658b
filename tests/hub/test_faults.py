"""Each fault happens when a test says so, as often as it says, and no more."""

import hashlib
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from tests.hub.fixtures import api_of
from tests.hub.server import LocalHub

REPO = "acme/adapter"
FILE = "weights.safetensors"
WEIGHTS = bytes(range(256)) * 1024  # 256 KiB
RANGE = {"Range": "bytes=100-199"}


@pytest.fixture
def hub(local_hub: LocalHub) -> LocalHub:
    local_hub.create(REPO)
    local_hub.commit(REPO, {FILE: WEIGHTS, "config.json": b"0123456789"})
    return local_hub


def get(hub: LocalHub, file: str = FILE, **headers: str) -> httpx.Response:
    url = f"{hub.endpoint}/{REPO}/resolve/main/{file}"
    return httpx.get(url, headers=headers, follow_redirects=True)


def test_a_connection_is_cut_after_so_many_bytes(hub: LocalHub) -> None:
    hub.faults.cut(100_000, file=FILE, times=2)
    for _ in range(2):
        hub.log.clear()
        with pytest.raises(httpx.RemoteProtocolError, match="100000 bytes"):
            get(hub)
        assert hub.log.bytes_of(REPO, FILE) == 100_000
    assert get(hub).content == WEIGHTS


def test_a_short_body_does_not_use_up_a_cut(hub: LocalHub) -> None:
    hub.faults.cut(1000)
    assert get(hub, **RANGE).content == WEIGHTS[100:200]
    with pytest.raises(httpx.RemoteProtocolError):
        get(hub)


def test_the_client_takes_up_again_where_it_was_cut(hub: LocalHub) -> None:
    kept = constants.DOWNLOAD_CHUNK_SIZE  # because it writes no less than that at once
    hub.commit(REPO, {"large.bin": WEIGHTS * 50})
    hub.faults.cut(kept + 100_000)
    got = api_of(hub).hf_hub_download(REPO, "large.bin")
    assert Path(got).read_bytes() == WEIGHTS * 50
    assert hub.log.ranges_of(REPO, "large.bin") == [None, (kept, None)]
    assert hub.log.bytes_of(REPO, "large.bin") == len(WEIGHTS) * 50 + 100_000


def test_what_has_no_body_does_not_use_up_a_fault(hub: LocalHub) -> None:
    hub.faults.cut(5, file="config.json")
    assert httpx.head(f"{hub.endpoint}/{REPO}/resolve/main/config.json").status_code == 200
    with pytest.raises(httpx.RemoteProtocolError):
        get(hub, "config.json")


def test_a_fault_of_one_file_leaves_the_others_alone(hub: LocalHub) -> None:
    hub.faults.cut(1, file="*.safetensors", times=None)
    assert get(hub, "config.json").content == b"0123456789"
    with pytest.raises(httpx.RemoteProtocolError):
        get(hub)
    hub.faults.clear()
    assert get(hub).content == WEIGHTS


def test_a_content_length_may_be_too_long_or_too_short(hub: LocalHub) -> None:
    hub.faults.wrong_length(+5, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        get(hub)
    hub.faults.wrong_length(-5, times=1)
    assert get(hub).content == WEIGHTS[:-5]
    assert get(hub).content == WEIGHTS


def test_a_content_range_may_lie(hub: LocalHub) -> None:
    hub.faults.wrong_range(7, times=1)
    answer = get(hub, **RANGE)
    assert answer.headers["Content-Range"] == f"bytes 107-206/{len(WEIGHTS)}"
    assert answer.content == WEIGHTS[100:200]


def test_a_range_may_be_ignored(hub: LocalHub) -> None:
    hub.faults.ignore_range(times=1)
    answer = get(hub, **RANGE)
    assert (answer.status_code, answer.content) == (200, WEIGHTS)
    assert get(hub, **RANGE).status_code == 206


def test_a_byte_may_come_wrong(hub: LocalHub) -> None:
    hub.faults.corrupt(150, file=FILE)
    wrong = bytearray(WEIGHTS)
    wrong[150] ^= 0xFF
    assert get(hub).content == wrong
    assert get(hub, **RANGE).content == wrong[100:200]
    assert get(hub, Range="bytes=0-99").content == WEIGHTS[:100]


def test_the_digest_that_is_told_may_be_wrong(hub: LocalHub) -> None:
    hub.faults.wrong_sha("f" * 64, file=FILE)
    info = api_of(hub).model_info(REPO, files_metadata=True)
    told = next(file.lfs.sha256 for file in info.siblings if file.rfilename == FILE)
    assert told == "f" * 64 != hashlib.sha256(WEIGHTS).hexdigest()


def test_a_body_waits_until_it_is_let_go(hub: LocalHub) -> None:
    go, got = Event(), []
    hub.faults.hold(go, after=1000, times=1)
    with httpx.stream("GET", follow_location(hub)) as answer:
        body = answer.iter_raw()
        assert next(body) == WEIGHTS[:1000]
        rest = Thread(target=lambda: got.append(b"".join(body)))
        rest.start()
        assert hub.log.bytes_of(REPO, FILE) == 1000
        go.set()
        rest.join()
    assert got == [WEIGHTS[1000:]]


def follow_location(hub: LocalHub) -> str:
    return httpx.head(f"{hub.endpoint}/{REPO}/resolve/main/{FILE}").headers["Location"]


def test_a_hub_stops_while_a_body_waits() -> None:
    with LocalHub() as hub:
        hub.create(REPO)
        hub.commit(REPO, {FILE: WEIGHTS})
        hub.faults.hold(Event())
        client = httpx.Client()
        answer = client.send(client.build_request("GET", follow_location(hub)), stream=True)
    answer.close()
    client.close()


def test_the_hub_is_down_until_it_is_not(hub: LocalHub) -> None:
    hub.down.set()
    with pytest.raises(HfHubHTTPError) as caught:
        api_of(hub).model_info(REPO)
    assert caught.value.response.status_code == 503
    hub.down.clear()
    assert api_of(hub).model_info(REPO).sha


def test_the_cdn_may_be_down_alone(hub: LocalHub) -> None:
    hub.faults.cdn_down.set()
    assert get(hub).status_code == 503
    assert get(hub, "config.json").status_code == 200


def test_so_many_requests_are_refused_and_the_next_is_not(hub: LocalHub) -> None:
    hub.faults.rate_limit(7)
    limited = get(hub)
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "7")
    hub.faults.refuse(500, times=2, path="*/config.json")
    assert [get(hub).status_code, get(hub, "config.json").status_code] == [200, 500]
    assert [get(hub, "config.json").status_code for _ in range(2)] == [500, 200]


def test_the_client_waits_as_long_as_it_is_told(hub: LocalHub) -> None:
    hub.faults.rate_limit(0)
    assert list(api_of(hub).list_repo_tree(REPO))
    assert [r.status for r in hub.log.requests()] == [429, 200]


def test_a_connection_may_be_dropped_without_an_answer(hub: LocalHub) -> None:
    hub.faults.refuse(None)
    with pytest.raises(httpx.RemoteProtocolError):
        get(hub)
    assert get(hub).status_code == 200
